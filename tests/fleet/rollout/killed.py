"""A coordinator that SIGKILL ends at each step of a rollout: one fork for each of its runs.

`python -m tests.fleet.rollout.killed FOLDER PORT SCOPE` prints the steps in the journal after each
run, as the store has them, and ends when the rollout is over. With the scope `each:cell` the robots
are the machines of one instance.
"""

import asyncio
import os
import signal
import sys
from pathlib import Path
from typing import Any

import msgspec

from dorafleet.coordinator.rollouts import HEADS, LOGS
from dorafleet.rollout.messages import JournalEntry
from dorafleet.rollout.model import Rollout
from dorafleet.store.model import Store, Transaction
from dorafleet.store.sqlite import SqliteStore

from .site import site, strategy
from .test_cells import LABELS, ONE, TWO

ROBOTS = 2
STRATEGY = strategy(canary=1, max_parallel=1, progress_deadline=60.0)
MAX_RUNS = 100


def die_at_a_step(store: Store, *, before: bool) -> None:
    """Let SIGKILL end this process after the next step is written, or before the one after it."""
    commit: Any = store.commit
    steps = 0

    async def commit_and_die(transaction: Transaction) -> int:
        nonlocal steps
        is_step = any(key.startswith(LOGS) for key in transaction.puts)
        steps += is_step
        if before and steps == 2:
            os.kill(os.getpid(), signal.SIGKILL)
        revision = await commit(transaction)
        # Another task may write what is measured meanwhile.
        if is_step and not before:
            os.kill(os.getpid(), signal.SIGKILL)
        assert isinstance(revision, int)
        return revision

    vars(store)["commit"] = commit_and_die


async def lead(folder: Path, port: int, scope: str, number: int) -> None:
    """Lead until killed, or until the rollout is over."""
    store = await SqliteStore.open(folder / "coordinator.db")
    die_at_a_step(store, before=bool(number % 2))
    settings: Any = {"connect": False, "register": False, "store": store, "port": port}
    async with site(folder, ROBOTS, LABELS, **settings) as one:
        if not one.control.rollouts.heads:
            await one.register(ONE, TWO)
            await one.start("pick@2", strategy=STRATEGY, scope=scope)
        await one.until(1, "succeeded", over=True)
    await store.close()


async def read(folder: Path) -> list[str]:
    """Return the steps in the journal; check that the head counts them."""
    store = await SqliteStore.open(folder / "coordinator.db")
    entries = [
        msgspec.json.decode(entry.value, type=JournalEntry)
        for entry in (await store.get(LOGS)).entries
    ]
    heads = [
        msgspec.json.decode(entry.value, type=Rollout) for entry in (await store.get(HEADS)).entries
    ]
    await store.close()
    assert [entry.step for entry in entries] == list(range(1, len(entries) + 1))
    assert sum(head.steps for head in heads) == len(entries)
    return [f"{entry.what} {' '.join(entry.robots)}".strip() for entry in entries]


def main(folder: Path, port: int, scope: str) -> int:
    for number in range(MAX_RUNS):
        child = os.fork()
        if not child:
            asyncio.run(lead(folder, port, scope, number))
            os._exit(0)
        _, status = os.waitpid(child, 0)
        print(msgspec.json.encode(asyncio.run(read(folder))).decode(), flush=True)
        if not os.WIFSIGNALED(status):
            return os.waitstatus_to_exitcode(status)
    return 1


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3]))

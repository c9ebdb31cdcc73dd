"""The phases of the benchmark of rollouts, to robots of which some come and go."""

import asyncio
import base64
import hashlib
import json
import time
import zlib
from collections.abc import Awaitable, Callable

import asyncssh

from dorad.control.errors import ControlError
from dorad.control.messages.releases import HealthRules
from dorad.release.manifest import File, Manifest, NodeContent, encode
from dorad.release.signature import NAMESPACE
from dorafleet.coordinator.messages import COORDINATOR_BACKUP, Backup
from dorafleet.rollout import messages as r
from dorafleet.rollout.messages import (
    RELEASE_PUT,
    ROLLOUT_PLAN,
    ROLLOUT_START,
    ROLLOUT_STATUS,
    ROLLOUT_UNDO,
    ROLLOUT_WATCH,
)
from dorafleet.rollout.strategy import Strategy
from hwtests.bench.process import MeasurementError
from hwtests.scale.coordinator import Coordinator
from hwtests.scale.meter import measured
from hwtests.scale.operator import client_of
from hwtests.scale.phases import CHURNING, Phase
from hwtests.scale.simulators import Simulators

ATTACH_S = 600.0
SETTLE_S = 900.0
RECONNECT_S = 2.0
ENDS = ("settled", "succeeded", "reverted", "revert_incomplete", "failed")
RULES = HealthRules(min_healthy_time=2, healthy_deadline=300, confirm_deadline=300)
STRATEGY = Strategy(canary=5, progress_deadline=600, soak_time=0.0, rules=RULES)
DATABASE = "coordinator.db"


class Rollouts:
    """Rolls out to all robots: undisturbed, while some come and go, and back again."""

    def __init__(
        self,
        robots: Simulators,
        running: Coordinator,
        ask: Callable[[], Awaitable[object]],
    ) -> None:
        """`ask` is what an operator asks all the time."""
        self._robots = robots
        self._running = running
        self._ask = ask
        self._key = asyncssh.generate_private_key("ssh-ed25519")

    async def run(self, report: Callable[[Phase], None]) -> None:
        """Run all phases; report each at its end."""
        await self._robots.order("connect")
        await self._robots.wait(
            lambda counts: counts.attached == counts.robots, "all attached", ATTACH_S
        )
        report(await self._measure("a rollout to all", 1))
        await self._robots.order("churn", CHURNING)
        report(await self._measure(f"a rollout while {CHURNING:.0%} come and go", 2))
        report(await self._measure("its undo, while they do", None))
        await self._robots.order("calm")

    async def _measure(self, name: str, sequence: int | None) -> Phase:
        before = self._size()
        async with measured(self._running.pid, self._ask) as cost:
            began = time.monotonic()
            number = await self._undo() if sequence is None else await self._start(sequence)
            detail = await self._end(number)
            took = time.monotonic() - began
        counts = detail.summary.counts
        journal, size = await self._journal(number)
        grown = (self._size() - before) / (1 << 20)
        states = ", ".join(f"{count} {state}" for state, count in sorted(counts.items()))
        note = (
            f"{detail.summary.phase}: {states}; {journal} steps and {size / (1 << 10):.0f} KiB in "
            f"the journal, {grown:.1f} MiB with audit and history"
        )
        return Phase(name, cost, took, attached=sum(counts.values()), note=note)

    async def _start(self, sequence: int) -> int:
        content = encode(release(sequence))
        signature = asyncssh.create_sshsig(self._key, content, namespace=NAMESPACE).decode()
        put = r.ReleasePut(content=zlib.compress(content), signature=signature)
        async with client_of(self._running) as client:
            info = await client.call(RELEASE_PUT, put)
            new = r.RolloutNew(release=info.id, strategy=STRATEGY)
            plan = await client.call(ROLLOUT_PLAN, new)
            new.if_version = plan.version
            return (await client.call(ROLLOUT_START, new)).rollout

    async def _undo(self) -> int:
        async with client_of(self._running) as client:
            newest = await client.call(ROLLOUT_STATUS, r.RolloutRef())
            act = r.RolloutAct(rollout=newest.summary.rollout)
            return (await client.call(ROLLOUT_UNDO, act)).rollout

    async def _end(self, number: int) -> r.RolloutDetail:
        """Wait until a rollout has settled.

        Raises:
            MeasurementError: it has not in time.
        """
        ref = r.RolloutRef(rollout=number)
        try:
            async with asyncio.timeout(SETTLE_S):
                while not await self._has_settled(number):
                    continue
        except TimeoutError:
            raise MeasurementError(f"rollout {number} has not settled") from None
        async with client_of(self._running) as client:
            return await client.call(ROLLOUT_STATUS, ref)

    async def _has_settled(self, number: int) -> bool:
        """Follow a rollout until it has settled; return False if the connection ends before."""
        watch = r.RolloutWatch(rollout=number, robots=False)
        try:
            async with (
                client_of(self._running) as client,
                client.stream(ROLLOUT_WATCH, watch) as stream,
            ):
                async for news in stream:
                    if any(each.phase in ENDS for each in news.rollouts):
                        return True
        except ControlError:
            # The machine is busy: the rollout continues without this client.
            await asyncio.sleep(RECONNECT_S)
        return False

    def _size(self) -> int:
        files = self._running.state.glob(f"{DATABASE}*")
        return sum(path.stat().st_size for path in files)

    async def _journal(self, number: int) -> tuple[int, int]:
        """Return the steps of a rollout, and the bytes of all its keys, from a backup."""
        path = self._running.state / "measured.backup"
        async with client_of(self._running) as client:
            await client.call(COORDINATOR_BACKUP, Backup(path=str(path)))
        steps = size = 0
        for line in path.read_text().splitlines():
            entry = json.loads(line)
            key = entry.get("key", "")
            if key.startswith("rollout") and f"/{number:08}" in key:
                steps += key.startswith("rollout-log/")
                size += len(key) + len(base64.b64decode(entry["value"]))
        return steps, size


def release(sequence: int) -> Manifest:
    """Return a small release."""
    content = f"release {sequence}".encode()
    digest = hashlib.sha256(content).hexdigest()
    return Manifest(
        format=1,
        name="sim",
        sequence=sequence,
        created=1_800_000_000,
        min_dorad="0.0.0",
        entry="dataflow.yml",
        targets=[],
        files=[File("dataflow.yml", digest, len(content), executable=False)],
        packages=[],
        environments=[],
        nodes={"node": NodeContent(digest, python=False)},
    )

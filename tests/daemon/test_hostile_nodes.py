"""Nodes that corrupt all their memory: the daemon answers, and the next one adopts the rest."""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.harness.daemon import Daemon, daemon
from tests.harness.flows import (
    counting,
    seen,
    until_more_logged,
    until_more_seen,
    write_flow,
)
from tests.harness.waiting import wait_until

pytestmark = [pytest.mark.long, pytest.mark.timeout(180)]

ANSWER_S = 10.0
"""Longest time of a call on a busy machine."""

EVIL = """
    import contextlib, fcntl, mmap, os, pathlib, sys, threading
    from dora import Node
    from dorad.shm import layout

    os.close = lambda descriptor: None  # keep every descriptor that is passed
    node = Node()
    MAX = (1 << 64) - 2

    def descriptors():
        for name in os.listdir("/proc/self/fd"):
            with contextlib.suppress(OSError):
                yield int(name), os.readlink(f"/proc/self/fd/{name}")

    def fill(bell):
        for amount in (MAX, 1 << 32, 1):
            with contextlib.suppress(OSError):
                os.set_blocking(bell, False)
                while True:
                    os.eventfd_write(bell, amount)
        os.set_blocking(bell, True)

    def corrupt(memory):
        for attempt in (
            lambda: os.ftruncate(memory, 0),
            lambda: os.truncate(f"/proc/self/fd/{memory}", 0),
            lambda: fcntl.fcntl(memory, fcntl.F_ADD_SEALS, fcntl.F_SEAL_WRITE),
            lambda: os.fchmod(memory, 0),
            lambda: mmap.mmap(memory, 0).madvise(mmap.MADV_REMOVE) if HOLES else None,
        ):
            with contextlib.suppress(OSError, ValueError):
                attempt()
        with contextlib.suppress(OSError, ValueError):
            mapped = mmap.mmap(memory, 0)
            words = memoryview(mapped).cast("Q")
            if GARBAGE:
                words[1:] = memoryview(b"\\xff" * (len(mapped) - 8)).cast("Q")
            words[layout.BOX_ASLEEP] = 1

    GARBAGE = sys.argv[1] == "garbage"
    HOLES = sys.argv[1] == "holes"

    def harm():
        for descriptor, target in descriptors():
            with contextlib.suppress(OSError):
                os.set_blocking(descriptor, True)
            if "eventfd" in target:
                fill(descriptor)
            elif target.startswith(("/memfd:dorad", "/dev/shm/")) :
                corrupt(descriptor)

    harm()
    pathlib.Path("armed").touch()
    while True:
        harm()
"""

TALKER = """
    from dora import Node
    for event in Node():
        print("something to log " + "x" * 500)
"""

TAKER = """
    import sys, time
    from dora import Node
    node = Node()
    node.next(timeout=0.2)
    sys.exit(1)
"""


@pytest.fixture
def dorad() -> Iterator[Daemon]:
    with daemon() as found:
        yield found


def evil(folder: Path, mode: str) -> Path:
    """A node with a log input, whose blocking receiver restarts again and again."""
    nodes = [
        {
            "id": "evil",
            "path": "evil.py",
            "args": mode,
            "inputs": {"logs": "dora/logs", "tick": "dora/timer/hz/100"},
            "outputs": ["out"],
        },
        {"id": "talker", "path": "talker.py", "inputs": {"tick": "dora/timer/hz/100"}},
        {
            "id": "taker",
            "path": "taker.py",
            "inputs": {"x": {"source": "evil/out", "queue_policy": "backpressure"}},
            "restart_policy": "on-failure",
            "restart_delay": 0.1,
        },
    ]
    return write_flow(folder, nodes, evil=EVIL, talker=TALKER, taker=TAKER)


def answers(dorad: Daemon) -> None:
    """Send the daemon every request that reads state of nodes."""
    for call in ("status", "top", "nodes", "topics"):
        begun = time.monotonic()
        with dorad.client() as client:
            getattr(client, call)(*(["good"] if call == "topics" else []))
        assert time.monotonic() - begun < ANSWER_S, call


@pytest.mark.parametrize("mode", ["bells", "garbage", "holes"])
def test_a_node_that_corrupts_all_its_memory_harms_only_its_own_dataflow(
    dorad: Daemon, tmp_path: Path, mode: str
) -> None:
    good, bad = tmp_path / "good", tmp_path / "bad"
    dorad.dora_ok("start", counting(good), "--name", "good", "--detach")
    dorad.dora_ok("start", evil(bad, mode), "--name", "bad", "--detach")
    wait_until((bad / "armed").exists)
    for _ in range(2):
        until_more_logged(bad, "talker", 50)
        for _ in range(3):
            answers(dorad)
        until_more_seen(good, 50)
    for _ in range(2):
        dorad.kill()
        dorad.start()
        answers(dorad)
    dorad.dora("stop", "bad", "--force")
    dorad.dora_ok("stop", "good")
    numbers = seen(good)
    assert numbers == list(range(len(numbers)))
    assert "Traceback" not in dorad.log
    with dorad.client() as client:
        flows = {flow.name: flow for flow in client.list()}
        assert flows["good"].status == "finished"
        (failure, *_) = client.wait(flows["bad"].uuid, until="ended", timeout=20).failures
    if mode == "holes":
        assert failure.headline == "could not be adopted: node 'evil': its mailbox is empty"
        assert flows["bad"].interrupted

"""`python -m hwtests.torture`: exit code 0 if nothing was damaged, 1 if something was."""

from __future__ import annotations

import argparse
import asyncio
import gc
import os
import random
import sys
import tempfile
import time
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING

from dorad.daemon.broker.broker import Broker
from dorad.shm import native
from hwtests.torture import checks, devshm
from hwtests.torture.client import ForkServer, ForkServerError
from hwtests.torture.inject import inject
from hwtests.torture.spec import FAULTS_FILE
from hwtests.torture.supervisor import NodeSupervisor
from hwtests.torture.topology import random_dataflow

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dorad.dataflow.model import Dataflow, NodeSpec
    from dorad.link.reports import ChannelEvent, Status

SHM_BYTES = 64 << 20
"""Shared memory for each node; samples that are never released soon fill it."""
CHECK_S = 0.1

PLANES = {"native": (True,), "pure": (False,), "mixed": (True, False)}
"""Which data planes the processes of nodes have; True is the native one."""


class _IgnoredEvents:
    """A listener of the broker that does nothing: the processes report their ends."""

    def on_connected(self, node_id: str, pid: int) -> None: ...

    def on_waiting(self, node_id: str, pid: int) -> None: ...

    def on_outputs_done(self, node_id: str) -> None: ...

    def on_operator_ended(self, node_id: str, operator: str) -> None: ...

    def on_disconnected(self, node_id: str) -> None: ...

    def on_link(self, report: Status | ChannelEvent) -> None: ...

    def on_note(self, node_id: str, text: str) -> None: ...


@dataclass
class Result:
    """What happened. `peak` is the most shared memory in use, in bytes."""

    faults: list[str] = field(default_factory=list)
    kills: int = 0
    stops: int = 0
    sent: int = 0
    received: int = 0
    dropped: int = 0
    verified: int = 0
    rechecked: int = 0
    payload: int = 0
    native: int = 0
    pure: int = 0
    peak: int = 0


async def run(
    dataflow: Dataflow, planes: Sequence[bool], rng: Random, seconds: float, folder: Path
) -> Result:
    """Torture a dataflow; nodes write their ledgers and faults into `folder`.

    Each process of a node has one of the data planes, chosen each time: True is the native one.
    """
    result = Result()
    broker = Broker(dataflow, "torture", folder / "daemon.sock", _IgnoredEvents())
    await broker.open()
    try:
        async with AsyncExitStack() as stack:
            servers = [
                await stack.enter_async_context(ForkServer(native=plane)) for plane in planes
            ]
            supervisor = NodeSupervisor(dataflow, broker, servers, folder, rng)
            broker.notifications.open_barrier()
            keeping = [
                asyncio.ensure_future(_keep_running(supervisor, node)) for node in dataflow.nodes
            ]
            watching = asyncio.ensure_future(_watch(supervisor, folder, result))
            try:
                await inject(supervisor, rng, seconds)
                await supervisor.settle()
                if not supervisor.failed.is_set():
                    await supervisor.end()
            finally:
                watching.cancel()
                for task in keeping:
                    task.cancel()
                for outcome in await asyncio.gather(*keeping, watching, return_exceptions=True):
                    if isinstance(outcome, Exception):
                        supervisor.fault(f"the harness itself failed: {outcome!r}")
            _collect(supervisor, folder, result)
            result.native = sum(server.started for server in servers if server.native)
            result.pure = sum(server.started for server in servers if not server.native)
    finally:
        await broker.close()
    return result


async def _keep_running(supervisor: NodeSupervisor, node: NodeSpec) -> None:
    try:
        await supervisor.keep_running(node)
    except (ForkServerError, OSError) as error:
        supervisor.fault(f"{node.id} cannot be kept running: {error}")


async def _watch(supervisor: NodeSupervisor, folder: Path, result: Result) -> None:
    loop = asyncio.get_running_loop()
    progress = checks.Progress(supervisor.ledgers, loop.time())
    before = supervisor.broker.stats.counters()
    while not supervisor.failed.is_set():
        await asyncio.sleep(CHECK_S)
        now = supervisor.broker.stats.counters()
        for fault in (
            *checks.running(before, now),
            *progress.stuck(supervisor.running, loop.time()),
        ):
            supervisor.fault(fault)
        before = now
        result.peak = max(result.peak, devshm.used())
        if (folder / FAULTS_FILE).exists():
            supervisor.failed.set()


def _collect(supervisor: NodeSupervisor, folder: Path, result: Result) -> None:
    edges = supervisor.broker.stats.counters()
    result.faults += supervisor.faults
    reported = folder / FAULTS_FILE
    if reported.exists():
        result.faults += reported.read_text(encoding="utf-8").splitlines()
    if not result.faults:
        result.faults += checks.final(edges, supervisor.ledgers, supervisor.kills)
    result.kills = sum(supervisor.kills.values())
    result.stops = supervisor.stops
    result.sent = sum(edge.sent for edge in edges)
    result.received = sum(edge.received for edge in edges)
    result.dropped = sum(edge.dropped for edge in edges)
    for node in supervisor.dataflow.nodes:
        ledger = supervisor.ledgers[node.id]
        result.rechecked += ledger.rechecked
        for item in node.inputs:
            result.verified += ledger.logged(item.id)
            result.payload += ledger.bytes(item.id)


def main() -> int:
    """Run the test and print its result."""
    parser = argparse.ArgumentParser(prog="python -m hwtests.torture", description=__doc__)
    parser.add_argument("--seconds", type=float, default=120.0, help="how long (default: 120)")
    parser.add_argument("--seed", type=int, help="repeat the choices of an earlier run")
    parser.add_argument("--processes", type=int, default=8, help="number of nodes (default: 8)")
    parser.add_argument(
        "--data-plane",
        choices=PLANES,
        default="mixed" if native.module else "pure",
        help="of each process: native, pure Python, or chosen at random (default: %(default)s)",
    )
    arguments = parser.parse_args()
    if arguments.processes < 2:
        parser.error("a dataflow needs at least 2 nodes")
    seed = random.SystemRandom().getrandbits(32) if arguments.seed is None else arguments.seed
    private_shm = devshm.mount_private(SHM_BYTES * arguments.processes)
    rng = Random(seed)
    dataflow = random_dataflow(rng, arguments.processes)
    edges = sum(len(node.inputs) for node in dataflow.nodes)
    print(
        f"seed {seed}: {arguments.processes} nodes, {edges} edges, {arguments.seconds:g} s,"
        f" data plane: {arguments.data_plane}",
        flush=True,
    )
    used, descriptors = devshm.used(), devshm.descriptors()
    begun = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="dora-torture-") as folder:
        planes = PLANES[arguments.data_plane]
        result = asyncio.run(run(dataflow, planes, rng, arguments.seconds, Path(folder)))
    gc.collect()
    result.faults += _leaks(used if private_shm else None, descriptors)
    took = time.monotonic() - begun
    print(
        f"{took:.0f} s: {result.native} native and {result.pure} pure processes;"
        f" {result.kills} kills, {result.stops} stops;"
        f" {result.sent} messages sent, {result.received} received, {result.dropped} dropped;"
        f" {result.verified} verified ({result.payload / 1e9:.2f} GB),"
        f" {result.rechecked} again after being held;"
        f" {len(result.faults)} faults;"
        f" at most {result.peak / 1e6:.0f} MB of /dev/shm in use, "
        + ("none left" if private_shm else "not checked by size, because only root can")
    )
    for fault in result.faults[:20]:
        print(f"FAULT: {fault}", file=sys.stderr)
    if result.faults:
        again = f"--seed {seed} --data-plane {arguments.data_plane}"
        print(f"repeat with: python -m hwtests.torture {again}", file=sys.stderr)
    return 1 if result.faults else 0


def _leaks(used: int | None, descriptors: set[str]) -> list[str]:
    """Return the memory, descriptors and processes that the run has left."""
    left = [f"a segment is left: {path}" for path in devshm.segments()]
    left += [f"a descriptor is left: {each}" for each in sorted(devshm.descriptors() - descriptors)]
    left += [f"process {pid} is left" for pid in _children()]
    if used is not None and devshm.used() != used:
        left.append(f"{devshm.used() - used} bytes are left in /dev/shm")
    return left


def _children() -> list[str]:
    return Path(f"/proc/{os.getpid()}/task/{os.getpid()}/children").read_text().split()


if __name__ == "__main__":
    sys.exit(main())

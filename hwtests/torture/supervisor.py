"""The supervisor of the torture test: it restarts every node that the test has killed."""

from __future__ import annotations

import asyncio
import signal
from typing import TYPE_CHECKING

from hwtests.torture.ledger import Ledger
from hwtests.torture.spec import ProcessSpec

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path
    from random import Random

    from dorad.daemon.broker.broker import Broker
    from dorad.dataflow.model import Dataflow, NodeSpec
    from hwtests.torture.client import Child, ForkServer

END_S = 30.0
"""Seconds within which a node must receive its queued messages and exit."""

PAUSE_S = 0.05
"""Longest time before a killed node is restarted."""


class NodeSupervisor:
    """Restarts killed nodes, each process from one of `fork_servers`; stops all at the end."""

    def __init__(
        self,
        dataflow: Dataflow,
        broker: Broker,
        fork_servers: Sequence[ForkServer],
        folder: Path,
        rng: Random,
    ) -> None:
        self.broker = broker
        self.dataflow = dataflow
        self.kills = {node.id: 0 for node in dataflow.nodes}
        self.stops = 0
        self.faults: list[str] = []
        self.ledgers = {
            node.id: Ledger(folder / f"{node.id}.ledger", node.outputs, [i.id for i in node.inputs])
            for node in dataflow.nodes
        }
        self._fork_servers = fork_servers
        self._folder = folder
        self._rng = rng
        self._children: dict[str, Child] = {}
        self._killed: set[int] = set()
        self._stopped: set[str] = set()
        self._pauses: set[asyncio.Task[None]] = set()
        self._ending = False
        self.failed = asyncio.Event()

    @property
    def running(self) -> list[str]:
        """Nodes whose process is neither stopped by a signal nor being killed."""
        return [
            node
            for node, child in self._children.items()
            if child.pid not in self._killed and node not in self._stopped
        ]

    def fault(self, text: str) -> None:
        """Record a fault, and end the test."""
        self.faults.append(text)
        self.failed.set()

    async def keep_running(self, node: NodeSpec) -> None:
        """Run a node, restart it after each kill, and return when it exits."""
        for incarnation in range(1, 1 << 30):
            spec = ProcessSpec(
                node=node.id,
                incarnation=incarnation,
                seed=self._rng.getrandbits(32),
                config=self.broker.node_config(node.id),
                folder=str(self._folder),
                outputs=node.outputs,
                inputs=tuple(item.id for item in node.inputs),
            )
            child = await self._rng.choice(self._fork_servers).start(spec)
            self._children[node.id] = child
            code = await child.ended
            del self._children[node.id]
            if code == -signal.SIGKILL and child.pid in self._killed:
                self._killed.discard(child.pid)
                self.broker.released(node.id)
                await asyncio.sleep(self._rng.random() * PAUSE_S)
                continue
            self.broker.detach(node.id)
            if code != 0 or not self._ending:
                errors = (self._folder / f"{node.id}.err").read_text(errors="replace")[-3000:]
                self.fault(f"{node.id}/{incarnation} exited with code {code}; stderr:\n{errors}")
            return

    def kill(self, node: str) -> None:
        """SIGKILL a node's process."""
        child = self._children[node]
        self._killed.add(child.pid)
        self.kills[node] += 1
        child.signal(signal.SIGKILL)

    def pause(self, node: str, seconds: float) -> None:
        """SIGSTOP a node's process for some seconds; it may be killed meanwhile."""
        task = asyncio.ensure_future(self._pause(node, seconds))
        self._pauses.add(task)
        task.add_done_callback(self._pauses.discard)

    async def _pause(self, node: str, seconds: float) -> None:
        child = self._children[node]
        self.stops += 1
        self._stopped.add(node)
        child.signal(signal.SIGSTOP)
        await asyncio.wait((child.ended,), timeout=seconds)
        self._stopped.discard(node)
        child.signal(signal.SIGCONT)

    async def settle(self) -> None:
        """Wait until every node runs again, or a fault is found."""
        if self._pauses:
            await asyncio.wait(self._pauses)
        back = await self._until(lambda: len(self.running) == len(self.dataflow.nodes))
        if not back and not self.failed.is_set():
            missing = self.kills.keys() - set(self.running)
            self.fault(f"nodes that did not come back: {', '.join(sorted(missing))}")

    async def end(self) -> None:
        """Stop the nodes, sources first; each must receive every queued message."""
        self._ending = True
        for node in self.dataflow.nodes:
            child = self._children.get(node.id)
            if child is None:
                self.fault(f"{node.id} has no process at the end")
                return
            if not await self._drained(node):
                self.fault(f"{node.id} does not receive its queued messages")
                return
            self.broker.notifications.stop(node.id, "MANUAL")
            done, _ = await asyncio.wait((child.ended,), timeout=END_S)
            if not done:
                self.fault(f"{node.id} does not end after STOP")
                return

    async def _drained(self, node: NodeSpec) -> bool:
        return await self._until(
            lambda: not any(e.queued for e in self.broker.stats.counters() if e.node == node.id)
        )

    async def _until(self, holds: Callable[[], bool]) -> bool:
        """Wait for a condition; return False after a fault or too long a time."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + END_S
        while not holds():
            if loop.time() > deadline or self.failed.is_set():
                return False
            await asyncio.sleep(0.01)
        return True

"""A supervisor for the torture test: it starts nodes again after every end that was inflicted."""

from __future__ import annotations

import asyncio
import signal
from typing import TYPE_CHECKING

from hwtests.torture.ledger import Ledger
from hwtests.torture.part import Part

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path
    from random import Random

    from dorad.daemon.broker.broker import Broker
    from dorad.dataflow.model import Dataflow, NodeSpec
    from hwtests.torture.client import Child, Nursery

END_S = 30.0
"""Seconds within which a node must have received the rest and ended."""

PAUSE_S = 0.05
"""A killed node is away for up to so long."""


class HolderClient:
    """Keeps all nodes running, each process from one of `nurseries`, and ends them well at last."""

    def __init__(
        self,
        dataflow: Dataflow,
        broker: Broker,
        nurseries: Sequence[Nursery],
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
        self._nurseries = nurseries
        self._folder = folder
        self._rng = rng
        self._living: dict[str, Child] = {}
        self._doomed: set[int] = set()
        self._stopped: set[str] = set()
        self._pauses: set[asyncio.Task[None]] = set()
        self._ending = False
        self.failed = asyncio.Event()

    @property
    def awake(self) -> list[str]:
        """Nodes that have a process which is neither stopped nor about to die."""
        return [
            node
            for node, child in self._living.items()
            if child.pid not in self._doomed and node not in self._stopped
        ]

    def fault(self, text: str) -> None:
        """Take note of something that must not be."""
        self.faults.append(text)
        self.failed.set()

    async def tend(self, node: NodeSpec) -> None:
        """Keep a node running until it ends by itself."""
        for incarnation in range(1, 1 << 30):
            part = Part(
                node=node.id,
                incarnation=incarnation,
                seed=self._rng.getrandbits(32),
                config=self.broker.node_config(node.id),
                folder=str(self._folder),
                outputs=node.outputs,
                inputs=tuple(item.id for item in node.inputs),
            )
            child = await self._rng.choice(self._nurseries).start(part)
            self._living[node.id] = child
            code = await child.ended
            del self._living[node.id]
            if code == -signal.SIGKILL and child.pid in self._doomed:
                self._doomed.discard(child.pid)
                self.broker.released(node.id)
                await asyncio.sleep(self._rng.random() * PAUSE_S)
                continue
            self.broker.detach(node.id)
            if code != 0 or not self._ending:
                said = (self._folder / f"{node.id}.err").read_text(errors="replace")[-3000:]
                self.fault(f"{node.id}/{incarnation} ended with code {code}; it said:\n{said}")
            return

    def kill(self, node: str) -> None:
        """Kill a node's process at once, whatever it does."""
        child = self._living[node]
        self._doomed.add(child.pid)
        self.kills[node] += 1
        child.signal(signal.SIGKILL)

    def pause(self, node: str, seconds: float) -> None:
        """Stop a node's process for a while; it may be killed meanwhile."""
        task = asyncio.ensure_future(self._pause(node, seconds))
        self._pauses.add(task)
        task.add_done_callback(self._pauses.discard)

    async def _pause(self, node: str, seconds: float) -> None:
        child = self._living[node]
        self.stops += 1
        self._stopped.add(node)
        child.signal(signal.SIGSTOP)
        await asyncio.wait((child.ended,), timeout=seconds)
        self._stopped.discard(node)
        child.signal(signal.SIGCONT)

    async def calm(self) -> None:
        """Wait until every node runs undisturbed, or something is wrong."""
        if self._pauses:
            await asyncio.wait(self._pauses)
        back = await self._comes(lambda: len(self.awake) == len(self.dataflow.nodes))
        if not back and not self.failed.is_set():
            missing = self.kills.keys() - set(self.awake)
            self.fault(f"nodes that did not come back: {', '.join(sorted(missing))}")

    async def end(self) -> None:
        """Stop the nodes, sources first; each must receive all that was sent to it."""
        self._ending = True
        for node in self.dataflow.nodes:
            child = self._living.get(node.id)
            if child is None:
                self.fault(f"{node.id} has no process at the end")
                return
            if not await self._drained(node):
                self.fault(f"{node.id} does not receive what is queued for it")
                return
            self.broker.notifications.stop(node.id, "MANUAL")
            done, _ = await asyncio.wait((child.ended,), timeout=END_S)
            if not done:
                self.fault(f"{node.id} does not end after STOP")
                return

    async def _drained(self, node: NodeSpec) -> bool:
        return await self._comes(
            lambda: not any(e.queued for e in self.broker.stats.counters() if e.node == node.id)
        )

    async def _comes(self, holds: Callable[[], bool]) -> bool:
        """Wait for a condition; False if something is wrong, or it takes too long."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + END_S
        while not holds():
            if loop.time() > deadline or self.failed.is_set():
                return False
            await asyncio.sleep(0.01)
        return True

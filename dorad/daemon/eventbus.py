"""What happens to dataflows, told to everyone who watches."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from typing import TYPE_CHECKING, Any

import msgspec

from dorad.control.messages import Event

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from dorad.control.messages import Network

BACKLOG = 1000
"""Events queued for one slow watcher; then the oldest are dropped, and the watcher is told."""


class EventBus:
    """Hands each happening to all watchers. Belongs to one event loop."""

    def __init__(self) -> None:
        self._watchers: set[_Watcher] = set()

    def tell(
        self, dataflow: str, what: str, node: str | None = None, text: str = "", **data: Any
    ) -> None:
        """Tell everyone who watches; waits for nobody."""
        event = Event(at=time.time(), dataflow=dataflow, what=what, node=node, text=text, data=data)
        for watcher in self._watchers:
            watcher.put(event)

    def network_changed(self, changes: list[str], now: Network) -> None:
        """Tell of the network, which is of no dataflow."""
        self.tell("", "network-changed", text="; ".join(changes), **msgspec.to_builtins(now))

    async def watch(self, dataflow: str | None) -> AsyncIterator[Event]:
        """Yield what happens from now on to one dataflow, or to all of them."""
        watcher = _Watcher(dataflow)
        self._watchers.add(watcher)
        try:
            while True:
                yield await watcher.get()
        finally:
            self._watchers.discard(watcher)


class _Watcher:
    def __init__(self, dataflow: str | None) -> None:
        self._dataflow = dataflow
        self._waiting: deque[Event] = deque()
        self._left_out = 0
        self._some = asyncio.Event()

    def put(self, event: Event) -> None:
        if self._dataflow not in (None, event.dataflow):
            return
        if len(self._waiting) == BACKLOG:
            self._waiting.popleft()
            self._left_out += 1
        self._waiting.append(event)
        self._some.set()

    async def get(self) -> Event:
        while not self._waiting:
            self._some.clear()
            await self._some.wait()
        if self._left_out:
            count, self._left_out = self._left_out, 0
            first = self._waiting[0]
            return Event(
                at=first.at,
                dataflow=first.dataflow,
                what="left-out",
                text=f"{count} happenings were left out: the watcher was too slow",
                data={"count": count},
            )
        return self._waiting.popleft()

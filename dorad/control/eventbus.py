"""Events of dataflows for all clients that subscribe to them."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import AsyncGenerator
from typing import Any

import msgspec

from dorad.control.messages import Event, Network

_log = logging.getLogger(__name__)

BACKLOG = 1000
"""Maximum number of events queued for one slow subscriber. Then the oldest are dropped, and the
subscriber gets an event with their number."""


class EventBus:
    """Passes each event to all subscribers. Belongs to one event loop."""

    def __init__(self) -> None:
        self._subscribers: set[_Subscriber] = set()

    def publish(
        self, dataflow: str, what: str, node: str | None = None, text: str = "", **data: Any
    ) -> None:
        """Queue an event for every subscriber, without waiting."""
        event = Event(at=time.time(), dataflow=dataflow, what=what, node=node, text=text, data=data)
        for subscriber in self._subscribers:
            subscriber.put(event)
        _log.debug("event %s of dataflow %s, node %s: %r", what, dataflow or "-", node, text)

    def network_changed(self, changes: list[str], now: Network) -> None:
        """Publish a change of the network, which belongs to no dataflow."""
        self.publish("", "network-changed", text="; ".join(changes), **msgspec.to_builtins(now))

    async def subscribe(self, dataflow: str | None) -> AsyncGenerator[Event, None]:
        """Yield the events of one dataflow, or of all, from now on."""
        subscriber = _Subscriber(dataflow)
        self._subscribers.add(subscriber)
        try:
            while True:
                yield await subscriber.get()
        finally:
            self._subscribers.discard(subscriber)


class _Subscriber:
    def __init__(self, dataflow: str | None) -> None:
        self._dataflow = dataflow
        self._queue: deque[Event] = deque()
        self._dropped = 0
        self._filled = asyncio.Event()

    def put(self, event: Event) -> None:
        if self._dataflow not in (None, event.dataflow):
            return
        if len(self._queue) == BACKLOG:
            self._queue.popleft()
            self._dropped += 1
        self._queue.append(event)
        self._filled.set()

    async def get(self) -> Event:
        while not self._queue:
            self._filled.clear()
            await self._filled.wait()
        if self._dropped:
            count, self._dropped = self._dropped, 0
            first = self._queue[0]
            return Event(
                at=first.at,
                dataflow=first.dataflow,
                what="left-out",
                text=f"{count} events were dropped: the subscriber was too slow",
                data={"count": count},
            )
        return self._queue.popleft()

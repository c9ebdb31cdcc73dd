"""Receive the messages that viewers look at: topics, only while they are wanted."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections import Counter, deque
from contextlib import aclosing
from datetime import datetime
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, Protocol, TypeVar

from dorad.control.arrays import to_message
from dorad.control.errors import ControlError

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Collection

    import pyarrow as pa

    from dorad.control.messages import TopicHeader
    from dorad.logrecord import LogRecord

T = TypeVar("T")

MAX_WAITING = 32 << 20
"""Bytes that wait for one viewer; the newest message always may."""

SETTLE_S = 0.2
"""How long changes of what is wanted are collected: a viewer subscribes to one topic at a time."""

OVERLAP_S = 3.0
"""How long a subscription outlives the start of the one that replaces it."""

RETRY_S = 2.0
"""Pause after a subscription that was refused."""

_log = logging.getLogger(__name__)


class Source(Protocol):
    """A running dataflow: under a daemon, on a coordinator, or of `dora run`."""

    async def topics(self) -> list[str]:
        """Return its topics, `node/output`."""

    def messages(
        self, topics: Collection[str], rate: float | None
    ) -> AsyncGenerator[tuple[TopicHeader, bytes | memoryview], None]:
        """Yield messages with their data as Arrow streams, at most `rate` a second of a topic."""

    def lines(self) -> AsyncGenerator[list[LogRecord], None]:
        """Yield log lines."""

    def changes(self) -> AsyncGenerator[None, None]:
        """Yield when its topics may have changed; end when it has ended."""


class Message(NamedTuple):
    """One message of a topic."""

    topic: str
    stamp: int
    """When it was sent, in ns since 1970."""
    array: pa.Array
    metadata: dict[str, Any]


class Backlog(Generic[T]):
    """Items that wait for one viewer. If they take too many bytes, the oldest are dropped."""

    def __init__(self, max_bytes: int = MAX_WAITING) -> None:
        self.dropped: Counter[str] = Counter()
        """Dropped items by topic."""
        self._max_bytes = max_bytes
        self._items: deque[tuple[str, int, T]] = deque()
        self._bytes = 0
        self._came = asyncio.Event()

    def __len__(self) -> int:
        return len(self._items)

    def put(self, topic: str, size: int, item: T) -> None:
        """Add an item of `size` bytes, and drop the oldest ones that are too many."""
        self._items.append((topic, size, item))
        self._bytes += size
        while self._bytes > self._max_bytes and len(self._items) > 1:
            old, old_size, _ = self._items.popleft()
            self._bytes -= old_size
            self.dropped[old] += 1
        self._came.set()

    async def get(self) -> T:
        """Wait for the oldest item, and remove it."""
        while not self._items:
            self._came.clear()
            await self._came.wait()
        _, size, item = self._items.popleft()
        self._bytes -= size
        return item


class Feed:
    """Receives the wanted topics with one subscription, and replaces it when others are wanted.

    Nothing is missed meanwhile: the old subscription ends when the new one has begun to deliver.
    """

    def __init__(
        self, source: Source, on_message: Callable[[Message], None], rate: float | None = None
    ) -> None:
        self._source = source
        self._on_message = on_message
        self._rate = rate
        self._wanted: frozenset[str] = frozenset()
        self._changed = asyncio.Event()
        self._last: dict[str, int] = {}
        """The stamp of the newest message of each topic."""
        self.dropped: Counter[str] = Counter()
        """Messages that were displaced before they came here, by topic."""
        self._reported = ""

    def want(self, topics: Collection[str]) -> None:
        """Receive these topics from now on, and no others."""
        wanted = frozenset(topics)
        if self._wanted != wanted:
            self._wanted = wanted
            self._changed.set()

    async def run(self) -> None:
        """Receive until cancelled."""
        old: asyncio.Task[None] | None = None
        async with asyncio.TaskGroup() as tasks:
            while True:
                await self._changed.wait()
                await asyncio.sleep(SETTLE_S)
                self._changed.clear()
                _log.debug("viewers want %s", sorted(self._wanted))
                new = None
                if self._wanted:
                    began = asyncio.Event()
                    new = tasks.create_task(self._receive(self._wanted, began))
                    if old is not None:
                        await _set_within(began, OVERLAP_S)
                if old is not None:
                    old.cancel()
                old = new

    async def _receive(self, topics: frozenset[str], began: asyncio.Event) -> None:
        counted: Counter[str] = Counter()
        while True:
            try:
                async with aclosing(self._source.messages(topics, self._rate)) as messages:
                    async for header, data in messages:
                        began.set()
                        self.dropped[header.topic] += header.dropped - counted[header.topic]
                        counted[header.topic] = header.dropped
                        self._take(header, data)
                return
            except ControlError as error:
                # Such as a topic that has just been removed, or too many subscriptions.
                if str(error) != self._reported:
                    self._reported = str(error)
                    _log.warning("topics cannot be received: %s", error)
            counted.clear()
            await asyncio.sleep(RETRY_S)

    def _take(self, header: TopicHeader, data: bytes | memoryview) -> None:
        metadata = dict(header.metadata)
        stamp = stamp_of(metadata.pop("timestamp", None))
        if stamp <= self._last.get(header.topic, 0):
            return  # the other subscription has delivered it
        self._last[header.topic] = stamp
        try:
            _, array = to_message((header, memoryview(data)))
        except ControlError as error:
            _log.warning("%s", error)
            return
        if array is not None:
            self._on_message(Message(header.topic, stamp, array, metadata))


def stamp_of(sent: object) -> int:
    """Return the time of a message in ns since 1970, now if it has none."""
    if isinstance(sent, str):
        moment = datetime.fromisoformat(sent)
        return int(moment.timestamp()) * 10**9 + moment.microsecond * 1000
    return time.time_ns()


async def _set_within(event: asyncio.Event, seconds: float) -> None:
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await event.wait()

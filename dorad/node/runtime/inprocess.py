"""An input that another operator of the same process feeds: arrays are passed by reference.

Its ring in the mailbox has no entries, only counters. Both ends are here and update them, so that
the daemon measures the edge like any other.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, NamedTuple

from dorad.node import metadata as metadata_codec
from dorad.node.correlation import flags_of, session_of
from dorad.shm import hops, latencies, stepping
from dorad.shm.layout import (
    BEYOND_NS,
    CORRELATED,
    FLUSH,
    RING_BYTES,
    RING_HEAD,
    RING_LAST,
    RING_LATENCY_DIFF,
    RING_LATENCY_SUM,
    RING_RECEIVED,
    RING_REFUSED,
    RING_TAIL,
    RingPlan,
    add_to,
    read_count,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from dorad.node.clock import Clock
    from dorad.node.events import Event

_fromtimestamp = datetime.fromtimestamp
_time_ns = time.time_ns

SPACE_POLL_S = 0.1
"""How often a sender that waits for room checks whether it may still wait."""


class Message(NamedTuple):
    """A message between operators. `flags` are those of a ring entry."""

    stamp: int
    array: Any
    meta: bytes
    size: int
    flags: int = 0

    @classmethod
    def of(cls, stamp: int, array: Any, size: int, metadata: dict[str, Any] | None) -> Message:
        """Return a message. Raises what `metadata.encode` does."""
        if not metadata:
            return cls(stamp, array, b"", size)
        meta = metadata_codec.encode(metadata)
        return cls(stamp, array, meta, size, flags_of(metadata))

    @property
    def session(self) -> Any:
        """The `session_id`, None if there is none."""
        return session_of(self.meta) if self.meta else None


class InProcessInput:
    """The queue of one such input. Any thread may send; the thread of its operator receives."""

    __slots__ = (
        "_base",
        "_clock",
        "_closed",
        "_latency",
        "_limit",
        "_queue",
        "_queue_size",
        "_room",
        "_wake",
        "_words",
        "id",
        "inspect",
        "removed",
        "ring",
    )

    def __init__(
        self,
        input_id: str,
        words: memoryview,
        ring: RingPlan,
        clock: Clock,
        wake: Callable[[], None],
    ) -> None:
        """Start with an empty queue; `wake` is called after each message.

        Messages in the queue of an earlier process are lost with it, and count as dropped.
        """
        self.id = input_id
        self.removed = False
        self.inspect: Callable[[Event], None] | None = None
        """Called with each event before it is returned."""
        self._words = words
        self._base = self.ring = ring.base
        self._queue_size = ring.queue_size
        self._clock = clock
        self._wake = wake
        self._room = threading.Condition(threading.Lock())
        self._queue: deque[tuple[int, Message]] = deque()
        self._closed = False
        self._limit: int | None = None
        self._latency: int | None = None
        words[ring.base + RING_TAIL] = words[ring.base + RING_HEAD]

    def put(self, message: Message) -> None:
        """Append a message; if the queue is full, drop the oldest without flags, or the oldest.

        Raises:
            RuntimeError: it is full, and the node is stepped.
        """
        with self._room:
            if self._closed:
                return
            self._refuse_drop()
            self._append(message)
            queue = self._queue
            if len(queue) > self._queue_size:
                self._drop(next((at for at, (_, old) in enumerate(queue) if not old.flags), 0))
        self._wake()

    def put_blocking(self, message: Message, *, may_wait: Callable[[], bool]) -> None:
        """Append a message as soon as there is room; no message is dropped.

        If `may_wait` returns False meanwhile, the message is discarded and counts as refused.

        Raises:
            RuntimeError: it is full, and the node is stepped.
        """
        with self._room:
            if not self._closed:
                self._refuse_drop()
            while len(self._queue) >= self._queue_size and not self._closed:
                if not may_wait():
                    add_to(self._words, self._base + RING_REFUSED, 1)
                    return
                self._room.wait(SPACE_POLL_S)
            if self._closed:
                return
            self._append(message)
        self._wake()

    def _refuse_drop(self) -> None:
        """Raise RuntimeError if a node that is stepped would drop a message, or wait for itself."""
        if stepping.is_stepped(self._words) and len(self._queue) >= self._queue_size:
            raise RuntimeError(
                f"the queue of input `{self.id}` of another operator is full: while stepping, it "
                f"holds {self._queue_size} messages, or its `queue_size` if that is larger"
            )

    def _append(self, message: Message) -> None:
        words, base = self._words, self._base
        if message.flags & FLUSH:
            self._void_before(message)
        head = read_count(words, base + RING_HEAD)
        self._queue.append((head, message))
        add_to(words, base + RING_BYTES, message.size)
        words[base + RING_LAST] = message.stamp
        words[base + RING_HEAD] = head + 1

    def _void_before(self, message: Message) -> None:
        session = message.session
        for at in reversed(range(len(self._queue))):
            old = self._queue[at][1]
            if not old.flags & CORRELATED and (session is None or old.session == session):
                self._drop(at)
        self._room.notify_all()

    def _drop(self, at: int) -> None:
        if hops.dropped is not None:
            hops.dropped(self._words, self._base, self._queue[at][0], 1)
        del self._queue[at]
        add_to(self._words, self._base + RING_TAIL, 1)

    def ready(self) -> bool:
        """Return True if an event is queued."""
        queue = self._queue
        try:
            return bool(queue) and (self._limit is None or queue[0][0] < self._limit)
        except IndexError:  # a sender just dropped the last message; it appends another at once
            return True

    holds = ready
    moved = ready

    def next_stamp(self) -> int:
        """Return the timestamp of the oldest message, NO_STAMP without one."""
        with self._room:
            return self._queue[0][1].stamp if self.ready() else stepping.NO_STAMP

    def take(self) -> Event | None:
        """Return the next event, or None."""
        with self._room:
            if not self.ready():
                return None
            _, (stamp, array, meta, *_) = self._queue.popleft()
            self._count(stamp)
            self._room.notify_all()
        self._clock.saw(stamp)
        metadata = metadata_codec.decode(meta) if meta else {}
        if "timestamp" not in metadata:
            metadata["timestamp"] = _fromtimestamp(stamp / 1e9, UTC)
        event: Event = {
            "kind": "dora",
            "type": "INPUT",
            "id": self.id,
            "value": array,
            "metadata": metadata,
        }
        if self.inspect is not None:
            self.inspect(event)
        return event

    def _count(self, stamp: int) -> None:
        words, base = self._words, self._base
        add_to(words, base + RING_TAIL, 1)
        add_to(words, base + RING_RECEIVED, 1)
        now = stepping.time_ns(words)
        if hops.received is not None:
            hops.received(words, base, stamp, now, len(self._queue))
        latency = now - stamp
        if not 0 <= latency < BEYOND_NS:
            latency = 0
        latencies.count(words, base, latency)
        add_to(words, base + RING_LATENCY_SUM, latency)
        if self._latency is not None:
            add_to(words, base + RING_LATENCY_DIFF, abs(latency - self._latency))
        self._latency = latency

    def stop(self) -> None:
        """Return only what is queued now."""
        with self._room:
            self._limit = self._words[self._base + RING_HEAD]

    def leave(self) -> None:
        """Return what is queued now; then the ring no longer feeds the input."""
        self.removed = True
        self.stop()

    def close(self) -> None:
        """Discard the queue and all later messages: the operator has ended."""
        with self._room:
            self._closed = True
            self._queue.clear()
            self._words[self._base + RING_TAIL] = self._words[self._base + RING_HEAD]
            self._room.notify_all()

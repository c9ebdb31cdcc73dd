"""The two ends of a latched edge: its newest message is kept after it was taken.

The newest entry stays in the ring until others displace it. The producer keeps the sample that the
entry names; the daemon keeps the sample's segment if the producer dies. So a new consumer finds
the message that the last one has taken.

The counters ignore this: a message that is delivered again was received once.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from dorad.shm.fence import STRONG_ORDER, acquire
from dorad.shm.inlet import UnreadableError
from dorad.shm.latencies import uncount
from dorad.shm.layout import ENTRY, ENTRY_SIZE, RING_LAST, RING_LATCHED, RingPlan
from dorad.shm.outlet import Outlet
from dorad.shm.picking import PickingInlet

if TYPE_CHECKING:
    from dorad.shm.borrow import Taken
    from dorad.shm.mapping import Mapping
    from dorad.shm.outlet import Peer

_time_ns = time.time_ns


class LatchedInlet(PickingInlet):
    """A consumer's end that begins with the newest message, if an earlier consumer has taken it."""

    __slots__ = ("_may_be_late", "_pending", "_since_ns")

    def __init__(
        self,
        box: Mapping,
        ring: RingPlan,
        segments: dict[int, Mapping],
        space_bell: int | None,
    ) -> None:
        """See `Inlet`."""
        super().__init__(box, ring, segments, space_bell)
        sent = bool(box.words[ring.base + RING_LAST])
        self._pending = sent
        self._may_be_late = not sent
        self.plain = False
        self._since_ns = _time_ns()

    def ready(self) -> bool:
        """Return True if `take` would return a message."""
        return super().ready() or (self._pending and self._words[self.head_at] == self.tail)

    def next_stamp(self) -> int:
        """See `Inlet`."""
        head = self._words[self.head_at]
        again = self._pending and head == self.tail
        return self._stamp_at(self._entries, head, head - 1 if again else self.tail)

    def repeat(self) -> None:
        """Take the newest message once more, for a subscriber that has come late."""
        self._pending = bool(self._words[self.base + RING_LAST])

    def discard(self) -> None:
        """Drop all queued messages but the newest; they count as dropped."""
        self.keep_newest()

    def take(self) -> Taken | None:
        """Take the newest message again if no other is queued; then the next one."""
        if self._pending:
            self._pending = False
            taken = self._recall()
            if taken is not None:
                return taken
        if self._may_be_late:
            return self._take_first()
        return super().take()

    def _recall(self) -> Taken | None:
        words = self._words
        head = words[self.head_at]
        if head != self.tail:
            return None
        if not STRONG_ORDER:
            acquire()
        try:
            taken = self._read(self._entries + (head - 1 & self._mask) * ENTRY_SIZE)
        except UnreadableError:
            if words[self.head_at] != head:
                return None
            raise
        # If a newer message came meanwhile, take that one: this one's sample may be reused.
        return taken if words[self.head_at] == head else None

    def _take_first(self) -> Taken | None:
        """Take a message that may have been sent long before this edge existed.

        If so, its age is not a latency.
        """
        latency_sum = self._latency_sum
        taken = super().take()
        if taken is not None:
            self._may_be_late = False
            if taken[0] < self._since_ns:
                latency, self._latency = self._latency or 0, None
                self._latency_sum = self._latency_words[0] = latency_sum
                uncount(self._words, self.base, latency)
        return taken


class LatchedOutlet(Outlet):
    """A producer's end that keeps its newest message reachable, even after it was taken.

    It does so even if another producer has taken over the edge, or the consumer is away: the next
    consumer finds the message. The daemon's word LATCHED ends that when the edge is removed.
    """

    __slots__ = ("_latched_at",)

    def __init__(self, peer: Peer, ring: RingPlan, *, blocking: bool) -> None:
        """See `Outlet`."""
        super().__init__(peer, ring, blocking=blocking)
        self.plain = False
        self._latched_at = ring.base + RING_LATCHED

    def done_with(self, index: int, key: int) -> bool:
        """See `Outlet`."""
        words = self._words
        if words[self._latched_at] and words[self._head_at] - index <= 1:
            return False
        return super().done_with(index, key)


def samples_of(entry: bytes) -> list[tuple[int, int]]:
    """Return the places of an entry's payload and metadata, as (segment, offset)."""
    _, _, _, _, offset, meta_offset, segment, meta_segment, *_ = ENTRY.unpack_from(entry)
    return [place for place in ((segment, offset), (meta_segment, meta_offset)) if place[0]]

"""The two ends of a latched edge: its newest message is kept after it was taken.

The newest entry stays in the ring anyway, until others displace it. The producer holds on to the
sample that it names, and the daemon to the sample's segment if the producer dies. So a consumer
that starts anew finds there what the last one has taken.

Nothing of this is counted: a message that is given out once more was received once.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from dorad.shm.fence import STRONG_ORDER, acquire
from dorad.shm.layout import ENTRY, ENTRY_SIZE, RING_LAST, RING_LATCHED, RingPlan
from dorad.shm.picking import PickingInlet
from dorad.shm.ring import Outlet, Peer, UnreadableError

if TYPE_CHECKING:
    from collections.abc import Callable

    from dorad.shm.borrow import Taken
    from dorad.shm.mapping import Mapping
    from dorad.shm.ring import Peer

_time_ns = time.time_ns


class LatchedInlet(PickingInlet):
    """A consumer's end that begins with the newest message, if an earlier consumer has taken it."""

    __slots__ = ("_may_be_late", "_pending", "_since_ns")

    def __init__(
        self,
        box: Mapping,
        ring: RingPlan,
        segments: Callable[[int], Mapping | None],
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
        """Tell whether `take` would return a message."""
        return super().ready() or (self._pending and self._words[self.head_at] == self.tail)

    def discard(self) -> None:
        """Drop, and count, all that is queued but the newest."""
        self.keep_newest()

    def take(self) -> Taken | None:
        """Take the newest message once more, unless something waits; then the next one."""
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
        # Something newer has come: that one is taken, and the sample of this one may be reused.
        return taken if words[self.head_at] == head else None

    def _take_first(self) -> Taken | None:
        """Take a message that may have been sent long before this edge was there.

        How long that was says nothing of how long messages are on their way.
        """
        latency_sum = self._latency_sum
        taken = super().take()
        if taken is not None:
            self._may_be_late = False
            if taken[0] < self._since_ns:
                self._latency = None
                self._latency_sum = self._latency_words[0] = latency_sum
        return taken


class LatchedOutlet(Outlet):
    """A producer's end whose newest message stays within reach, also after it was taken.

    Even if somebody else has taken over the edge, or its consumer is away: whoever comes next
    finds the message. The daemon ends that with a word of its own when the edge is taken away.
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
    """Return where the message that an entry stands for lies, as (segment, offset)."""
    _, _, _, _, offset, meta_offset, segment, meta_segment, *_ = ENTRY.unpack_from(entry)
    return [place for place in ((segment, offset), (meta_segment, meta_offset)) if place[0]]

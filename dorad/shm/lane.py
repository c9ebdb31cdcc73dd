"""The lane of an edge: a second ring for messages that newer ordinary ones must not displace.

A queue of `queue_size` messages with `drop_oldest` drops its oldest ordinary message first.
Messages of an exchange (a request, a goal, their answers) are dropped only for newer ones of their
kind. As each kind has its own ring, four words determine what the queue holds:

    kept     = min(LANE_HEAD - LANE_TAIL, queue_size)       the newest of the lane
    ordinary = min(HEAD - TAIL, queue_size - kept)          the newest of the ring.

This holds for every order of arrival and at every moment that the consumer looks. So each ring
keeps the protocol of `outlet.py` and `inlet.py` unchanged, and neither end waits. Each entry of the
lane records how many ordinary messages were pushed before it, which restores the order of sending.

A message with `flush` goes into the lane, too. It voids the ordinary messages before it that have
its `session_id` (all of them if it has none). The consumer skips them, and they count as dropped.
Until it looks, they occupy their places in the queue.
"""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING, Any, NamedTuple

from dorad.shm import hops
from dorad.shm.fence import STRONG_ORDER, acquire, release
from dorad.shm.inlet import Inlet, UnreadableError
from dorad.shm.layout import (
    CORRELATED,
    ENTRY,
    ENTRY_FLAGS,
    ENTRY_SIZE,
    FLUSH,
    INLINE,
    MAX_LAPS,
    RING_FLUSHED,
    RING_LANE_HEAD,
    RING_LANE_TAIL,
    WORD,
    RingPlan,
    read_count,
)
from dorad.shm.outlet import Outlet

if TYPE_CHECKING:
    from collections.abc import Callable

    from dorad.shm.borrow import Taken
    from dorad.shm.mapping import Mapping

_unpack = ENTRY.unpack_from


class Lane(Outlet):
    """The producer's end of a lane. It shares all but its entries, head and tail with the ring."""

    __slots__ = ("_flushed_at", "_marks", "_ring")

    def __init__(self, ring: Outlet, plan: RingPlan) -> None:
        """Continue the lane of `ring` where its last producer stopped."""
        super().__init__(ring.peer, plan, blocking=ring.blocking)
        base = self.base
        self.plain = False
        # Weak: no cycle, so both are freed with the last reference, not at a later collection.
        self._ring = weakref.ref(ring)
        self._marks = plan.lane // WORD
        self._flushed_at = base + RING_FLUSHED
        self._entries = plan.lane + plan.capacity * WORD
        self._head_at = base + RING_LANE_HEAD
        self._tail_at = base + RING_LANE_TAIL
        self.head = read_count(self._words, self._head_at)

    def push(self, entry: bytes, size: int, stamp: int) -> int:
        """Append an entry that follows all that the ring holds now; return its index."""
        head = self.head
        slot = head & self._mask
        at = self._entries + slot * ENTRY_SIZE
        self._memory[at : at + len(entry)] = entry
        words = self._words
        ring = self._ring()
        assert ring is not None, "the sender holds the ring"
        words[self._marks + slot] = ring.head
        ring.count(size, stamp)
        if entry[ENTRY_FLAGS] & FLUSH:
            words[self._flushed_at] = head + 1
        if not STRONG_ORDER:
            release()
        self.head = words[self._head_at] = head + 1
        return head


def add_lane(ring: Outlet, plan: RingPlan) -> Outlet:
    """Add the lane of its plan, if any, to a producer's end; return that end."""
    if plan.lane:
        ring.lane = Lane(ring, plan)
    return ring


class _Flush(NamedTuple):
    """A message of the lane with `flush`: its index, and how many ordinary messages precede it."""

    at: int
    before: int
    session: Any


class LanedInlet(Inlet):
    """The consumer's end of an edge with a lane.

    `session_of` returns the `session_id` of encoded metadata. `on_lost` is called with the number
    of messages of an exchange that had to be dropped.
    """

    __slots__ = (
        "_flushed_at",
        "_flushes",
        "_lane_entries",
        "_lane_limit",
        "_lane_tail_at",
        "_marks",
        "_scanned",
        "on_lost",
        "session_of",
    )

    def __init__(
        self,
        box: Mapping,
        ring: RingPlan,
        segments: dict[int, Mapping],
        space_bell: int | None,
    ) -> None:
        """Continue the edge where its last consumer stopped; see `Inlet`."""
        super().__init__(box, ring, segments, space_bell)
        self._marks = ring.lane // WORD
        self._lane_entries = ring.lane + ring.capacity * WORD
        self._lane_tail_at = ring.base + RING_LANE_TAIL
        self._flushed_at = ring.base + RING_FLUSHED
        self._lane_limit: int | None = None
        self._flushes: list[_Flush] = []
        self._scanned = 0
        self.session_of: Callable[[bytes], Any] = lambda _: None
        self.on_lost: Callable[[int], None] = lambda _: None

    def ready(self) -> bool:
        """Return True if `take` would return a message; skip void ones."""
        words = self._words
        head = words[self.head_at]
        if not STRONG_ORDER:
            acquire()
        if words[self.lane_head_at] != self.lane_tail:
            try:
                return self._lane_next() is not None
            except UnreadableError:
                self.count_unreadable()
                return False
        return head != self.tail and (self.limit is None or self.tail < self.limit)

    def next_stamp(self) -> int:
        """See `Inlet`. Both are in the order of sending, which the timestamps follow."""
        lane_head = self._words[self.lane_head_at]
        lane = self._stamp_at(self._lane_entries, lane_head, self.lane_tail)
        return min(lane, super().next_stamp())

    def freeze(self) -> None:
        """Take no more than what is queued now."""
        super().freeze()
        self._lane_limit = self._words[self.lane_head_at]

    def discard(self) -> None:
        """Drop all queued messages; they count as dropped."""
        words = self._words
        self.lane_tail = words[self._lane_tail_at] = words[self.lane_head_at]
        super().discard()

    def _skip_lane_to(self, tail: int) -> None:
        """See `_skip_to`."""
        before = self.lane_tail
        self.lane_tail = self._words[self._lane_tail_at] = tail
        if tail > before and hops.dropped is not None:
            hops.dropped(self._words, self.base, before, tail - before)
        if tail < before:
            raise UnreadableError(f"the count of its messages went back from {before} to {tail}")

    def _lane_next(self) -> bool | None:
        """Return True if the next message is in the lane, False if in the ring, None without one.

        The producer may push meanwhile. None also if it overtakes this end MAX_LAPS times.
        """
        words = self._words
        for _ in range(MAX_LAPS + 2 * self.queue_size):
            lane_head = words[self.lane_head_at]
            if not STRONG_ORDER:
                acquire()
            # Read after the lane's head: what was sent before the lane's newest is in the ring.
            head = words[self.head_at]
            if not STRONG_ORDER:
                acquire()
            kept = lane_head - self.lane_tail
            if kept < 0:
                self._skip_lane_to(lane_head)
            if kept > self.queue_size:
                self._skip_lane_to(lane_head - self.queue_size)
                self.on_lost(kept - self.queue_size)
                continue
            if head < self.tail:
                self._skip_to(head)
            if head - self.tail > self.queue_size - kept:
                self._skip_to(head - self.queue_size + kept)
                self._room()
            before = words[self._marks + (self.lane_tail & self._mask)]
            if words[self.lane_head_at] - self.lane_tail > self.queue_size:
                continue
            lane = self._lane_limit is None or self.lane_tail < self._lane_limit
            ring = head != self.tail and (self.limit is None or self.tail < self.limit)
            if ring and lane:
                lane = before <= self.tail
            elif not (ring or lane):
                return None
            if words[self._flushed_at] > self.lane_tail and self._drop_void(lane_head, lane):
                continue
            return lane
        return None

    def _room(self) -> None:
        if self._space_bell is not None:
            self._make_room_known()

    def _take_from_lane(self) -> Taken | None:
        """Take the oldest message of the lane; return None if newer ones have overwritten it."""
        words = self._words
        tail = self.lane_tail
        try:
            taken = self._read(self._lane_entries + (tail & self._mask) * ENTRY_SIZE)
        except UnreadableError:
            if words[self.lane_head_at] - tail > self.queue_size:
                return None
            self.lane_tail = words[self._lane_tail_at] = tail + 1
            self._count_received()
            raise
        if words[self.lane_head_at] - tail > self.queue_size:
            return None
        self.lane_tail = words[self._lane_tail_at] = tail + 1
        return taken

    def _drop_void(self, lane_head: int, lane: bool) -> bool:
        """Skip the next message if a later flush voids it; return True to look at both again."""
        if not self._scan(lane_head):
            return True
        words = self._words
        if lane:
            index = self.lane_tail
            at = self._lane_entries + (index & self._mask) * ENTRY_SIZE
            if self._memory[at + ENTRY_FLAGS] & CORRELATED:
                return False
            later = [flush for flush in self._flushes if flush.at > index]
        else:
            index = self.tail
            at = self._entries + (index & self._mask) * ENTRY_SIZE
            later = [flush for flush in self._flushes if flush.before > index]
        if not later:
            return False
        session = self._session(at)
        if words[self.lane_head_at if lane else self.head_at] - index > self.queue_size:
            return True
        if not any(flush.session is None or flush.session == session for flush in later):
            return False
        if lane:
            self._skip_lane_to(self.lane_tail + 1)
        else:
            self._skip_to(self.tail + 1)
        self._room()
        return True

    def _scan(self, lane_head: int) -> bool:
        """Record the flushes of the lane up to `lane_head`; return False if it was overtaken."""
        tail = self.lane_tail
        self._flushes = [flush for flush in self._flushes if flush.at >= tail]
        ready = []
        for index in range(max(self._scanned, tail), lane_head):
            slot = index & self._mask
            at = self._lane_entries + slot * ENTRY_SIZE
            if self._memory[at + ENTRY_FLAGS] & FLUSH:
                ready.append(_Flush(index, self._words[self._marks + slot], self._session(at)))
        if self._words[self.lane_head_at] - tail > self.queue_size:
            return False
        self._flushes += ready
        self._scanned = max(self._scanned, lane_head)
        return True

    def _session(self, at: int) -> Any:
        """Return the session of the entry at a byte; the caller checks for overwriting."""
        _, _, _, _, _, offset, _, segment, size, _, _, _ = _unpack(self._memory, at)
        memory, start = self._memory, at + ENTRY.size
        try:
            if segment:
                memory, start = self._mapping(segment, offset, size).memory, offset
            elif size > INLINE:
                return None
            return self.session_of(memory[start : start + size]) if size else None
        except ValueError:
            # The entry was overwritten meanwhile, which the caller detects; or it is unreadable,
            # and so has no session.
            return None

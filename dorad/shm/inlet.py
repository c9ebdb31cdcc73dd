"""The consumer's end of an edge.

All senders of a node can write to its mailbox. So a consumer does not trust what it reads there:
it keeps its own counts, and checks each field of an entry against the memory it points into before
using it. A message that fails a check is taken, counted and raises `UnreadableError`; the consumer
continues with the next one.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from dorad.shm import doorbell, hops, stepping
from dorad.shm.borrow import Borrow
from dorad.shm.counters import WORD_MASK
from dorad.shm.fence import STRONG_ORDER, acquire, fence, release
from dorad.shm.layout import (
    ALIGNMENT,
    BEYOND_NS,
    COUNT_LIMIT,
    ENTRY,
    ENTRY_SIZE,
    HAZARDS,
    INLINE,
    MAX_LAPS,
    RING_BUCKETS,
    RING_HAZARDS,
    RING_HEAD,
    RING_LANE_HEAD,
    RING_LANE_TAIL,
    RING_LATENCY_DIFF,
    RING_LATENCY_SUM,
    RING_RECEIVED,
    RING_TAIL,
    RING_UNREADABLE,
    RING_WAITING,
    RingPlan,
    read_count,
)
from dorad.shm.stepping import NO_STAMP
from dorad.shm.steps import step, twin

if TYPE_CHECKING:
    from dorad.shm.borrow import Copied, Taken
    from dorad.shm.mapping import Mapping


_unpack = ENTRY.unpack_from
_time_ns = time.time_ns
_hop_received = hops.received


class UnreadableError(ValueError):
    """A message's entry points where it must not, or its ring was overwritten."""


@twin
class InletState:
    """The fields of a consumer's end; it is `plain` if `take` is that of `Inlet`."""

    __slots__ = (
        "_entries",
        "_foreign",
        "_free",
        "_latency",
        "_latency_diff",
        "_latency_sum",
        "_latency_words",
        "_mask",
        "_memory",
        "_received",
        "_received_at",
        "_segments",
        "_space_bell",
        "_tail_at",
        "_unreadable",
        "_unreadable_at",
        "_waiting_at",
        "_words",
        "base",
        "head_at",
        "lane_head_at",
        "lane_tail",
        "limit",
        "plain",
        "queue_size",
        "tail",
    )


class Inlet(InletState):
    """The consumer's end of an edge, without a lane.

    `head_at` and `lane_head_at` are the words that change when a message is pushed.
    """

    __slots__ = ()

    def __init__(
        self,
        box: Mapping,
        ring: RingPlan,
        segments: dict[int, Mapping],
        space_bell: int | None,
    ) -> None:
        """Continue the edge where its last consumer stopped.

        `segments` are the mapped segments by number. The dictionary may wait for one that is looked
        up before it is mapped.
        `space_bell` wakes a producer that waits for room; None if the producer never waits.
        """
        base = ring.base
        self._words = box.words
        self.base = base
        self.plain = True
        self._memory = box.memory
        self._segments = segments
        self._space_bell = space_bell
        self._entries = ring.entries
        self._mask = ring.capacity - 1
        self.head_at = base + RING_HEAD
        self.lane_head_at = base + RING_LANE_HEAD
        self.lane_tail = read_count(box.words, base + RING_LANE_TAIL)
        self._tail_at = base + RING_TAIL
        self._received_at = base + RING_RECEIVED
        self._waiting_at = base + RING_WAITING
        # The last one is used first, so the lowest: a producer looks through the slots from there.
        hazards = range(base + RING_HAZARDS, base + RING_HAZARDS + HAZARDS)[::-1]
        # A slot that is set belongs to an array that outlived an earlier Node of this process, or
        # to the process that this one replaces.
        self._free = [slot for slot in hazards if not box.words[slot]]
        self._foreign = [slot for slot in hazards if box.words[slot]]
        self.queue_size = ring.queue_size
        self.tail = read_count(box.words, self._tail_at)
        self._received = read_count(box.words, self._received_at)
        self._unreadable_at = base + RING_UNREADABLE
        self._unreadable = read_count(box.words, self._unreadable_at)
        self._latency_words = box.words[base + RING_LATENCY_SUM : base + RING_LATENCY_DIFF + 1]
        self._latency_sum = read_count(self._latency_words, 0)
        self._latency_diff = read_count(self._latency_words, 1)
        self._latency: int | None = None
        self.limit: int | None = None

    @property
    def received(self) -> int:
        """How many messages were taken, ever."""
        return self._received

    def ready(self) -> bool:
        """Return True if `take` would return a message."""
        return self._words[self.head_at] != self.tail and (
            self.limit is None or self.tail < self.limit
        )

    def next_stamp(self) -> int:
        """Return the timestamp of the message that `take` would return, NO_STAMP without one.

        Senders can write anything there: then it is only the order that is wrong.
        """
        return self._stamp_at(self._entries, self._words[self.head_at], self.tail)

    def _stamp_at(self, entries: int, head: int, tail: int) -> int:
        """Return the timestamp of the oldest message that is queued in a ring."""
        if not STRONG_ORDER:
            acquire()
        if head == tail:
            return NO_STAMP
        index = head - self.queue_size if head - tail > self.queue_size else tail
        stamp: int = _unpack(self._memory, entries + (index & self._mask) * ENTRY_SIZE)[0]
        return stamp

    def moved(self) -> bool:
        """Return True if messages are queued. Thread-safe."""
        words = self._words
        return bool(words[self.head_at] != self.tail or words[self.lane_head_at] != self.lane_tail)

    def freeze(self) -> None:
        """Limit `take` to the messages queued now."""
        self.limit = self._words[self.head_at]

    def discard(self) -> None:
        """Drop all queued messages; they count as dropped."""
        words = self._words
        self.tail = words[self._tail_at] = words[self.head_at]
        self._make_room_known()

    def count_unreadable(self) -> None:
        """Count a taken message as unreadable."""
        self._unreadable = self._words[self._unreadable_at] = self._unreadable + 1

    def _skip_to(self, tail: int) -> None:
        """Continue with the message of an index.

        Raises:
            UnreadableError: the index goes back: HEAD was overwritten, and the queue is lost.
        """
        before = self.tail
        self.tail = self._words[self._tail_at] = tail
        if tail > before and hops.dropped is not None:
            hops.dropped(self._words, self.base, before, tail - before)
        if tail < before:
            raise UnreadableError(f"the count of its messages went back from {before} to {tail}")

    def _lane_next(self) -> bool | None:
        """Return True if the next message is one of the lane, None if there is no message.

        This inlet has no lane: messages that a peer pushes there anyway are dropped.
        """
        self.lane_tail = self._words[self.lane_head_at]
        self._words[self.base + RING_LANE_TAIL] = self.lane_tail
        return False

    def _take_from_lane(self) -> Taken | None:
        """Take the next message of the lane; return None if it was overwritten meanwhile."""
        raise NotImplementedError

    @step
    def take(self) -> Taken | None:
        """Take the next message; return None if there is none.

        Raises:
            UnreadableError: its entry is malformed; it counts as received.
        """
        words = self._words
        for _ in range(MAX_LAPS):
            head = words[self.head_at]
            if not STRONG_ORDER:
                acquire()
            taken = None
            if words[self.lane_head_at] != self.lane_tail:
                # Read after `head`: no message before `head` is newer than the lane's newest.
                lane = self._lane_next()
                if lane is None:
                    return None
                if lane:
                    taken = self._take_from_lane()
                    if taken is None:
                        continue
                else:
                    head = words[self.head_at]
                    if not STRONG_ORDER:
                        acquire()
            if taken is None:
                tail = self.tail
                if head == tail or (self.limit is not None and tail >= self.limit):
                    return None
                if not 0 < head - tail <= self.queue_size:
                    self._skip_to(head - self.queue_size if head > tail else head)
                    continue
                try:
                    taken = self._read(self._entries + (tail & self._mask) * ENTRY_SIZE)
                except UnreadableError:
                    if words[self.head_at] - tail > self.queue_size:
                        continue
                    self.tail = words[self._tail_at] = tail + 1
                    self._count_received()
                    raise
                if words[self.head_at] - tail > self.queue_size:
                    # The producer lapped us while we read; a borrow ends when `taken` is freed.
                    continue
                self.tail = words[self._tail_at] = tail + 1
            # As `count_taken` in C, but no function: a call would take 3 % of this method's time.
            if not STRONG_ORDER:
                release()
            self._received = words[self._received_at] = self._received + 1
            # Both sums only grow, by one store each: differences between two reads are right.
            now = stepping.time_ns(words) if stepping.may_be_stepped else _time_ns()
            if _hop_received is not None:
                queued = words[self.head_at] + words[self.lane_head_at]
                queued = queued - self.tail - self.lane_tail & WORD_MASK
                _hop_received(words, self.base, taken[0], now, queued)
            latency = now - taken[0]
            if not 0 <= latency < BEYOND_NS:
                # A clock was set, or the sender took over a timestamp that is ahead of ours.
                latency = 0
            bucket = self.base + RING_BUCKETS + latency.bit_length()
            count = words[bucket] + 1
            words[bucket] = count if count < COUNT_LIMIT else 1
            last = self._latency
            self._latency = latency
            sums = self._latency_words
            try:
                self._latency_sum = sums[0] = self._latency_sum + latency
                if last is not None:
                    change = latency - last if latency > last else last - latency
                    self._latency_diff = sums[1] = self._latency_diff + change
            except (ValueError, OverflowError):
                # Only a sender with timestamps that are wrong on purpose gets past 64 bits.
                self._latency_sum = self._latency_diff = 0
            if self._space_bell is not None:
                self._make_room_known()
            return taken
        # A producer this fast, or one that only moves HEAD, must not keep us here.
        return None

    @step
    def take_copies(self, limit: int) -> list[Copied]:
        """Take the next messages, at most `limit`; return an empty list if there is none.

        There may be more than it returns. Their payloads are copies: the senders get their samples
        back at once.

        Raises:
            UnreadableError: as `take`; no message was taken before the malformed one.
        """
        taken = self.take() if limit > 0 else None
        if taken is None:
            return []
        stamp, code, length, nulls, size, payload, borrow, offset, metadata = taken
        if borrow is not None:
            payload = bytes(memoryview(borrow.mapping.memory)[offset : offset + size])
        number = self.tail + self.lane_tail - 1
        return [(stamp, number, (code, length, nulls, payload or b"", metadata))]

    def _count_received(self) -> None:
        """Count a message as received although it could not be read."""
        if not STRONG_ORDER:
            release()
        self._received = self._words[self._received_at] = self._received + 1
        if self._space_bell is not None:
            self._make_room_known()

    def _inherit(self) -> bool:
        """Take over foreign slots that were cleared; return True if any slot is free."""
        words = self._words
        self._free += [slot for slot in self._foreign if not words[slot]]
        self._foreign = [slot for slot in self._foreign if words[slot]]
        return bool(self._free)

    def _make_room_known(self) -> None:
        """Wake the producer if it waits for room."""
        fence()
        if self._space_bell is not None and self._words[self._waiting_at]:
            doorbell.ring(self._space_bell)

    def _mapping(self, segment: int, offset: int, size: int) -> Mapping:
        """Return the mapping of a segment that holds `size` bytes at `offset`.

        Raises:
            UnreadableError: there is no such segment, or the bytes are not within it.
        """
        try:
            mapping = self._segments[segment]
        except KeyError:
            raise UnreadableError(f"it lies in segment {segment}, which was never shared") from None
        if offset % ALIGNMENT or offset + size > mapping.size:
            raise UnreadableError(
                f"it lies at byte {offset} and is {size} bytes long; its segment has {mapping.size}"
            )
        return mapping

    def _read(self, at: int) -> Taken:
        """Copy out or borrow the message of the entry at a byte.

        The caller checks afterwards that the entry was not overwritten. The entry is copied out
        once, and only the copy is used.

        Raises:
            UnreadableError: it points where no message can be.
        """
        memory = self._memory
        (
            stamp,
            length,
            nulls,
            size,
            offset,
            meta_offset,
            segment,
            meta_segment,
            meta_size,
            code,
            _,
            _,
        ) = _unpack(memory, at)
        at += ENTRY.size
        metadata = b""
        room = INLINE
        if meta_size:
            if meta_segment:
                mapping = self._mapping(meta_segment, meta_offset, meta_size)
                metadata = mapping.memory[meta_offset : meta_offset + meta_size]
            else:
                room -= meta_size
                if room < 0:
                    raise UnreadableError(f"it has {meta_size} bytes of metadata in its entry")
                metadata = memory[at : at + meta_size]
                at += meta_size
        if segment:
            mapping = self._mapping(segment, offset, size)
            if self._free or (self._foreign and self._inherit()):
                slot = self._free.pop()
                self._words[slot] = segment << 40 | offset >> 6  # sample_key, without a call
                borrow = Borrow(self._words, slot, self._free, mapping)
                fence()
                return (stamp, code, length, nulls, size, None, borrow, offset, metadata)
            # All hazard slots are in use: copy this one out instead.
            memory, at = mapping.memory, offset
        elif size > room:
            raise UnreadableError(f"it has {size} bytes in its entry")
        payload = memory[at : at + size]
        if not STRONG_ORDER:
            acquire()
        return (stamp, code, length, nulls, size, payload, None, 0, metadata)

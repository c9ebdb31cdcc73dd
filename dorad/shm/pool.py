"""The publisher's samples: memory for payloads too large for a ring entry.

Only the owner knows which samples are free; only the bytes are shared. A sample that was sent
becomes free again when no subscriber can reach it. The owner checks that when it next
needs a sample.
"""

from __future__ import annotations

import functools
from collections import deque
from typing import TYPE_CHECKING, Any

from dorad.shm.fence import fence
from dorad.shm.layout import (
    DEFAULT_KEEP,
    ENTRY,
    INLINE,
    MAX_GROWTH,
    MIN_FREE,
    MIN_GROWTH,
    ORDERS,
    RECENT,
    SLAB,
    SMALLEST,
    TRIM_EVERY_NS,
    sample_key,
)
from dorad.shm.steps import step, twin

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from dorad.shm.mapping import Mapping
    from dorad.shm.outlet import Outlet

    Grown = tuple[int, Mapping]
    GrowAhead = Callable[[int, Callable[[Grown | None], None]], bool]
    Content = tuple[int, int, int, int, int, int]
    """Of a message: timestamp, type code, array length, null count, payload size and flags."""


@twin
class SegmentState:
    """The fields of a segment."""

    __slots__ = ("idle", "mapping", "number", "samples")


class Segment(SegmentState):
    """One shared-memory segment, cut into samples of one size."""

    __slots__ = ()

    def __init__(self, number: int, mapping: Mapping, order: int) -> None:
        self.number = number
        self.mapping = mapping
        self.samples = [
            Sample(self, offset, order, sample_key(number, offset))
            for offset in range(0, mapping.size - (1 << order) + 1, 1 << order)
        ]
        self.idle = False


@twin
class SampleState:
    """The fields of a sample."""

    __slots__ = ("held", "key", "marks", "offset", "order", "segment")


class Sample(SampleState):
    """A part of a segment: `1 << order` bytes at `offset`.

    `marks` are the (outlet, index) pairs it was pushed as. `held` counts the node's own uses of it:
    an array, or a message that is yet to be sent.
    """

    __slots__ = ()

    def __init__(self, segment: Segment, offset: int, order: int, key: int) -> None:
        self.segment = segment
        self.offset = offset
        self.order = order
        self.key = key
        self.marks: list[tuple[Outlet, int]] = []
        self.held = 0

    def reachable(self) -> bool:
        """Return True if a subscriber may still read it."""
        key = self.key
        for outlet, index in self.marks:
            if not outlet.done_with(index, key):
                return True
        return False

    def write(self, at: int, data: Any) -> None:
        """Copy a bytes-like object with items of one byte to `at` in the sample."""
        start = self.offset + at
        self.segment.mapping.memory[start : start + len(data)] = data


@twin
class PoolState:
    """The lists of a pool: its free samples, those that were sent, and those given back."""

    __slots__ = ("_arrived", "_flying", "_free", "returned")


class Pool(PoolState):
    """All samples of one node."""

    def __init__(
        self,
        grow: Callable[[int], tuple[int, Mapping]],
        retire: Callable[[int], None],
        keep: int = DEFAULT_KEEP,
        grow_ahead: GrowAhead | None = None,
    ) -> None:
        """Start empty.

        `grow` returns a new segment of the given size, already known to all subscribers; `retire`
        gives one back. `keep` bytes stay in the pool even when idle. `grow_ahead` requests a
        segment, which its callback gets later, or None; it returns False if it could not.
        """
        self._grow = grow
        self._grow_ahead = grow_ahead
        self._retire = retire
        self._keep = keep
        self._segments: list[Segment] = []
        self._free: list[list[Sample]] = [[] for _ in range(ORDERS)]
        self._flying: list[list[Sample]] = [[] for _ in range(ORDERS)]
        """Both by order. Those that were sent last come last."""
        self.returned: list[Sample] = []
        """Samples that the node itself has released once. Any thread may append."""
        self._arrived: deque[tuple[int, Grown | None]] = deque()
        self._requested: set[int] = set()
        self._refused: set[int] = set()
        """Orders for which there was no room ahead of need; they are requested after the next trim.
        """
        self._trimmed_ns = 0

    @property
    def size(self) -> int:
        """Bytes of shared memory that this pool has now."""
        return sum(segment.mapping.size for segment in self._segments)

    @step
    def take(self, size: int) -> Sample:
        """Return a sample of at least `size` bytes that no subscriber can reach.

        Raises:
            OSError: there is no room for another segment.
        """
        order = min(max(SMALLEST, (size - 1).bit_length()), ORDERS - 1)
        if self.returned:
            self._collect_returned()
        if self._arrived:
            self._add_arrived()
        sample = self._reuse(order) or self._add_segment(order)
        sample.segment.idle = False
        self._look_ahead(order)
        return sample

    def sent(self, sample: Sample, marks: list[tuple[Outlet, int]]) -> None:
        """Record that the sample was pushed; it becomes free when no subscriber can reach it."""
        if sample.held:
            # An array may be sent any number of times: only the latest push of each edge counts.
            sample.marks = [*dict([*sample.marks, *marks]).items()]
        elif marks:
            sample.marks = marks
            self._flying[sample.order].append(sample)
        else:
            self._free[sample.order].append(sample)

    @step
    def push(
        self,
        outlets: tuple[Outlet, ...],
        content: Content,
        metadata: bytes,
        payload: bytes,
        sample: Sample | None,
    ) -> None:
        """Push a message that was encoded elsewhere, and wake its receivers.

        Its payload is in `sample`, of this pool, or, if that is None, in `payload`.

        Raises:
            OSError: there is no room for another segment; the message was not pushed, and
                `sample` is free again.
        """
        holder = None
        try:
            if len(metadata) > INLINE:
                holder = self._filled(metadata)
            inline = b"" if holder else metadata
            if sample is None and payload and len(payload) + len(inline) > INLINE:
                sample = self._filled(payload)
        except OSError:
            for each in (sample, holder):
                if each is not None:
                    self.sent(each, [])
            raise
        stamp, code, length, nulls, size, flags = content
        entry = ENTRY.pack(
            stamp,
            length,
            nulls,
            size,
            0 if sample is None else sample.offset,
            0 if holder is None else holder.offset,
            0 if sample is None else sample.segment.number,
            0 if holder is None else holder.segment.number,
            len(metadata),
            code,
            0,
            flags,
        )
        entry += inline
        if sample is None:
            entry += payload
        marks = [(outlet, outlet.push(entry, size, stamp)) for outlet in outlets]
        for each in (sample, holder):
            if each is not None:
                self.sent(each, marks)
        fence()
        for outlet in outlets:
            outlet.peer.wake()

    def _filled(self, data: bytes) -> Sample:
        sample = self.take(len(data))
        sample.write(0, data)
        return sample

    def find(self, segment: int, offset: int) -> Sample | None:
        """Return the sample at a place, None if this pool has none there."""
        for each in self._segments:
            if each.number == segment:
                samples = each.samples
                place = offset >> samples[0].order
                return samples[place] if place < len(samples) else None
        return None

    def give_back(self, sample: Sample) -> None:
        """End one use by the node itself. Thread-safe; a finalizer may call it."""
        self.returned.append(sample)

    def _collect_returned(self) -> None:
        while self.returned:
            sample = self.returned.pop()
            sample.held -= 1
            if sample.held:
                continue
            marks, sample.marks = sample.marks, []
            self.sent(sample, marks)

    def _reuse(self, order: int) -> Sample | None:
        """Return a sample that no subscriber can reach, or None.

        The memory of one that was sent lately is still in the processor's caches. Without one, the
        free samples come next, then the oldest that was sent.
        """
        flying = self._flying[order]
        count = len(flying)
        oldest = max(count - RECENT, 0)
        for at in range(count - 1, oldest - 1, -1):
            if not flying[at].reachable():
                return self._land(flying, at)
        if free := self._free[order]:
            return free.pop()
        for at in range(oldest):
            if not flying[at].reachable():
                return self._land(flying, at)
        return None

    @staticmethod
    def _land(flying: list[Sample], at: int) -> Sample:
        sample = flying.pop(at)
        sample.marks = []
        return sample

    def _look_ahead(self, order: int) -> None:
        """Request a segment if few samples of a size are free, and all others are in use."""
        free, flying = self._free[order], self._flying[order]
        if len(free) > max(MIN_FREE, len(flying) // 8) or not flying:
            return
        if order in self._requested or order in self._refused or self._grow_ahead is None:
            return
        if all(sample.reachable() for sample in flying):
            arrived = functools.partial(self._arrive, order)
            if self._grow_ahead(self._next_size(order), arrived):
                self._requested.add(order)

    def _arrive(self, order: int, grown: Grown | None) -> None:
        """Pass on a segment that was requested ahead. May be called from any thread."""
        self._arrived.append((order, grown))

    def _add_arrived(self) -> None:
        while self._arrived:
            order, grown = self._arrived.popleft()
            self._requested.discard(order)
            if grown is None:
                self._refused.add(order)
            else:
                self._add(order, *grown)

    def _next_size(self, order: int) -> int:
        """Return the bytes of the next segment for samples of a size."""
        size = 1 << order
        least = max(SLAB, size)
        count = sum(len(s.samples) for s in self._segments if s.samples[0].order == order)
        if not count:
            return least
        return max(least, min(max(count // 4, MIN_GROWTH) * size, MAX_GROWTH))

    def _add_segment(self, order: int) -> Sample:
        """Get one more segment, and wait for it."""
        least = max(SLAB, 1 << order)
        # One that was requested ahead comes before the answer to this request.
        wanted = least if order in self._requested else self._next_size(order)
        try:
            grown = self._grow(wanted)
        except OSError:
            if wanted == least:
                raise
            grown = self._grow(least)
        self._add(order, *grown)
        return self._free[order].pop()

    def _add(self, order: int, number: int, mapping: Mapping) -> None:
        segment = Segment(number, mapping, order)
        self._segments.append(segment)
        self._free[order].extend(reversed(segment.samples))

    def trim(self, now_ns: int) -> None:
        """Give back segments that have been idle since the last trim, beyond `keep` bytes."""
        if now_ns - self._trimmed_ns < TRIM_EVERY_NS:
            return
        self._trimmed_ns = now_ns
        self._refused.clear()
        self._collect_returned()
        for free, flying in zip(self._free, self._flying, strict=True):
            landed = [sample for sample in flying if not sample.reachable()]
            for sample in landed:
                flying.remove(sample)
                sample.marks = []
            free.extend(landed)
        excess = self.size - self._keep
        unused = {id(sample) for free in self._free for sample in free}
        for segment in list(self._segments):
            quiet = all(id(sample) in unused for sample in segment.samples)
            if quiet and segment.idle and excess > 0:
                excess -= segment.mapping.size
                self._drop(segment)
            segment.idle = quiet

    def _drop(self, segment: Segment) -> None:
        order = segment.samples[0].order
        self._free[order] = [s for s in self._free[order] if s.segment is not segment]
        self._segments.remove(segment)
        self._retire(segment.number)
        _unlink(segment)

    def close(self) -> None:
        """Release all segments at once; no sample of them is used any more."""
        for segment in self._segments:
            _unlink(segment)
        self._segments.clear()
        self.returned.clear()
        for samples in (*self._free, *self._flying):
            samples.clear()


def _unlink(segment: Segment) -> None:
    """Break the circle of a segment and its samples.

    Without that the memory stays mapped until the garbage collector comes by: never, in a process
    that has frozen or disabled it.
    """
    segment.samples = []


def joined(parts: Iterable[tuple[int, Any]], size: int) -> bytes:
    """Return the parts of a small payload as one block, as in a sample."""
    payload = bytearray(size)
    for at, data in parts:
        payload[at : at + len(data)] = data
    return bytes(payload)

"""The publisher's samples: memory for payloads too large for a ring entry.

Only the owner knows which samples are free; only the bytes are shared. A sample that was sent
becomes free again when no subscriber can reach it any more. The owner checks that when it next
needs a sample.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from dorad.shm.layout import SMALLEST, sample_key
from dorad.shm.steps import twin

if TYPE_CHECKING:
    from collections.abc import Callable

    from dorad.shm.mapping import Mapping
    from dorad.shm.ring import Outlet

SLAB = 1 << 18  # bytes; segments of smaller samples hold this much
GROWTH = 8
"""A new segment adds at least 1/8 of the samples of its size that exist."""
DEFAULT_KEEP = 8 << 20
TRIM_EVERY_NS = 5_000_000_000


@dataclass(slots=True, eq=False)
class Segment:
    """One shared-memory segment, cut into samples of one size."""

    number: int
    mapping: Mapping
    samples: list[Sample] = field(default_factory=list)
    idle: bool = False


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
        for outlet, index in self.marks:  # noqa: SIM110 - a generator costs as much as the check
            if not outlet.done_with(index, key):
                return True
        return False

    def write(self, at: int, data: Any) -> None:
        """Copy a bytes-like object with items of one byte to `at` in the sample."""
        start = self.offset + at
        self.segment.mapping.memory[start : start + len(data)] = data


@twin
class PoolState:
    """The lines of a pool: its free samples, those that were sent, and those given back."""

    __slots__ = ("_flying", "_free", "_returned")


class Pool(PoolState):
    """All samples of one node."""

    def __init__(
        self,
        grow: Callable[[int], tuple[int, Mapping]],
        retire: Callable[[int], None],
        keep: int = DEFAULT_KEEP,
    ) -> None:
        """Start empty.

        `grow` returns a new segment of the given size, already known to all subscribers; `retire`
        gives one back. `keep` bytes stay in the pool even when idle.
        """
        self._grow = grow
        self._retire = retire
        self._keep = keep
        self._segments: list[Segment] = []
        self._free: dict[int, list[Sample]] = {}
        self._flying: dict[int, deque[Sample]] = {}
        self._returned: deque[Sample] = deque()
        self._trimmed_ns = 0

    @property
    def size(self) -> int:
        """Bytes of shared memory that this pool has now."""
        return sum(segment.mapping.size for segment in self._segments)

    def take(self, size: int) -> Sample:
        """Return a sample of at least `size` bytes that no subscriber can reach.

        Raises:
            OSError: there is no room for another segment.
        """
        order = max(SMALLEST, (size - 1).bit_length())
        if self._returned:
            self._collect_returned()
        free = self._free.get(order)
        sample = free.pop() if free else self._reclaim(order) or self._add_segment(order)
        sample.segment.idle = False
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
        self._returned.append(sample)

    def _collect_returned(self) -> None:
        while self._returned:
            sample = self._returned.popleft()
            sample.held -= 1
            if sample.held:
                continue
            marks, sample.marks = sample.marks, []
            self.sent(sample, marks)

    def _reclaim(self, order: int) -> Sample | None:
        flying = self._flying.get(order)
        if not flying:
            return None
        if not flying[0].reachable():
            # Samples nearly always become free in the order in which they were sent.
            sample = flying.popleft()
            sample.marks = []
            return sample
        for position, sample in enumerate(flying):
            if not sample.reachable():
                del flying[position]
                sample.marks = []
                return sample
        return None

    def _add_segment(self, order: int) -> Sample:
        """Add a segment, larger the more samples there are, and return a sample of it."""
        size = 1 << order
        there = sum(len(s.samples) for s in self._segments if s.samples[0].order == order)
        least = max(SLAB, size)
        wanted = max(least, there // GROWTH * size)
        try:
            number, mapping = self._grow(wanted)
        except OSError:
            if wanted == least:
                raise
            number, mapping = self._grow(least)
        segment = Segment(number, mapping)
        segment.samples = [
            Sample(segment, offset, order, sample_key(number, offset))
            for offset in range(0, mapping.size - size + 1, size)
        ]
        self._segments.append(segment)
        free = self._free.setdefault(order, [])
        self._flying.setdefault(order, deque())
        free.extend(reversed(segment.samples))
        return free.pop()

    def trim(self, now_ns: int) -> None:
        """Give back segments that have been idle since the last trim, beyond `keep` bytes."""
        if now_ns - self._trimmed_ns < TRIM_EVERY_NS:
            return
        self._trimmed_ns = now_ns
        self._collect_returned()
        for order, flying in self._flying.items():
            landed = [sample for sample in flying if not sample.reachable()]
            for sample in landed:
                flying.remove(sample)
                sample.marks = []
            self._free[order].extend(landed)
        excess = self.size - self._keep
        free = {id(sample) for samples in self._free.values() for sample in samples}
        for segment in list(self._segments):
            quiet = all(id(sample) in free for sample in segment.samples)
            if quiet and segment.idle and excess > 0:
                excess -= segment.mapping.size
                self._drop(segment)
            segment.idle = quiet

    def _drop(self, segment: Segment) -> None:
        order = segment.samples[0].order
        self._free[order] = [s for s in self._free[order] if s.segment is not segment]
        self._segments.remove(segment)
        self._retire(segment.number)

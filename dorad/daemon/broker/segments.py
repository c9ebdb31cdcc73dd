"""The segments that nodes place their samples in: whose they are, and when nobody needs them."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping


class EdgeKey(NamedTuple):
    """The edge that ends at a ring of a node's mailbox."""

    node: str
    ring: str


@dataclass(slots=True, eq=False)
class Segment:
    """One segment: `memory` is a descriptor that only reads its `size` bytes.

    `pid` is the process that alone writes into it.

    Its process has ended if there are `heads`: how many messages it had sent on each of its edges.
    """

    number: int
    owner: str
    pid: int
    memory: int
    size: int
    heads: Mapping[EdgeKey, int] | None = None


class Segments:
    """All segments of a dataflow, also those that have outlived the process that filled them."""

    def __init__(self, dropped: Callable[[Segment], None] = lambda _: None) -> None:
        """`dropped` is called with each segment that was let go of."""
        self.next = 1
        """The number of the next one."""
        self._all: dict[int, Segment] = {}
        self._dropped = dropped

    def __len__(self) -> int:
        return len(self._all)

    def __iter__(self) -> Iterator[Segment]:
        return iter(list(self._all.values()))

    @property
    def orphans(self) -> bool:
        """Whether a segment's process has ended."""
        return any(segment.heads is not None for segment in self._all.values())

    def add(self, owner: str, pid: int, memory: int, size: int) -> Segment:
        """Take over a descriptor; the segment's number is never used again."""
        segment = Segment(self.next, owner, pid, memory, size)
        self.restore(segment)
        return segment

    def restore(self, segment: Segment) -> None:
        """Take over a segment that has its number already."""
        self._all[segment.number] = segment
        self.next = max(self.next, segment.number + 1)

    def of(self, owners: Collection[str]) -> list[Segment]:
        """Return the segments that messages of these nodes may lie in."""
        return [segment for segment in self._all.values() if segment.owner in owners]

    def retire(self, number: int, owner: str) -> None:
        """Let go of a segment whose owner does not need it any more.

        Raises:
            KeyError: it is not the owner's.
        """
        segment = self._all.get(number)
        if segment is None or segment.owner != owner:
            raise KeyError(number)
        self._drop(segment)

    def orphan(self, owner: str, pid: int | None, heads: Mapping[EdgeKey, int]) -> None:
        """Take note that a process has ended (None: every one of this owner)."""
        for segment in self._all.values():
            if segment.owner == owner and pid in (None, segment.pid) and segment.heads is None:
                segment.heads = heads

    def reap(
        self, past: Callable[[EdgeKey, int], bool], kept: Collection[int] = ()
    ) -> list[Segment]:
        """Let go of orphans that no queued message lies in, and return them.

        `past` tells whether so many messages of an edge are received or dropped by now, and `kept`
        are the numbers of segments that are needed nevertheless. Who holds an array over a segment
        keeps it mapped, so only what is still to be taken counts.
        """
        gone = [
            segment
            for segment in self._all.values()
            if segment.heads is not None
            and segment.number not in kept
            and all(past(edge, head) for edge, head in segment.heads.items())
        ]
        for segment in gone:
            self._drop(segment)
        return gone

    def close(self) -> None:
        """Let go of all of them."""
        for segment in list(self._all.values()):
            self._drop(segment)

    def _drop(self, segment: Segment) -> None:
        del self._all[segment.number]
        os.close(segment.memory)
        self._dropped(segment)

"""An edge inside one process: both ends over real shared memory, without a daemon."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

from dorad.shm import create, doorbell, hoplog, layout
from dorad.shm.borrow import Taken
from dorad.shm.counters import Counters, counters
from dorad.shm.inlet import Inlet
from dorad.shm.lane import LanedInlet, add_lane
from dorad.shm.mapping import Mapping
from dorad.shm.outlet import Outlet, Peer
from dorad.shm.pool import Pool, Sample


class Edge:
    """One ring with its producer, its consumer and the producer's pool."""

    def __init__(
        self, box: Mapping, ring: layout.RingPlan, bells: list[int], blocking: bool
    ) -> None:
        self.box = box
        self.ring = ring
        self.segments: dict[int, Mapping] = {}
        self.retired: list[int] = []
        self.peer = Peer(box, bells[0])
        self.space = bells[1]
        self.blocking = blocking
        self.outlet = self.new_outlet()
        self.inlet = self.new_inlet()
        self.pool = Pool(self._grow, self.retired.append, keep=0)

    def new_inlet(self) -> Inlet:
        """A consumer that starts where the last one stopped."""
        kind = LanedInlet if self.ring.lane else Inlet
        return kind(self.box, self.ring, self.segments, self.space if self.blocking else None)

    def new_outlet(self) -> Outlet:
        """A producer that starts where the last one stopped."""
        return add_lane(Outlet(self.peer, self.ring, blocking=self.blocking), self.ring)

    def _grow(self, size: int) -> tuple[int, Mapping]:
        memory = create.create_pool(size)
        number = len(self.segments) + 1
        self.segments[number] = Mapping(memory.receiver, writable=False)
        mapping = Mapping(memory.owner)
        for descriptor in memory:
            os.close(descriptor)
        return number, mapping

    def push(
        self, payload: bytes, metadata: bytes = b"", stamp: int = 1, *, flags: int = 0
    ) -> None:
        """Send bytes inline."""
        entry = layout.ENTRY.pack(
            stamp, len(payload), 0, len(payload), 0, 0, 0, 0, len(metadata), 5, 0, flags
        )
        outlet = (self.outlet.lane if flags else None) or self.outlet
        outlet.push(entry + metadata + payload, len(payload), stamp)

    def push_sample(self, payload: bytes, *, flags: int = 0) -> Sample:
        """Send bytes in a sample of the pool."""
        sample = self.pool.take(len(payload))
        sample.write(0, payload)
        size = len(payload)
        entry = layout.ENTRY.pack(
            1, size, 0, size, sample.offset, 0, sample.segment.number, 0, 0, 5, 0, flags
        )
        outlet = (self.outlet.lane if flags else None) or self.outlet
        index = outlet.push(entry, size, 1)
        self.pool.sent(sample, [(outlet, index)])
        return sample

    def take(self) -> bytes | None:
        """Receive a payload and release its sample."""
        taken = self.inlet.take()
        return None if taken is None else content(taken)

    @property
    def counters(self) -> Counters:
        return counters(self.box.words, self.ring.base)


def read_hops(
    words: memoryview, cursor: hoplog.HopCursor
) -> tuple[list[hoplog.Hop], hoplog.HopCursor]:
    """Return what `hoplog.read` does, with the names of the fields."""
    hops, cursor = hoplog.read(words, cursor)
    return [hoplog.Hop(*hop) for hop in hops], cursor


def comparable(words: memoryview, cursor: hoplog.HopCursor) -> tuple[Any, ...]:
    """Return what two mailboxes with the same history have in common; at last the next cursor.

    All words but the times of hop records, and the parents, of which a thread has only one.
    """
    # Whatever their clocks were set to: no record is of the future.
    with patch.object(hoplog, "time", SimpleNamespace(time_ns=lambda: 1 << 63)):
        hops, cursor = read_hops(words, cursor)
    alike = [hop._replace(at_ns=0, parent_place=0, parent_stamp=0) for hop in hops]
    rest = words[: layout.BOX_HOPS], words[layout.BOX_WORDS :]
    return [part.tobytes() for part in rest], alike, words[layout.BOX_HOPS], cursor


def content(taken: Taken) -> bytes:
    """Return the bytes of a received payload, copied or borrowed."""
    size, payload, borrow, offset = taken[4:8]
    if payload is not None:
        return payload
    assert borrow is not None
    return borrow.mapping.memory[offset : offset + size]


@contextmanager
def edge(queue_size: int = 10, *, blocking: bool = False, lane: bool = False) -> Iterator[Edge]:
    """An edge between two ends in this process, with its consumer attached."""
    plan = layout.plan([queue_size], lanes=[lane])
    memory = create.create_mailbox(plan.size)
    bells = [doorbell.create(), doorbell.create()]
    box = Mapping(memory)
    os.close(memory)
    (ring,) = plan.rings
    box.words[ring.base + layout.RING_CAPACITY] = ring.capacity
    box.words[ring.base + layout.RING_QUEUE_SIZE] = ring.queue_size
    box.words[ring.base + layout.RING_LANE] = ring.lane
    box.words[ring.base + layout.RING_STATE] = layout.STATE_ATTACHED
    try:
        yield Edge(box, ring, bells, blocking)
    finally:
        for bell in bells:
            os.close(bell)

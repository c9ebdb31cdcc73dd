"""The shared memory that nodes place their samples in: its creation, distribution and removal."""

import asyncio
import logging
import os
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping

from msgspec import Struct

from dorad.daemon.broker.connection import Connection, is_running
from dorad.daemon.broker.edges import DAEMON, EdgeKey, is_observer
from dorad.daemon.broker.snapshot import SegmentSnapshot
from dorad.daemon.broker.state import BrokerState
from dorad.node.protocol import ProtocolError
from dorad.shm import create, mapping

REAP_S = 1.0
"""Seconds between checks of the segments of ended processes."""

MAX_SEGMENTS = 256
"""Maximum segments of one node, including those of its ended processes. A pool that needs more
samples creates larger segments, so this is always enough."""

MAX_GROWING = 8
"""Maximum segments in creation for one node. It waits for each, unless a signal interrupts it."""

SKIPPED = 4096
"""Segment numbers that a new daemon skips: its snapshot may be older than the last segment."""

_log = logging.getLogger(__name__)


class Segment(Struct, eq=False):
    """One segment: `memory` is a read-only descriptor of `size` bytes, which only `pid` writes.

    `heads` is None while the process runs; afterwards, how many messages it had sent on each of
    its edges.
    """

    number: int
    owner: str
    pid: int
    memory: int
    size: int
    heads: Mapping[EdgeKey, int] | None = None


class SegmentTable:
    """All segments of a dataflow, including those that have outlived their process."""

    def __init__(self, on_drop: Callable[[Segment], None] = lambda _: None) -> None:
        """`on_drop` is called with each segment that has been dropped."""
        self.next = 1
        """The number of the next segment."""
        self._all: dict[int, Segment] = {}
        self._on_drop = on_drop

    def __len__(self) -> int:
        return len(self._all)

    def __iter__(self) -> Iterator[Segment]:
        return iter(list(self._all.values()))

    @property
    def has_orphans(self) -> bool:
        """Whether the process of a segment has ended."""
        return any(segment.heads is not None for segment in self._all.values())

    def add(self, owner: str, pid: int, memory: int, size: int) -> Segment:
        """Take over a descriptor under a number that is never used again."""
        segment = Segment(self.next, owner, pid, memory, size)
        self.restore(segment)
        return segment

    def restore(self, segment: Segment) -> None:
        """Add a segment that has its number already."""
        self._all[segment.number] = segment
        self.next = max(self.next, segment.number + 1)

    def of(self, owners: Collection[str]) -> list[Segment]:
        """Return the segments that messages of these nodes may lie in."""
        return [segment for segment in self._all.values() if segment.owner in owners]

    def retire(self, number: int, owner: str) -> None:
        """Drop a segment that its owner no longer needs.

        Raises:
            KeyError: the segment does not belong to the owner.
        """
        segment = self._all.get(number)
        if segment is None or segment.owner != owner:
            raise KeyError(number)
        self._drop(segment)

    def orphan(self, owner: str, pid: int | None, heads: Mapping[EdgeKey, int]) -> None:
        """Mark the segments of an ended process; None stands for all processes of the owner."""
        for segment in self._all.values():
            if segment.owner == owner and pid in (None, segment.pid) and segment.heads is None:
                segment.heads = heads

    def reap(
        self, is_past: Callable[[EdgeKey, int], bool], kept: Collection[int] = ()
    ) -> list[Segment]:
        """Drop the orphans that contain no queued message, and return them.

        `is_past` returns True if that many messages of an edge were received or dropped; `kept` are
        the numbers of segments to keep in any case. A process that uses an array in a segment keeps
        it mapped, so only queued messages count.
        """
        dropped = [
            segment
            for segment in self._all.values()
            if segment.heads is not None
            and segment.number not in kept
            and all(is_past(edge, head) for edge, head in segment.heads.items())
        ]
        for segment in dropped:
            self._drop(segment)
        return dropped

    def close(self) -> None:
        """Drop all segments."""
        for segment in list(self._all.values()):
            self._drop(segment)

    def _drop(self, segment: Segment) -> None:
        del self._all[segment.number]
        os.close(segment.memory)
        self._on_drop(segment)


class Segments:
    """Creates segments on request, sends them to subscribers, and drops them in the end."""

    def __init__(self, state: BrokerState) -> None:
        self._state = state
        self._table = SegmentTable(self._on_drop)
        self._growing: dict[asyncio.Task[None], tuple[str, int]] = {}
        """Owner and size of the segments in creation."""
        self._reaper: asyncio.TimerHandle | None = None
        self._closed = False

    @property
    def next_number(self) -> int:
        """A number that no segment has used."""
        return self._table.next

    def grow(self, node_id: str, size: int, request: int | None) -> None:
        """Create a segment of `size` bytes for a connected node, and answer its request."""
        connection = self._state.connection(node_id)
        if connection is None:
            return
        self._reap()
        try:
            self._check_limits(node_id, size)
        except OSError as error:
            _log.debug("no segment of %d bytes for node %s: %s", size, node_id, error)
            connection.send("full", {"error": str(error), "ask": request})
            return
        task = asyncio.ensure_future(self._grow(node_id, connection, size, request))
        self._growing[task] = (node_id, size)
        task.add_done_callback(self._growing.pop)

    def _check_limits(self, owner: str, size: int) -> None:
        """Raise OSError if a node or its dataflow would have more than its limits allow."""
        held = [segment.size for segment in self._table.of({owner})]
        growing = [each for node_id, each in self._growing.values() if node_id == owner]
        if len(growing) == MAX_GROWING:
            raise OSError(f"{MAX_GROWING} segments are being created for this node; wait for them")
        if len(held) + len(growing) >= MAX_SEGMENTS:
            raise OSError(
                f"this node has {MAX_SEGMENTS} segments of shared memory, the maximum; "
                "release arrays that were created or received"
            )
        dataflow = sum(segment.size for segment in self._table)
        dataflow += sum(each for _, each in self._growing.values())
        create.check_share(size, sum(held) + sum(growing), dataflow)

    async def _grow(
        self, node_id: str, connection: Connection, size: int, request: int | None
    ) -> None:
        state = self._state
        try:
            # Allocating zeroes the pages, which takes a quarter of a second for each gigabyte.
            memory = await asyncio.to_thread(create.create_pool, size)
        except OSError as error:
            _log.debug("no segment of %d bytes for node %s: %s", size, node_id, error)
            if state.connection(node_id) is connection:
                state.send(node_id, "full", {"error": str(error), "ask": request})
            return
        if state.connection(node_id) is not connection:
            # The process that requested it has ended, and its successor did not request it.
            os.close(memory.owner)
            os.close(memory.receiver)
            return
        number = self._add(node_id, connection.pid, memory.receiver, size)
        state.send(node_id, "grown", {"segment": number, "ask": request}, (memory.owner,))
        # From here on only the owner can write: this daemon, the next one and receivers read.
        os.close(memory.owner)

    def grow_own(self, size: int) -> tuple[int, mapping.Mapping]:
        """Create a segment for messages of the daemon itself; return its number and its memory.

        Raises:
            OSError: there is no room.
        """
        self._check_limits(DAEMON, size)
        memory, mapped = create.create_texts(size)
        return self._add(DAEMON, os.getpid(), memory, size), mapped

    def _add(self, owner: str, pid: int, memory: int, size: int) -> int:
        segment = self._table.add(owner, pid, memory, size)
        _log.debug("segment %d for %s, process %d", segment.number, owner, pid)
        state = self._state
        state.store.store(self._name(segment), (memory,))
        # Subscribers get it before its owner can place a sample in it.
        for consumer in self._consumers(owner):
            state.send(consumer, "segment", {"segment": segment.number}, (memory,))
        return segment.number

    def send_all(self, node_id: str) -> None:
        """Send a node that has just attached all segments that its messages may lie in."""
        for source in sorted({edge.producer for edge in self._state.edges.received_by(node_id)}):
            self.send(source, node_id)

    def send(self, source: str, node_id: str) -> None:
        """Send a node the segments of a source that it is about to receive from."""
        for segment in self._table.of({source}):
            self._state.send(node_id, "segment", {"segment": segment.number}, (segment.memory,))

    def withdraw(self, source: str, node_id: str) -> None:
        """Let a node unmap the segments of a source from which it no longer receives."""
        for segment in self._table.of({source}):
            self._state.send(node_id, "retired", {"segment": segment.number})

    def retire(self, node_id: str, number: int) -> None:
        """Drop a segment that its owner no longer needs.

        Raises:
            ProtocolError: the segment does not belong to the node.
        """
        try:
            self._table.retire(number, node_id)
        except KeyError:
            raise ProtocolError(f"segment {number} does not belong to the node") from None

    def retire_own(self, number: int) -> None:
        """Drop a segment that the daemon itself no longer needs."""
        self._table.retire(number, DAEMON)

    def orphan(self, node_id: str, pid: int | None) -> None:
        """Drop the segments of a process once they contain no queued message.

        The process has stopped sending. None stands for all processes of the node.
        """
        self._table.orphan(node_id, pid, self._heads(node_id))
        self._reap()

    def _heads(self, node_id: str) -> Mapping[EdgeKey, int]:
        heads = {}
        for edge in self._state.edges.reached_by(node_id):
            counters = self._state.edge_counters(edge.key)
            if counters is not None:
                heads[edge.key] = counters.sent
        return heads

    def _reap(self) -> None:
        if self._closed:
            return
        if self._table.has_orphans:
            self._table.reap(self._is_past, self._latched())
        if self._reaper is not None:
            self._reaper.cancel()
            self._reaper = None
        if self._table.has_orphans:
            self._reaper = asyncio.get_running_loop().call_later(REAP_S, self._reap)

    def _is_past(self, edge: EdgeKey, head: int) -> bool:
        counters = self._state.edge_counters(edge)
        return counters is None or counters.sent - counters.queued >= head

    def _latched(self) -> set[int]:
        """Return the segments that queued and last messages of latched edges lie in.

        A producer may copy the last value of an earlier process from one edge to another while
        the rings are read. Two passes find it at one of the two.
        """
        segments: set[int] = set()
        for _ in range(2):
            for box in self._state.mailboxes.values():
                for ring in box.rings.values():
                    if ring.latched:
                        segments |= box.segments_of(ring)
        return segments

    def _consumers(self, node_id: str) -> set[str]:
        return {edge.consumer for edge in self._state.edges.reached_by(node_id)}

    def _name(self, segment: Segment) -> str:
        numbers = (segment.number, segment.owner, segment.pid, segment.size)
        return self._state.name("segment", *map(str, numbers))

    def _on_drop(self, segment: Segment) -> None:
        _log.debug("segment %d of %s is dropped", segment.number, segment.owner)
        self._state.store.drop(self._name(segment))
        heads = segment.heads or {}
        for consumer in sorted(self._consumers(segment.owner) | {key.node for key in heads}):
            self._state.send(consumer, "retired", {"segment": segment.number})

    def restore(
        self, segments: Collection[Segment], next_number: int, orphans: Iterable[SegmentSnapshot]
    ) -> None:
        """Take over the segments of a previous daemon, with the other values from its snapshot."""
        known = {
            each.number: {EdgeKey(node, ring): head for node, ring, head in each.heads}
            for each in orphans
        }
        self._table.next = next_number
        for segment in sorted(segments, key=lambda each: each.number):
            segment.heads = known.get(segment.number)
            self._table.restore(segment)
        self._table.next += SKIPPED
        for segment in segments:
            if segment.heads is None and (segment.owner == DAEMON or not is_running(segment.pid)):
                self.orphan(segment.owner, segment.pid)

    def drop_observers(self, consumers: Collection[str]) -> None:
        """Drop the segments of observers, which ended with the previous daemon."""
        for owner in {each.owner for each in self._table if is_observer(each.owner)}:
            for consumer in consumers:
                self.withdraw(owner, consumer)
            self.orphan(owner, None)

    def snapshot(self) -> list[SegmentSnapshot]:
        """Return the segments that outlive their processes, for `restore`."""
        return [
            SegmentSnapshot(segment.number, [(*key, head) for key, head in segment.heads.items()])
            for segment in self._table
            if segment.heads is not None
        ]

    async def close(self) -> None:
        """Drop all segments; every connection is closed by now."""
        self._closed = True
        if self._reaper is not None:
            self._reaper.cancel()
        self._table.close()
        # A segment in creation is closed as soon as it exists, since its connection is closed.
        while self._growing:
            await asyncio.wait(self._growing)

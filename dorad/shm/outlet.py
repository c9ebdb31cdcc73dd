"""The producer's end of an edge, and the node that it sends to.

An edge is a ring with one producer and one consumer; `inlet.py` is the other end.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from dorad.shm import doorbell
from dorad.shm.fence import STRONG_ORDER, fence, release
from dorad.shm.layout import (
    BOX_ASLEEP,
    ENTRY_SIZE,
    HAZARDS,
    RING_BYTES,
    RING_HAZARDS,
    RING_HEAD,
    RING_LANE_HEAD,
    RING_LANE_TAIL,
    RING_LAST,
    RING_REFUSED,
    RING_STATE,
    RING_TAIL,
    RING_WAITING,
    STATE_ATTACHED,
    STATE_CLOSED,
    RingPlan,
    add_to,
    read_count,
)
from dorad.shm.steps import twin

if TYPE_CHECKING:
    from dorad.shm.mapping import Mapping


@twin
class PeerState:
    """The fields of a peer."""

    __slots__ = ("bell", "mapping", "words")


class Peer(PeerState):
    """A node that this one sends to: its mailbox and its doorbell."""

    __slots__ = ()

    def __init__(self, mapping: Mapping, bell: int) -> None:
        self.mapping = mapping
        self.words = mapping.words
        self.bell = bell

    def wake(self) -> None:
        """Ring the doorbell if the node sleeps. The caller must fence after its last push."""
        if self.words[BOX_ASLEEP]:
            doorbell.ring(self.bell)


@twin
class OutletState:
    """The fields of a producer's end; it is `plain` if `done_with` is that of `Outlet`."""

    __slots__ = (
        "_bytes",
        "_bytes_at",
        "_entries",
        "_hazards",
        "_head_at",
        "_last_at",
        "_mask",
        "_memory",
        "_state_at",
        "_tail_at",
        "_waiting_at",
        "_words",
        "base",
        "blocking",
        "closed",
        "head",
        "lane",
        "output",
        "peer",
        "plain",
        "queue_size",
    )


class Outlet(OutletState):
    """The producer's end of an edge.

    `lane` takes the messages of an exchange; if None, they go into this ring. `output` is the key
    of the output that it belongs to, in the hop records of its node; 0 has none.
    """

    __slots__ = ("__weakref__",)

    lane: Outlet | None

    def __init__(self, peer: Peer, ring: RingPlan, *, blocking: bool) -> None:
        """Continue the edge where its last producer stopped."""
        base = ring.base
        words = peer.words
        self.peer = peer
        self.base = base
        self.blocking = blocking
        self.closed = False
        self.lane = None
        self.output = 0
        self.plain = True
        self.queue_size = ring.queue_size
        self.head = read_count(words, base + RING_HEAD)
        self._words = words
        self._memory = peer.mapping.memory
        self._entries = ring.entries
        self._mask = ring.capacity - 1
        self._bytes = read_count(words, base + RING_BYTES)
        self._head_at = base + RING_HEAD
        self._tail_at = base + RING_TAIL
        self._bytes_at = base + RING_BYTES
        self._last_at = base + RING_LAST
        self._waiting_at = base + RING_WAITING
        self._state_at = base + RING_STATE
        self._hazards = words[base + RING_HAZARDS : base + RING_HAZARDS + HAZARDS]
        # A producer that was killed while it waited for room has left this set.
        words[self._waiting_at] = 0

    def push(self, entry: bytes, size: int, stamp: int) -> int:
        """Append an entry with a payload of `size` bytes; return its index.

        The caller fences once after its last push of a message, then wakes the peers.
        """
        head = self.head
        at = self._entries + (head & self._mask) * ENTRY_SIZE
        self._memory[at : at + len(entry)] = entry
        words = self._words
        self._bytes += size
        words[self._bytes_at] = self._bytes
        words[self._last_at] = stamp
        if not STRONG_ORDER:
            release()
        self.head = words[self._head_at] = head + 1
        return head

    def count(self, size: int, stamp: int) -> None:
        """Count the bytes of a message that is pushed to the lane, and store its timestamp."""
        self._bytes += size
        self._words[self._bytes_at] = self._bytes
        self._words[self._last_at] = stamp

    @property
    def pushed(self) -> int:
        """How many messages were pushed into the ring and its lane, ever."""
        return self.head if self.lane is None else self.head + self.lane.head

    def last_ns(self) -> int:
        """Return the timestamp of the newest message in ns, 0 if there was none."""
        return self._words[self._last_at]

    def newest(self) -> bytes:
        """Return the bytes of the entry that was pushed last."""
        at = self._entries + (self.head - 1 & self._mask) * ENTRY_SIZE
        return self._memory[at : at + ENTRY_SIZE]

    def full(self) -> bool:
        """Return True if the queue of an attached consumer is full."""
        words = self._words
        base = self.base
        waiting = words[base + RING_HEAD] - words[base + RING_TAIL]
        waiting += words[base + RING_LANE_HEAD] - words[base + RING_LANE_TAIL]
        return waiting >= self.queue_size and bool(words[self._state_at] == STATE_ATTACHED)

    def announce_waiting(self, waiting: bool) -> None:
        """Start or stop asking the consumer to ring the space bell when it takes a message."""
        self._words[self._waiting_at] = int(waiting)
        fence()

    def refuse(self) -> None:
        """Count a message that was discarded because the dataflow is stopping."""
        add_to(self._words, self.base + RING_REFUSED, 1)

    def done_with(self, index: int, key: int) -> bool:
        """Return True if the consumer can no longer reach sample `key`, pushed as entry `index`."""
        if self._words[self._tail_at] <= index and self.head - index <= self.queue_size:
            # It is queued. The consumer may still take it, even if the edge was removed, unless it
            # will never read again.
            return self.closed and self._words[self._state_at] == STATE_CLOSED
        if not STRONG_ORDER:
            fence()
        return key not in self._hazards.tolist()

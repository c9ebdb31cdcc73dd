"""Where everything lies in a mailbox segment, and what an entry of a ring looks like.

A mailbox is one segment per node. It holds the node's own words and a ring for each of its inputs;
more rings can follow while the node runs. All words are 64 bits, native order; a word has one
writer, and words of different writers lie on different cache lines of 64 bytes.

    mailbox:  header | ring of input 0 | ring of input 1 | ...
    ring:     8 lines of words | capacity x 256 bytes of entries | its lane, if it has one
    lane:     capacity words | capacity x 256 bytes of entries

The lane is a second ring over the same words: messages that belong to an exchange, and those that
say `flush`, go there, so that newer ordinary ones do not displace them. The word of each of its
entries says how many ordinary messages were pushed before it.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

MAGIC = 0x31_78_6F_62_61_72_6F_64  # "dorabox1"
WORD = 8
LINE = 8  # words in a cache line

# Words of the mailbox header.
BOX_MAGIC = 0
BOX_END = 1  # daemon: the first byte that no ring has
BOX_ASLEEP = 1 * LINE  # node: non-zero while it blocks and wants its doorbell rung
BOX_MAIL = 2 * LINE  # daemon: packets sent to the node's socket so far
BOX_PULSE = 3 * LINE  # node: grows whenever it enters or leaves the API, if it is watched
BOX_SEEN = 3 * LINE + 1  # node: packets it has read from its socket so far
BOX_BUSY = 3 * LINE + 2  # node: how many of its operators are at work, if it is watched
BOX_STAMPS_REFUSED = 3 * LINE + 3  # node: timestamps too far ahead for its clock, so far
BOX_WORDS = 4 * LINE

# Words of a ring header, relative to the ring.
RING_CAPACITY = 0
RING_QUEUE_SIZE = 1
RING_LANE = 2  # daemon: the first byte of its lane; 0 = it has none, all goes into the one ring
RING_HEAD = 1 * LINE  # producer: messages pushed, ever
RING_BYTES = 1 * LINE + 1  # producer: payload bytes pushed, ever
RING_LAST = 1 * LINE + 2  # producer: timestamp of the newest message, ns
RING_WAITING = 1 * LINE + 3  # producer: non-zero while it waits for room
RING_REFUSED = 1 * LINE + 4  # producer: messages given up because the dataflow was stopping
RING_LANE_HEAD = 1 * LINE + 5  # producer: messages pushed into the lane, ever
RING_FLUSHED = 1 * LINE + 6  # producer: LANE_HEAD after the last message that says `flush`
RING_TAIL = 2 * LINE  # consumer: messages taken or skipped, ever
RING_RECEIVED = 2 * LINE + 1  # consumer: messages taken, ever
RING_LATENCY_SUM = 2 * LINE + 2  # consumer: sum of the times from sending to taking, ns
RING_LATENCY_DIFF = 2 * LINE + 3  # consumer: sum of how much successive such times differed, ns
RING_LATE_MAX = 2 * LINE + 4  # consumer of a timer: the longest it has taken to take a tick, ns
RING_MISSED = 2 * LINE + 5  # consumer of a timer: ticks taken after their deadline, or never
RING_LANE_TAIL = 2 * LINE + 6  # consumer: messages taken or skipped from the lane, ever
RING_UNREADABLE = 2 * LINE + 7  # consumer: messages taken that could not be read, ever
RING_STATE = 3 * LINE  # daemon: one of STATE_*
RING_LATCHED = 3 * LINE + 1  # daemon: non-zero where the newest message is kept; see `latch.py`
RING_HAZARDS = 4 * LINE  # consumer: samples it borrows, 0 where free
HAZARDS = 32
RING_WORDS = 8 * LINE

STATE_DETACHED = 0  # nobody reads it yet; a full ring drops
STATE_ATTACHED = 1
STATE_CLOSED = 2  # nobody will read it again; nobody pushes

# The fields of an entry, in order. A segment of 0 means: the bytes follow in the entry, metadata
# first.
ENTRY_FIELDS = {
    "ENTRY_STAMP": "Q",  # ns
    "ENTRY_LENGTH": "Q",  # of the array
    "ENTRY_NULLS": "Q",
    "ENTRY_PAYLOAD_SIZE": "Q",  # bytes
    "ENTRY_PAYLOAD_AT": "Q",
    "ENTRY_METADATA_AT": "Q",
    "ENTRY_PAYLOAD_SEGMENT": "I",
    "ENTRY_METADATA_SEGMENT": "I",
    "ENTRY_METADATA_SIZE": "I",  # bytes
    "ENTRY_CODE": "B",  # type of the array, see `arrow.py`
    "ENTRY_SPARE": "B",
    "ENTRY_FLAGS": "H",  # CORRELATED | FLUSH
}
ENTRY = struct.Struct("=" + "".join(ENTRY_FIELDS.values()))
ENTRY_SIZE = 256
ENTRY_FLAGS = ENTRY.size - 2  # the byte of an entry where its flags begin
CORRELATED = 1  # has a request_id, a goal_id or a goal_status
FLUSH = 2  # says `flush`: what is older of its session is void
INLINE = ENTRY_SIZE - ENTRY.size

MIN_CAPACITY = 16

# The word that names a sample in a hazard slot: segment << KEY_SEGMENT | offset >> KEY_OFFSET.
KEY_SEGMENT = 40
KEY_OFFSET = 6

ALIGNMENT = 64
"""Samples begin at multiples of so many bytes."""

SMALLEST = 9
"""Samples have at least 512 bytes, `1 << SMALLEST`."""

MAX_LAPS = 100
"""How often one call starts again because the other end was faster; it then finds nothing."""

BEYOND_NS = 1 << 40
"""A message that seems to have been on its way for longer, 18 minutes, counts as 0 ns."""

MAX_AHEAD_NS = 500_000_000
"""Maximum lead of another clock over this machine's, as in dora (`uhlc`)."""

COUNT_LIMIT = 1 << 62
"""No count of messages or bytes gets here by counting; a word that says so was overwritten."""


class LayoutError(RuntimeError):
    """The words of a mailbox describe no ring that lies in it: a peer has overwritten them."""


@dataclass(frozen=True, slots=True)
class RingPlan:
    """One ring in a mailbox: `base` is its first word, `entries` its first entry's byte.

    `lane` is the first byte of its lane, 0 if it has none.
    """

    base: int
    entries: int
    capacity: int
    queue_size: int
    lane: int = 0

    def check(self, size: int) -> None:
        """Check that the ring is as `plan_ring` lays one out, within a mailbox of `size` bytes.

        One that is used again may have more entries than its queue needs.

        Raises:
            LayoutError: it is not.
        """
        capacity = self.capacity
        entries = (self.base + RING_WORDS) * WORD
        if (
            self.base < BOX_WORDS
            or self.base % LINE
            or capacity & capacity - 1
            or not 1 <= self.queue_size <= capacity <= size
            or capacity < capacity_for(self.queue_size)
            or self.entries != entries
            or self.lane not in (0, entries + capacity * ENTRY_SIZE)
            or self.end > size
        ):
            raise LayoutError(f"the ring at word {self.base} of the mailbox is damaged: {self}")

    @property
    def end(self) -> int:
        """The first byte after it."""
        if self.lane:
            return self.lane + self.capacity * (WORD + ENTRY_SIZE)
        return self.entries + self.capacity * ENTRY_SIZE


@dataclass(frozen=True, slots=True)
class MailboxPlan:
    """The whole segment; `size` in bytes, whole pages."""

    rings: tuple[RingPlan, ...]
    size: int


def capacity_for(queue_size: int) -> int:
    """Return how many entries a ring needs so that the newest `queue_size` are never overwritten.

    While the producer writes one entry, the `queue_size` before it may still be read; the next
    power of two above holds both and makes the index a mask.
    """
    return max(MIN_CAPACITY, 1 << max(queue_size, 1).bit_length())


def plan_ring(offset: int, queue_size: int, *, lane: bool = False) -> RingPlan:
    """Lay out a ring that starts at byte `offset`, a multiple of a cache line."""
    entries = offset + RING_WORDS * WORD
    capacity = capacity_for(queue_size)
    return RingPlan(
        base=offset // WORD,
        entries=entries,
        capacity=capacity,
        queue_size=queue_size,
        lane=entries + capacity * ENTRY_SIZE if lane else 0,
    )


def plan(
    queue_sizes: Sequence[int], *, lanes: Sequence[bool] = (), page: int = 4096
) -> MailboxPlan:
    """Lay out a mailbox with one ring for each queue size (>= 1), in order.

    `lanes` tells which of them have a lane; without it none has.
    """
    rings: list[RingPlan] = []
    offset = BOX_WORDS * WORD
    for queue_size, lane in zip(queue_sizes, lanes or [False] * len(queue_sizes), strict=True):
        rings.append(plan_ring(offset, queue_size, lane=lane))
        offset = rings[-1].end
    return MailboxPlan(tuple(rings), -(-offset // page) * page)


def read_count(words: memoryview, at: int) -> int:
    """Return the count in a word to go on from; 0 where a peer has overwritten it."""
    count: int = words[at]
    return count if count < COUNT_LIMIT else 0


def add_to(words: memoryview, at: int, number: int) -> None:
    """Add to the count in a word, which a peer may have overwritten."""
    words[at] = read_count(words, at) + number


def sample_key(segment: int, offset: int) -> int:
    """Return the non-zero word that names a sample in a hazard slot."""
    return segment << KEY_SEGMENT | offset >> KEY_OFFSET

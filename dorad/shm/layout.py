"""The layout of a mailbox segment, and of an entry of a ring.

A mailbox is one segment per node. It holds the node's own words and a ring for each of its inputs;
rings can be added while the node runs. All words are 64 bits, native order. A word has one writer,
and words of different writers lie on different cache lines of 64 bytes.

    mailbox:  header | hop records | ring of input 0 | ring of input 1 | ...
    ring:     16 lines of words | capacity x 256 bytes of entries | its lane, if it has one
    lane:     capacity words | capacity x 256 bytes of entries

The lane is a second ring over the same words. Messages that belong to an exchange, and those with
`flush`, go there, so that newer ordinary ones do not displace them. The word of each of its entries
records how many ordinary messages were pushed before it.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import NamedTuple

MAGIC = 0x32_78_6F_62_61_72_6F_64  # "dorabox2"
WORD = 8
LINE = 8  # words in a cache line

# Words of the mailbox header.
BOX_MAGIC = 0
BOX_END = 1  # daemon: the first byte after the last ring
BOX_VERSION = 2  # daemon: the PROTOCOL_VERSION that the mailbox was laid out for
BOX_ASLEEP = 1 * LINE  # node: non-zero while it blocks and needs its doorbell rung
BOX_MAIL = 2 * LINE  # daemon: packets sent to the node's socket so far
BOX_STEP = 2 * LINE + 1  # daemon: the logical time of a node that is stepped, ns; 0 = wall time
BOX_HELD = 2 * LINE + 2  # daemon: non-zero while a node that is stepped must take no message
BOX_HOPS_READ = 2 * LINE + 3  # daemon: hop records that it has read, or passed over
BOX_PULSE = 3 * LINE  # node: grows when it enters or leaves the API, if it is watched
BOX_SEEN = 3 * LINE + 1  # node: packets it has read from its socket so far
BOX_BUSY = 3 * LINE + 2  # node: how many of its operators are working, if it is watched
BOX_STAMPS_REFUSED = 3 * LINE + 3  # node: timestamps too far ahead of its clock, so far
BOX_DUE = 3 * LINE + 4  # node: the time at which it goes on without a message, if stepped
BOX_HOPS = 4 * LINE  # processes of the node, by an atomic addition: hop records written, ever
BOX_HOP_RECORDS = 5 * LINE  # the newest of them, see `hops.py`
HOPS = 1024
HOP_WORDS = LINE
BOX_WORDS = BOX_HOP_RECORDS + HOPS * HOP_WORDS

# Words of a hop record.
HOP_CHECK = 0  # of its index and all other words
HOP_KIND = 1  # one of the five below | thread << HOP_THREAD
HOP_AT = 2  # ns since 1970
HOP_PLACE = 3  # the ring's first word; of HOP_SEND and HOP_CONTEXT the output's key
HOP_STAMP = 4  # of the message; of HOP_DROP the number of the first one in its ring
HOP_PARENT_PLACE = 5  # of HOP_SEND: ring and timestamp of the message that its thread took last
HOP_PARENT_STAMP = 6  # of HOP_CONTEXT both are the trace id, HOP_VALUE is the span id
HOP_VALUE = 7  # messages that stay queued; bytes sent; messages dropped
HOP_THREAD = 32
HOP_TURN = 9  # bits by which the check is rotated before each word

HOP_RECEIVE = 1
HOP_DONE = 2
HOP_SEND = 3
HOP_DROP = 4
HOP_CONTEXT = 5

OUTPUT_KEY_BASIS = 0xCBF29CE484222325  # FNV-1a
OUTPUT_KEY_PRIME = 0x100000001B3

# Words of a ring header, relative to the ring.
RING_CAPACITY = 0
RING_QUEUE_SIZE = 1
RING_LANE = 2  # daemon: the first byte of its lane; 0 = no lane, all messages go into the ring
RING_HEAD = 1 * LINE  # producer: messages pushed, ever
RING_BYTES = 1 * LINE + 1  # producer: payload bytes pushed, ever
RING_LAST = 1 * LINE + 2  # producer: timestamp of the newest message, ns
RING_WAITING = 1 * LINE + 3  # producer: non-zero while it waits for room
RING_REFUSED = 1 * LINE + 4  # producer: messages discarded because the dataflow was stopping
RING_LANE_HEAD = 1 * LINE + 5  # producer: messages pushed into the lane, ever
RING_FLUSHED = 1 * LINE + 6  # producer: LANE_HEAD after the last message with `flush`
RING_TAIL = 2 * LINE  # consumer: messages taken or skipped, ever
RING_RECEIVED = 2 * LINE + 1  # consumer: messages taken, ever
RING_LATENCY_SUM = 2 * LINE + 2  # consumer: sum of the times from sending to taking, ns
RING_LATENCY_DIFF = 2 * LINE + 3  # consumer: sum of the differences of successive such times, ns
RING_LATE_MAX = 2 * LINE + 4  # consumer of a timer: the longest delay until it took a tick, ns
RING_MISSED = 2 * LINE + 5  # consumer of a timer: ticks taken after their deadline, or never
RING_LANE_TAIL = 2 * LINE + 6  # consumer: messages taken or skipped from the lane, ever
RING_UNREADABLE = 2 * LINE + 7  # consumer: messages taken that could not be read, ever
RING_STATE = 3 * LINE  # daemon: one of STATE_*
RING_LATCHED = 3 * LINE + 1  # daemon: non-zero if the newest message is kept; see `latch.py`
# A link process at either end writes these three rarely; see `dorad.link.numbering`.
RING_NUMBERING = 3 * LINE + 2  # which numbering the next two belong to, 0 = none
RING_NUMBER_OFFSET = 3 * LINE + 3  # number of the next message, less those pushed, or taken
RING_NUMBER_BEGIN = 3 * LINE + 4  # RING_NUMBER_OFFSET, less the messages lost before the producer
RING_HAZARDS = 4 * LINE  # consumer: samples it borrows, 0 where free
HAZARDS = 32
RING_BUCKETS = 8 * LINE  # consumer: messages by latency, see `latencies.py`
BUCKETS = 64
RING_WORDS = 16 * LINE

STATE_DETACHED = 0  # no reader yet; a full ring drops
STATE_ATTACHED = 1
STATE_CLOSED = 2  # no reader is left; producers do not push

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
FLUSH = 2  # has `flush`: older messages of its session are void
INLINE = ENTRY_SIZE - ENTRY.size

MIN_CAPACITY = 16

# The word that names a sample in a hazard slot: segment << KEY_SEGMENT | offset >> KEY_OFFSET.
KEY_SEGMENT = 40
KEY_OFFSET = 6

ALIGNMENT = 64
"""Samples begin at multiples of this many bytes."""

SMALLEST = 9
"""Samples have at least 512 bytes, `1 << SMALLEST`."""

MIN_FREE = 2
"""With this many free samples or fewer, a pool requests more if all others are in use."""

RECENT = 3
"""How many of the samples sent last a pool prefers to those that have been free for longer."""

ORDERS = 64
"""A sample has `1 << order` bytes; this is above all orders."""

SLAB = 1 << 18
"""Bytes of a segment for samples that are smaller."""

MIN_GROWTH = 3
"""Minimum number of samples that a second segment of a size adds; later ones add 1/4 if more."""

MAX_GROWTH = 64 << 20
"""Maximum bytes that one such segment adds."""

DEFAULT_KEEP = 8 << 20
"""Bytes of its segments that a pool keeps while it is idle, unless it is told otherwise."""

TRIM_EVERY_NS = 5_000_000_000
"""Time between two looks of a pool for segments to give back."""

MAX_LAPS = 100
"""How often one call retries because the other end was faster; it then returns no message."""

BEYOND_NS = 1 << 40
"""A latency of this, 18 minutes, or more is taken for a clock change and counts as 0 ns."""

MAX_AHEAD_NS = 500_000_000
"""Maximum lead of another clock over this machine's, as in dora (`uhlc`)."""

SPIN_US = 100
"""Maximum time that a receiver polls before it blocks, unless `spin_us` is set."""

MAX_COOLDOWN = 1024
"""Maximum number of short waits without a spin after a spin that failed."""

WOULD_HAVE_PAID_NS = 150_000
"""A blocked wait shorter than this was mostly the wake-up: spinning would have been faster."""

COUNT_LIMIT = 1 << 62
"""No count of messages or bytes grows this far; a word at or above it was overwritten."""


PROTOCOL_VERSION = 5
"""Version of this layout and of the packets of `dorad.node.protocol`."""

OLDEST_PROTOCOL = 5
"""The oldest version that this one speaks, too. A node and its daemon agree on the newest that both
speak, and a daemon adopts nodes that speak one of these."""

# The type codes of arrays; see `arrow.py`. Those up to CODE_BOOL are of fixed width.
CODE_NULL = 0
CODE_INT8 = 1
CODE_INT16 = 2
CODE_INT32 = 3
CODE_INT64 = 4
CODE_UINT8 = 5
CODE_UINT16 = 6
CODE_UINT32 = 7
CODE_UINT64 = 8
CODE_FLOAT16 = 9
CODE_FLOAT32 = 10
CODE_FLOAT64 = 11
CODE_DATE32 = 12
CODE_DATE64 = 13
CODE_BOOL = 14
CODE_STRING = 100
CODE_BINARY = 101
CODE_LARGE_STRING = 102
CODE_LARGE_BINARY = 103
CODE_NESTED = 200
CODE_IPC = 255

# Descriptions of types; see `typedescription.py`. Types beyond these bounds travel as a stream.
MAX_TYPE_SIZE = 1 << 16
MAX_TYPE_NODES = 1024
MAX_TYPE_DEPTH = 64
MAX_ITEMS = 1 << 56
SMALL_PAYLOAD = 4096  # bytes; up to so many a receiver copies the whole, and borrows nothing
DESCRIBED_DICTIONARY = 8
DESCRIBED_METADATA = 16


def agree(one: tuple[int, int], other: tuple[int, int]) -> int | None:
    """Return the newest version that two ends speak, None if there is none.

    Each end speaks all versions from its oldest to its newest one.
    """
    newest = min(one[1], other[1])
    return newest if newest >= max(one[0], other[0]) else None


class LayoutError(RuntimeError):
    """The words of a mailbox do not describe a valid ring: a peer has overwritten them."""


class RingPlan(NamedTuple):
    """The place of one ring in a mailbox.

    `base` is its first word, `entries` the first byte of its entries, `lane` the first byte of its
    lane, 0 if it has none.
    """

    base: int
    entries: int
    capacity: int
    queue_size: int
    lane: int = 0

    def check(self, size: int) -> None:
        """Check that the ring matches the layout of `plan_ring`, in a mailbox of `size` bytes.

        A ring that is used again may have more entries than its queue needs.

        Raises:
            LayoutError: it does not.
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
        """The first byte after the ring and its lane."""
        if self.lane:
            return self.lane + self.capacity * (WORD + ENTRY_SIZE)
        return self.entries + self.capacity * ENTRY_SIZE


class MailboxPlan(NamedTuple):
    """The rings of a mailbox segment; `size` in bytes is a multiple of the page size."""

    rings: tuple[RingPlan, ...]
    size: int


def capacity_for(queue_size: int) -> int:
    """Return how many entries a ring needs so that the newest `queue_size` are never overwritten.

    While the producer writes one entry, the `queue_size` entries before it may still be read. The
    next power of two holds all of them, and makes the modulo a mask.
    """
    return max(MIN_CAPACITY, 1 << max(queue_size, 1).bit_length())


def plan_ring(offset: int, queue_size: int, *, lane: bool = False) -> RingPlan:
    """Return the layout of a ring that starts at byte `offset`, a multiple of a cache line."""
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
    """Return the layout of a mailbox with one ring for each queue size (>= 1), in order.

    `lanes` has True for each ring with a lane; if empty, no ring has one.
    """
    rings: list[RingPlan] = []
    offset = BOX_WORDS * WORD
    for queue_size, lane in zip(queue_sizes, lanes or [False] * len(queue_sizes), strict=True):
        rings.append(plan_ring(offset, queue_size, lane=lane))
        offset = rings[-1].end
    return MailboxPlan(tuple(rings), -(-offset // page) * page)


def read_count(words: memoryview, at: int) -> int:
    """Return the count in a word, to continue from; 0 if a peer has overwritten it."""
    count: int = words[at]
    return count if count < COUNT_LIMIT else 0


def add_to(words: memoryview, at: int, number: int) -> None:
    """Add `number` to the count in a word; count from 0 if a peer has overwritten it."""
    words[at] = read_count(words, at) + number


def sample_key(segment: int, offset: int) -> int:
    """Return the non-zero word that names a sample in a hazard slot."""
    return segment << KEY_SEGMENT | offset >> KEY_OFFSET


def constants() -> dict[str, int]:
    """Return every number of this module by its name, and the offset of each field of an entry.

    The C part of the data plane is compiled with them.
    """
    values = {name: n for name, n in globals().items() if name.isupper() and type(n) is int}
    formats = "="
    for name, code in ENTRY_FIELDS.items():
        values[name] = struct.calcsize(formats)
        formats += code
    return values

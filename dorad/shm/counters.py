"""The counters of an edge, from the words of its ring.

Counting follows from three words:

    sent     = HEAD
    received = RECEIVED
    queued   = min(HEAD - TAIL, queue_size)
    dropped  = TAIL - RECEIVED + max(0, HEAD - TAIL - queue_size)

With a lane (see `lane.py`), HEAD stands for HEAD + LANE_HEAD, and TAIL for TAIL + LANE_TAIL;
RECEIVED counts both. Skipping moves TAIL only, and taking moves TAIL before RECEIVED. So the counts
are exact even if a consumer is killed between two stores: the message that it was taking is lost,
and counts as dropped.
"""

from __future__ import annotations

from typing import NamedTuple

from dorad.shm.fence import acquire
from dorad.shm.layout import (
    COUNT_LIMIT,
    MAX_LAPS,
    RING_BYTES,
    RING_HEAD,
    RING_LANE_HEAD,
    RING_LANE_TAIL,
    RING_LAST,
    RING_LATENCY_DIFF,
    RING_LATENCY_SUM,
    RING_NUMBER_BEGIN,
    RING_NUMBER_OFFSET,
    RING_NUMBERING,
    RING_QUEUE_SIZE,
    RING_RECEIVED,
    RING_REFUSED,
    RING_TAIL,
    RING_UNREADABLE,
)

_LARGEST = (1 << 63) - 1

WORD_MASK = (1 << 64) - 1


class Counters(NamedTuple):
    """The counters of one edge; `sent == received + dropped + queued` at rest.

    `latency_sum` is the sum of the times from sending to taking, `latency_diff` the sum of the
    differences of successive such times, both in ns. `unreadable` of the received messages could
    not be read. `lost` messages never came to the sender, from another machine or from ROS 2; no
    other count has them.
    """

    sent: int
    received: int
    dropped: int
    queued: int
    payload_bytes: int
    last_ns: int
    refused: int
    latency_sum: int
    latency_diff: int
    unreadable: int
    lost: int


def counters(words: memoryview, base: int) -> Counters:
    """Return the counters of the ring whose header starts at word `base`.

    Even if a peer has overwritten the words, this terminates and returns possible numbers.
    """
    for _ in range(MAX_LAPS):
        received = words[base + RING_RECEIVED]
        acquire()
        tail = words[base + RING_TAIL] + words[base + RING_LANE_TAIL]
        acquire()
        head = words[base + RING_HEAD] + words[base + RING_LANE_HEAD]
        acquire()
        # If the consumer took a message between these loads, that one would seem dropped: retry.
        if words[base + RING_RECEIVED] == received:
            break
    queue_size = words[base + RING_QUEUE_SIZE]
    head &= _LARGEST
    tail &= _LARGEST
    waiting = max(0, head - tail)
    queued = min(waiting, queue_size)
    return Counters(
        sent=head,
        received=received,
        dropped=max(0, tail - received + waiting - queued),
        queued=queued,
        payload_bytes=words[base + RING_BYTES],
        last_ns=words[base + RING_LAST],
        refused=words[base + RING_REFUSED],
        latency_sum=words[base + RING_LATENCY_SUM],
        latency_diff=words[base + RING_LATENCY_DIFF],
        unreadable=words[base + RING_UNREADABLE],
        lost=lost(words, base),
    )


def lost(words: memoryview, base: int) -> int:
    """Return how many messages a ring lacks because they were lost on the way to its producer.

    Returns 0 if a peer has overwritten the words.
    """
    missing: int = words[base + RING_NUMBER_OFFSET] - words[base + RING_NUMBER_BEGIN] & WORD_MASK
    return missing if missing < COUNT_LIMIT else 0


def add_lost(words: memoryview, base: int, number: int) -> None:
    """Count messages that were lost on the way to the producer of a ring, who calls this.

    A ring that leads to another machine has the numbers of the link, and counts nothing else.
    """
    if not words[base + RING_NUMBERING]:
        offset = words[base + RING_NUMBER_OFFSET] + number
        words[base + RING_NUMBER_OFFSET] = offset & WORD_MASK

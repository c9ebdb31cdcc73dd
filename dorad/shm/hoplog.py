"""The records of `dorad.shm.hops`, as the daemon reads them.

All processes that map a mailbox can write anything into it. So a record counts only if its check
fits, and a read ends after `HOPS` records whatever the memory holds. What was overwritten before it
was read, or is no record, is counted; so is one of a time that has not come.
"""

from __future__ import annotations

import time
from typing import NamedTuple, TypeAlias

from dorad.shm import native
from dorad.shm.fence import acquire
from dorad.shm.hops import check_of
from dorad.shm.layout import (
    BOX_HOP_RECORDS,
    BOX_HOPS,
    HOP_CONTEXT,
    HOP_RECEIVE,
    HOP_THREAD,
    HOP_WORDS,
    HOPS,
    MAX_AHEAD_NS,
)

_MASK = (1 << 64) - 1
_MAX_AHEAD = 1 << 40
"""More records than any node writes between two reads: then the index was overwritten."""
_MAX_TIME = 1 << 63
"""A time that no message has."""


class Hop(NamedTuple):
    """What one thread of a node did with one message.

    `place` is the first word of the message's ring; of a HOP_SEND the key of its output, see
    `dorad.shm.hops.output_key`. `stamp` is the message's timestamp, of a HOP_DROP the number of the
    first dropped one in its ring. `value` are messages that stay queued (HOP_RECEIVE), payload
    bytes (HOP_SEND), dropped messages (HOP_DROP). Of a HOP_CONTEXT, `parent_place` and
    `parent_stamp` are a trace id of OpenTelemetry, `value` a span id; 0 if they were not valid.
    """

    kind: int
    thread: int
    at_ns: int
    place: int
    stamp: int
    parent_place: int
    parent_stamp: int
    value: int


HopFields: TypeAlias = tuple[int, int, int, int, int, int, int, int]
"""The fields of a `Hop` without their names: a busy daemon makes and unpacks 10,000 a second."""


def is_possible(hop: HopFields, now: int) -> bool:
    """Return False if a record that was read at the time `now` is of one that had not come.

    A node's clock may be ahead by MAX_AHEAD_NS: it follows the timestamps that the node receives.
    """
    kind, _, at, _, stamp, *_ = hop
    return stamp < _MAX_TIME and (at <= now + MAX_AHEAD_NS or kind == HOP_CONTEXT)


class HopCursor(NamedTuple):
    """How far the records of a mailbox were read.

    `overwritten` records were lost because they were read too late, `damaged` ones are not valid:
    their writer was killed meanwhile, a process has overwritten them, or their time has not come.
    """

    next: int = 0
    seen: int = 0
    """The index at the last read. A record before it that is not valid now never will be."""
    overwritten: int = 0
    damaged: int = 0


def read(words: memoryview, cursor: HopCursor) -> tuple[list[HopFields], HopCursor]:
    """Return the records of a mailbox since the last read, in order, and the cursor after them.

    At a record that is still being written it stops; the next read goes on there.
    """
    head = words[BOX_HOPS]
    acquire()
    now = time.time_ns()
    at, seen, overwritten, damaged = cursor
    ahead = head - at & _MASK
    if ahead > _MAX_AHEAD:
        damaged += 1
        at = seen = max(0, head - HOPS)
    elif ahead > HOPS:
        overwritten += ahead - HOPS
        at = head - HOPS & _MASK
    hops: list[HopFields]
    if native.module is not None:
        read_all = native.module.hop_read
        hops, at, missed, broken = read_all(words, at, head, seen, _MAX_AHEAD, now + MAX_AHEAD_NS)
        return hops, HopCursor(at, head, overwritten + missed, damaged + broken)
    hops = []
    while at != head:
        first = BOX_HOP_RECORDS + at % HOPS * HOP_WORDS
        check, kind, *fields = words[first : first + HOP_WORDS].tolist()
        if check == check_of(at, (kind, *fields)):
            code = kind & 0xFF
            at_ns, place, stamp, parent_place, parent_stamp, value = fields
            thread = kind >> HOP_THREAD
            hop = (code, thread, at_ns, place, stamp, parent_place, parent_stamp, value)
            if HOP_RECEIVE <= code <= HOP_CONTEXT and is_possible(hop, now):
                hops.append(hop)
            else:
                damaged += 1
        elif words[BOX_HOPS] - at & _MASK > HOPS:
            overwritten += 1
        elif seen - at - 1 & _MASK < _MAX_AHEAD:
            damaged += 1
        else:
            break
        at = at + 1 & _MASK
    return hops, HopCursor(at, head, overwritten, damaged)

"""The last value of an output for receivers that come late."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from dorad.shm.fence import fence
from dorad.shm.latch import LatchedOutlet, samples_of
from dorad.shm.layout import ENTRY

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from dorad.shm.arrow import Encoded
    from dorad.shm.pool import Pool, Sample
    from dorad.shm.ring import Outlet

MAX_UNHEARD = 1 << 16
"""Bytes of a message that nobody receives, and that is kept for who may come."""


class Unheard(NamedTuple):
    """The last message of an output that had no receiver, in memory of the node's own."""

    stamp: int
    encoded: Encoded
    meta: bytes


def unheard(stamp: int, encoded: Encoded, meta: bytes, sample: Sample | None) -> Unheard | None:
    """Return a copy of a message that nobody receives; None if it is too large to be kept."""
    code, length, nulls, size, parts = encoded
    if size + len(meta) > MAX_UNHEARD:
        return None
    payload = bytearray(size)
    if sample is not None:
        payload[:] = sample.segment.mapping.memory[sample.offset : sample.offset + size]
    for at, data in parts:
        payload[at : at + len(data)] = data
    whole = ((0, bytes(payload)),) if size else ()
    return Unheard(stamp, (code, length, nulls, size, whole), meta)


def bring_up(
    outlets: Sequence[Outlet],
    pool: Pool,
    last: Unheard | None,
    push: Callable[[tuple[Outlet, ...], Unheard], None],
) -> bool:
    """Give the receivers of an output that lack its last message that message.

    `last` is what was sent while there was no receiver, and `push` sends it. False if the message
    is not in memory any more. Whoever calls it is the only one that sends on these outlets.
    """
    newest = max(outlets, key=lambda each: (each.last_ns(), isinstance(each, LatchedOutlet)))
    stamp = max(newest.last_ns(), 0 if last is None else last.stamp)
    late = tuple(_late(outlets, stamp))
    if not late:
        return True
    if last is not None and last.stamp == stamp:
        push(late, last)
        return True
    entry = newest.newest()
    sent, _, _, size, *_ = ENTRY.unpack_from(entry)
    held = _held(entry, newest, pool) if sent == stamp else None
    if held is None:
        return False
    for outlet in late:
        mark = (outlet, outlet.push(entry, size, stamp))
        for sample in held:
            sample.marks = [*sample.marks, mark]
    fence()
    for outlet in late:
        outlet.peer.wake()
    return True


def _late(outlets: Sequence[Outlet], stamp: int) -> Iterator[Outlet]:
    for outlet in outlets:
        behind = isinstance(outlet, LatchedOutlet) and outlet.last_ns() < stamp
        if behind and not (outlet.blocking and outlet.full()):
            yield outlet


def _held(entry: bytes, outlet: Outlet, pool: Pool) -> list[Sample] | None:
    """Return the samples of this node that the newest message of an outlet lies in.

    None if they may have been used again: only a latched outlet holds on to them. What an earlier
    process of the node has sent over one is the daemon's to keep.
    """
    latched = isinstance(outlet, LatchedOutlet)
    held = []
    for segment, offset in samples_of(entry):
        sample = pool.find(segment, offset)
        if sample is None:
            if not latched:
                return None
        elif latched or (outlet, outlet.head - 1) in sample.marks:
            held.append(sample)
        else:
            return None
    return held

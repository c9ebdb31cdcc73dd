"""Send the last message of an output to late subscribers."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, NamedTuple

from dorad.shm.fence import fence
from dorad.shm.latch import LatchedOutlet, samples_of
from dorad.shm.layout import ENTRY
from dorad.shm.pool import Pool, Sample, joined

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from dorad.shm.nested import Encoded
    from dorad.shm.outlet import Outlet

_log = logging.getLogger(__name__)

MAX_KEPT = 1 << 16
"""Maximum bytes of a message that is kept for late subscribers while there is none."""


class KeptMessage(NamedTuple):
    """A copy of the last message of an output without subscribers."""

    stamp: int
    encoded: Encoded
    meta: bytes


def keep(stamp: int, encoded: Encoded, meta: bytes, sample: Sample | None) -> KeptMessage | None:
    """Return a copy of a message without subscribers; None if it exceeds `MAX_KEPT`."""
    code, length, nulls, size, parts = encoded
    if size + len(meta) > MAX_KEPT:
        return None
    if sample is None:
        payload = joined(parts, size)
    else:
        payload = bytes(sample.segment.mapping.memory[sample.offset : sample.offset + size])
    whole = ((0, payload),) if size else ()
    return KeptMessage(stamp, (code, length, nulls, size, whole), meta)


def send_last(
    outlets: Sequence[Outlet],
    pool: Pool,
    last: KeptMessage | None,
    push: Callable[[tuple[Outlet, ...], KeptMessage], None],
) -> bool:
    """Send the last message of an output to the subscribers that lack it.

    `last` was sent while there was no subscriber, and `push` sends it now. Return False if the
    message is no longer in memory. No other thread may send on these outlets meanwhile.
    """
    newest = max(outlets, key=lambda each: (each.last_ns(), isinstance(each, LatchedOutlet)))
    stamp = max(newest.last_ns(), 0 if last is None else last.stamp)
    late = tuple(_without(outlets, stamp))
    if not late:
        return True
    if last is not None and last.stamp == stamp:
        push(late, last)
        return True
    entry = newest.newest()
    sent, _, _, size, *_ = ENTRY.unpack_from(entry)
    held = _held(entry, newest, pool) if sent == stamp else None
    if held is None:
        _log.debug("the last message of %d ns is no longer in memory", stamp)
        return False
    for outlet in late:
        mark = (outlet, outlet.push(entry, size, stamp))
        for sample in held:
            sample.marks = [*sample.marks, mark]
    fence()
    for outlet in late:
        outlet.peer.wake()
    return True


def _without(outlets: Sequence[Outlet], stamp: int) -> Iterator[Outlet]:
    """Yield the latched outlets that lack the message sent at `stamp` and have room for it."""
    for outlet in outlets:
        behind = isinstance(outlet, LatchedOutlet) and outlet.last_ns() < stamp
        if behind and not (outlet.blocking and outlet.full()):
            yield outlet


def _held(entry: bytes, outlet: Outlet, pool: Pool) -> list[Sample] | None:
    """Return the samples of this node that hold the newest message of an outlet.

    None if they may have been reused: only a latched outlet keeps them. The daemon keeps the
    samples of an earlier process of the node.
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

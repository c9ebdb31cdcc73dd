"""What is kept of latched edges when a process has ended: the last value, and where it lies."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dorad.shm.fence import fence
from dorad.shm.latch import LatchedOutlet, samples_of
from dorad.shm.layout import ENTRY

if TYPE_CHECKING:
    from collections.abc import Iterator

    from dorad.daemon.broker.edges import Edge
    from dorad.daemon.broker.state import BrokerState
    from dorad.shm.ring import Outlet

MAX_SIZE = 1 << 48
"""Bytes that no message has."""


def bring_up(state: BrokerState, edge: Edge) -> None:
    """Give the end of a latched edge what its source has sent last, if it lacks that.

    Only where the source has no process: one that is there does it itself, and nobody else may
    push into its rings.
    """
    ring = state.boxes[edge.consumer].rings[edge.ring]
    if not ring.latched or edge.daemon or state.connection(edge.source) is not None:
        return
    late = state.boxes[edge.consumer].outlet(edge.ring)
    others = list(_siblings(state, edge))
    if not others:
        return
    newest = max(others, key=lambda each: (each.last_ns(), isinstance(each, LatchedOutlet)))
    stamp = newest.last_ns()
    entry = newest.newest()
    sent, _, _, size, *_ = ENTRY.unpack_from(entry)
    kept = isinstance(newest, LatchedOutlet) or not samples_of(entry)
    # Anybody who maps the sibling's mailbox may have written the entry.
    if size <= MAX_SIZE and kept and late.last_ns() < sent == stamp:
        late.push(entry, size, stamp)
        fence()
        state.wake(edge.consumer)


def _siblings(state: BrokerState, edge: Edge) -> Iterator[Outlet]:
    """Yield the ends of the other edges of the same output."""
    for other in state.edges:
        same = (other.source, other.output) == (edge.source, edge.output)
        if same and other.key != edge.key and not other.daemon:
            yield state.boxes[other.consumer].outlet(other.ring)


def segments_kept(state: BrokerState) -> set[int]:
    """Return the segments that waiting and last messages of latched edges lie in.

    Producers go on meanwhile, and may hand the last value of an earlier process on to another
    edge: whoever looks twice finds it at one of the two.
    """
    found: set[int] = set()
    for _ in range(2):
        for box in state.boxes.values():
            for ring in box.rings.values():
                if ring.latched:
                    found |= box.segments_of(ring)
    return found

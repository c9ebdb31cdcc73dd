"""Stepping: one node of a dataflow runs at a time, by a logical time that the daemon gives.

So a replay is the same each time. While `BOX_STEP` is set in a node's mailbox, it is the node's
time: timestamps of messages, latencies, timeouts and rates follow it, and of its inputs that with
the oldest message is served first. While `BOX_HELD` is set, the node sleeps: it takes no message
and no event, and no timeout ends, until it may go on or the dataflow stops. A node that goes to
sleep sets `BOX_DUE` to the time at which it wants to go on even if no message comes; 0 is never.
"""

from __future__ import annotations

import time

from dorad.shm import native
from dorad.shm.fence import acquire
from dorad.shm.layout import BOX_DUE, BOX_HELD, BOX_STEP, COUNT_LIMIT

NO_STAMP = 1 << 64
"""The timestamp of no message: later than all."""

HELD = (BOX_HELD, 1)
"""The word that changes when a node may go on, with its value before."""

_time_ns = time.time_ns
_monotonic_ns = time.monotonic_ns


may_be_stepped = False
"""Whether the daemon has said that it steps this process. Else no peer may hold it, or set its
time, by words that all senders can write to."""


def allow(allowed: bool) -> None:
    """Set whether the daemon steps this process."""
    global may_be_stepped
    may_be_stepped = allowed
    if native.module is not None:
        native.module.allow_steps(allowed)


def time_ns(box: memoryview) -> int:
    """Return the time of the node with a mailbox, in ns since 1970."""
    step: int = box[BOX_STEP] if may_be_stepped else 0
    return step if 0 < step < COUNT_LIMIT else _time_ns()


def monotonic_ns(box: memoryview) -> int:
    """Return the time for timeouts of the node with a mailbox: CLOCK_MONOTONIC, or the logical."""
    step: int = box[BOX_STEP] if may_be_stepped else 0
    return step if 0 < step < COUNT_LIMIT else _monotonic_ns()


def sleep_until(box: memoryview, due: int | None) -> int | None:
    """Return when a sleep ends without an event, on CLOCK_MONOTONIC; None if it does not.

    The daemon ends the sleep of a node that is stepped: it learns when that is `due`.
    """
    if not is_stepped(box):
        return due
    box[BOX_DUE] = 0 if due is None else min(due, COUNT_LIMIT - 1)
    return None


def is_stepped(box: memoryview) -> bool:
    """Return True if the node's inputs are served by the age of their messages."""
    return may_be_stepped and box[BOX_STEP] != 0


def is_held(box: memoryview) -> bool:
    """Return True if the node must take no message now."""
    held = may_be_stepped and box[BOX_HELD] != 0
    acquire()
    return held

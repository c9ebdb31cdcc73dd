"""A hybrid logical clock: wall time that never runs backwards or behind a received timestamp.

After Kulkarni et al., "Logical Physical Clocks" (2014), with the logical part kept in the last
nanoseconds: a timestamp is one more than the newest seen whenever the wall clock is not ahead.

A timestamp more than `MAX_AHEAD_NS` ahead of the wall clock does not move the clock. Otherwise one
sender with a wrong clock would move the clocks of all nodes that it reaches, permanently.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from datetime import UTC, datetime

from dorad.node import logbridge
from dorad.shm import stepping
from dorad.shm.layout import BOX_STAMPS_REFUSED, MAX_AHEAD_NS, add_to
from dorad.shm.steps import twin

_log = logging.getLogger(__name__)

_fromtimestamp = datetime.fromtimestamp
_time_ns = time.time_ns
_monotonic_ns = time.monotonic_ns


@twin
class ClockState:
    """The fields of a clock."""

    __slots__ = ("last", "on_refused")


class Clock(ClockState):
    """The clock of one node; timestamps are ns since 1970, UTC.

    `on_refused` is called with each timestamp that is too far ahead.
    """

    __slots__ = ("_box",)

    def __init__(
        self, on_refused: Callable[[int], None] = lambda _: None, box: memoryview | None = None
    ) -> None:
        """With the words of the node's mailbox, the clock is logical while the node is stepped."""
        self._box = box
        self.last = 0
        self.on_refused = on_refused

    def now(self) -> int:
        """Return a timestamp later than all that were returned or seen before."""
        now = self._time_ns()
        if now <= self.last:
            now = self.last + 1
        self.last = now
        return now

    def _time_ns(self) -> int:
        return _time_ns() if self._box is None else stepping.time_ns(self._box)

    def monotonic_ns(self) -> int:
        """Return the time for rates and timeouts: CLOCK_MONOTONIC, or logical as the clock."""
        return _monotonic_ns() if self._box is None else stepping.monotonic_ns(self._box)

    def saw(self, stamp: int) -> None:
        """Advance to another clock's timestamp, unless it is too far ahead."""
        if stamp > self.last:
            if stamp - self._time_ns() > MAX_AHEAD_NS:
                self.on_refused(stamp)
            else:
                self.last = stamp


class StampCounter:
    """Counts the timestamps that a node's clock refuses, and warns about the first."""

    def __init__(self, node_id: str, words: memoryview) -> None:
        """`words` is the node's mailbox."""
        self._node_id = node_id
        self._words = words
        self._warned = False

    def __call__(self, stamp: int) -> None:
        """Count a refused timestamp; the callback for `Clock.on_refused`."""
        add_to(self._words, BOX_STAMPS_REFUSED, 1)
        ahead_s = (stamp - _time_ns()) / 1e9
        _log.debug("refused the timestamp %d, %.3f s ahead", stamp, ahead_s)
        if not self._warned:
            self._warned = True
            text = (
                f"a message is dated {as_datetime(stamp):%Y-%m-%d %H:%M:%S} UTC, {ahead_s:.1f} s "
                "ahead of this machine's clock: such timestamps do not move this node's clock; "
                "check the clock of the sender (`dora node info` counts them)"
            )
            logbridge.emit(logbridge.line(self._node_id, "warn", text))


def as_datetime(stamp: int) -> datetime:
    """Return a timestamp as an aware UTC datetime, with microseconds."""
    return _fromtimestamp(stamp / 1e9, UTC)

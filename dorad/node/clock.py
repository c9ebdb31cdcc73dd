"""A hybrid logical clock: wall time that never runs backwards and never precedes what was seen.

After Kulkarni et al., "Logical Physical Clocks" (2014), with the logical part kept in the last
nanoseconds: a timestamp is one more than the newest seen whenever the wall clock is not ahead.
"""

from __future__ import annotations

import time
from datetime import UTC, datetime

_fromtimestamp = datetime.fromtimestamp
_time_ns = time.time_ns


class Clock:
    """The clock of one node; timestamps are ns since 1970, UTC."""

    __slots__ = ("last",)

    def __init__(self) -> None:
        self.last = 0

    def now(self) -> int:
        """Return a timestamp later than every one given or seen before."""
        now = _time_ns()
        if now <= self.last:
            now = self.last + 1
        self.last = now
        return now

    def saw(self, stamp: int) -> None:
        """Learn of another clock's timestamp."""
        if stamp > self.last:
            self.last = stamp


def as_datetime(stamp: int) -> datetime:
    """Return a timestamp as an aware UTC datetime, to the microsecond."""
    return _fromtimestamp(stamp / 1e9, UTC)

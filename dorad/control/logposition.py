"""The position of a reader of log lines: its next stream continues without loss or repetition.

Lines of several nodes do not arrive in the order of their times. So the next stream begins a little
earlier than the newest line, and lines that are known already are left out.
"""

from __future__ import annotations

import time
from collections import Counter, deque
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from dorad.logrecord import LogRecord

OVERLAP_S = 5.0
"""Seconds by which the next stream begins before the newest line."""
MAX_KNOWN = 20_000
"""Lines that are remembered; with more of them within `OVERLAP_S` the overlap is shorter."""


def own_time(line: LogRecord) -> float:
    """Return the time of a line as it says it."""
    return line.timestamp


def corrected_time(line: LogRecord, ahead: float) -> float:
    """Return when a line was written by the reader's clock; its own is `ahead` by so many seconds.

    At most now: what a clock showed before it was set back must not hide what comes now.
    """
    return min(line.timestamp - ahead, time.time())


class LogPosition:
    """Remembers the newest lines of a stream."""

    def __init__(self, time_of: Callable[[LogRecord], float] = own_time) -> None:
        """`time_of` returns when a line was written by the clock that `since` is meant for."""
        self._time_of = time_of
        self._known: deque[tuple[float, int]] = deque(maxlen=MAX_KNOWN)
        """Time and hash of each line, in the order of arrival."""
        self._newest = 0.0
        self._repeated: Counter[int] = Counter()
        """Hashes of known lines that the current stream may send once more."""

    @property
    def since(self) -> float | None:
        """The time from which the next stream is to be read; None before the first line."""
        if not self._known:
            return None
        earliest = self._newest - OVERLAP_S
        if len(self._known) == MAX_KNOWN:
            earliest = max(earliest, self._known[0][0])
        return max(0.0, earliest)

    def resume(self) -> float | None:
        """Expect the lines of a new stream; return `since`."""
        since = self.since
        if since is not None:
            # Also those before `since`: a clock may have been set, so that they come again.
            self._repeated = Counter(hash_ for _, hash_ in self._known)
        return since

    def take(self, lines: Iterable[LogRecord]) -> list[LogRecord]:
        """Remember the lines of the current stream; return those that are not known yet."""
        fresh = []
        for line in lines:
            hash_ = _hash(line)
            if self._repeated[hash_] > 0:
                self._repeated[hash_] -= 1
                continue
            at = self._time_of(line)
            self._newest = max(self._newest, at)
            self._known.append((at, hash_))
            fresh.append(line)
        return fresh


def _hash(line: LogRecord) -> int:
    """Return the same for a line that is new and for the same line once it is stored.

    Files keep the milliseconds of its time, the journal its microseconds.
    """
    milliseconds = round(line.timestamp * 1e6) // 1000
    return hash((milliseconds, line.machine, line.node, line.message))

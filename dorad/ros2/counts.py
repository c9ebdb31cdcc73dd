"""Counts of what did not get through, which are reported as they grow and once more at the end."""

from __future__ import annotations

import logging
import threading
import time

_log = logging.getLogger(__name__)

REPORT_EVERY_S = 5.0
MAX_PUBLISHERS = 256


class Count:
    """Counts one kind of trouble: the first is reported at once, more at most every 5 s.

    Any thread may count.
    """

    def __init__(self, what: str) -> None:
        """`what` continues a sentence that starts with the number: `messages lost on /image`."""
        self.total = 0
        self._lock = threading.Lock()
        self._what = what
        self._reported = 0
        self._due_s = 0.0

    def add(self, number: int, why: str = "") -> None:
        """Count more of it; `why` is the reason of the last one."""
        with self._lock:
            self.total += number
            _log.debug("%d %s: %s", self.total, self._what, why)
            if time.monotonic() >= self._due_s:
                self._report(why)

    def close(self) -> None:
        """Report what is not reported yet."""
        if self.total > self._reported:
            self._report("")

    def _report(self, why: str) -> None:
        self._reported = self.total
        self._due_s = time.monotonic() + REPORT_EVERY_S
        _log.warning("%d %s%s", self.total, self._what, f": {why}" if why else "")


class Gaps:
    """Finds what is missing between two messages of one publisher.

    ROS 2 reports what its transport loses, but not what a full queue overwrites.
    """

    def __init__(self) -> None:
        self._last: dict[bytes, int] = {}

    def __contains__(self, publisher: bytes) -> bool:
        return publisher in self._last

    def follows(self, publisher: bytes, number: int) -> bool:
        """Return True if nothing is missing before a message with this number."""
        return self._last.get(publisher) == number - 1

    def before(self, publisher: bytes, number: int) -> int:
        """Return how many messages of a publisher are missing before one with this number."""
        last = self._last.pop(publisher, None)
        self._last[publisher] = number
        if len(self._last) > MAX_PUBLISHERS:
            del self._last[next(iter(self._last))]
        return 0 if last is None else max(0, number - last - 1)

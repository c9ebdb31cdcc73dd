"""Values over time, bounded."""

import math
from collections import deque
from collections.abc import Sequence


class Series:
    """The newest values of one figure with their times, in seconds."""

    def __init__(self, seconds: float = 60.0, maximum: int = 2000) -> None:
        """Keep values of the last `seconds`, and at most `maximum`."""
        self._seconds = seconds
        self._points: deque[tuple[float, float]] = deque(maxlen=maximum)

    def add(self, at: float, value: float) -> None:
        """Add a value; one that is older than the last is left out."""
        if self._points and at < self._points[-1][0]:
            return
        self._points.append((at, value))
        while at - self._points[0][0] > self._seconds:
            self._points.popleft()

    def interrupt(self, at: float) -> None:
        """Break the curve before `at`: the values since the last one are not known."""
        if self._points:
            self.add(at, math.nan)

    def __len__(self) -> int:
        return len(self._points)

    @property
    def points(self) -> Sequence[tuple[float, float]]:
        """All points, oldest first."""
        return tuple(self._points)

    @property
    def last(self) -> float | None:
        """The newest value, None without one."""
        return self._points[-1][1] if self._points else None

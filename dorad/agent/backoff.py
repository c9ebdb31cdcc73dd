"""Delays between attempts: random, with an upper bound that doubles each time."""

from __future__ import annotations

from dorad.jitter import between


class Backoff:
    """Full jitter: 1,000 robots that lose one coordinator do not reconnect at the same moment."""

    def __init__(self, *, first: float = 0.2, longest: float = 5.0) -> None:
        """`first` and `longest` are the first and the highest upper bound, in seconds."""
        self._first = first
        self._longest = longest
        self._limit = first

    def next(self) -> float:
        """Return the seconds until the next attempt."""
        delay = between(self._first / 4, self._limit)
        self._limit = min(2 * self._limit, self._longest)
        return delay

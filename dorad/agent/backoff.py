"""Delays between attempts: random, with an upper bound that doubles each time."""

from __future__ import annotations

from dorad.jitter import between

FIRST_S, LONGEST_S = 0.2, 5.0
"""The first and the highest upper bound for a fleet of any size, in seconds."""

MAX_PAUSE_S = 120.0
"""Maximum of what a coordinator can ask for, in seconds."""


class Backoff:
    """Full jitter: 1,000 robots that lose one coordinator do not reconnect at the same moment."""

    def __init__(self, *, first: float = FIRST_S, longest: float = LONGEST_S) -> None:
        """`first` and `longest` are the first and the highest upper bound, in seconds."""
        self._first = first
        self._longest = longest
        self._limit = first

    def next(self) -> float:
        """Return the seconds until the next attempt."""
        delay = between(self._first / 4, self._limit)
        self._limit = min(2 * self._limit, self._longest)
        return delay


def bounded(pause: float) -> float:
    """Return the pause that a coordinator asks for, or the nearest one that is obeyed."""
    # Also if it is not a number.
    return min(pause, MAX_PAUSE_S) if pause > 0 else 0.0


def fleet_backoff(pause: float) -> Backoff:
    """Return the delays of a robot whose whole fleet spreads its tries over `pause` seconds.

    The first try is earlier: most connections that end are those of one robot, and a coordinator
    lets some wait.
    """
    return Backoff(first=max(FIRST_S, bounded(pause) / 4), longest=max(LONGEST_S, bounded(pause)))

"""How far the clock of another machine is ahead, from greetings and their answers.

Pure. Both ends write into a greeting when they sent it, and when they heard the other's last one.
With these four times the difference of the clocks is known but for half of the time that both
greetings were on their way, whatever each of them took.
"""

from collections import deque
from typing import NamedTuple

EXCHANGE_S = 10.0
"""Seconds between two greetings of an open link, for its clocks. An answer comes at once if the
last greeting of the other end is half as old."""
MAX_EXCHANGES = 8
"""Exchanges of which the best is used."""
DRIFT = 1e-4
"""How much faster one clock may be than the other: more than crystals differ."""
MAX_OFFSET_NS = 1 << 62
"""A clock that is further ahead is not believed."""


class Offset(NamedTuple):
    """A clock that is `ns` ahead of ours; the true value differs by at most `margin_ns`."""

    ns: int
    margin_ns: int


class Exchange(NamedTuple):
    """When a greeting was sent and heard, by the sender's and the receiver's clock, in ns."""

    sent: int
    heard: int


class PeerClock:
    """The clock of one other machine."""

    def __init__(self) -> None:
        self._known: deque[tuple[float, Offset]] = deque(maxlen=MAX_EXCHANGES)
        """With the monotonic time of each."""

    def add(self, there: Exchange, back: Exchange, now_s: float) -> None:
        """Take the times of a greeting that we sent, and of the one that answers it."""
        between = back.sent - there.heard
        on_the_way = back.heard - there.sent - between
        offset = ((there.heard - there.sent) + (back.sent - back.heard)) // 2
        if on_the_way < 0 or between < 0 or abs(offset) > MAX_OFFSET_NS:
            return  # a clock was set meanwhile, or the other end is wrong
        new = Offset(offset, on_the_way // 2 + round(between * DRIFT) + 1)
        if any(_differ(new, self._aged(each, at, now_s)) for at, each in self._known):
            self._known.clear()  # one of the clocks was set
        self._known.append((now_s, new))

    def offset(self, now_s: float) -> Offset | None:
        """Return the best that is known; None before the first exchange."""
        aged = [self._aged(each, at, now_s) for at, each in self._known]
        return min(aged, key=lambda each: each.margin_ns, default=None)

    def _aged(self, each: Offset, at: float, now_s: float) -> Offset:
        return each._replace(margin_ns=each.margin_ns + round(max(0.0, now_s - at) * DRIFT * 1e9))


def _differ(one: Offset, other: Offset) -> bool:
    return abs(one.ns - other.ns) > one.margin_ns + other.margin_ns

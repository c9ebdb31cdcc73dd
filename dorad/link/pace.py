"""How much of a channel may be on the way, so that channels share a slow line.

Pure but for the clock that it is given. Whatever waits for a line delays all that comes after it. A
channel with a credit of megabytes could queue seconds of a slow line, and one beside it that waits
for acknowledgements of a few messages would get the rest. So each channel has on the way what its
acknowledgements have shown that the line takes in their round trip, and `QUEUE_S` more:

    limit = rate * (shortest round trip + QUEUE_S)

A line that is faster acknowledges this sooner, so the limit grows by a factor with each round trip;
on a fast network the credit is what limits. The rate falls only while the limit holds data up: a
channel that sends little says nothing about the line.

`LineMeter` measures what comes of it, to be shown.
"""

from collections import deque
from collections.abc import Callable
from typing import NamedTuple

QUEUE_S = 0.1
"""How long the data of a channel may wait for the line."""

MIN_BYTES = 16 << 10
"""What may always be on the way; a line of 1.6 Mbit/s takes it in 0.08 s."""

START_BYTES = 256 << 10
"""The limit until the line is known. Less would hold up the first messages on a fast network, where
an acknowledgement may wait for `INTERVAL_S`; a line of 1.6 Mbit/s takes this in 1.3 s, once."""

INTERVAL_S = 0.05
"""A rate is measured over this, as long as an acknowledgement may wait, or over a round trip."""

SAMPLES = 8
"""The rate is the highest of so many."""

USE_S = 0.5
"""The use of a line is measured over at least this. Reports may follow each other sooner."""


class Pace:
    """The limit of one channel."""

    def __init__(self, clock: Callable[[], float]) -> None:
        """`clock` returns seconds."""
        self.limit = START_BYTES
        """Bytes that may be on the way."""
        self._clock = clock
        self._rates: deque[float] = deque(maxlen=SAMPLES)
        self._trip_s: float | None = None
        """The shortest round trip."""
        self._last_trip_s = 0.0
        self._probe: tuple[int, float, bool] | None = None
        """A byte count whose acknowledgement is awaited, since when, and whether little was on the
        way then."""
        self._begin: tuple[int, float] = (0, 0.0)
        """Bytes that were acknowledged when the present measurement began, and when it did."""
        self._busy = False
        """Whether something was on the way all the time since then."""
        self._limited = False

    def open(self) -> None:
        """Begin to count bytes from 0, over a new connection whose line may be another one."""
        self.limit = START_BYTES
        self._rates.clear()
        self._trip_s = None
        self._last_trip_s = 0.0
        self._probe = None
        self._busy = self._limited = False

    def allows(self, on_the_way: int, size: int, credit: int) -> bool:
        """Return True if so many bytes more may be sent. Without any on the way all may.

        `credit` is how many the other end lets be on the way. Below the limit a message is sent
        whole, however large: otherwise a low limit would never grow.
        """
        within = on_the_way < self.limit and on_the_way + size <= credit
        allowed = not on_the_way or within
        self._limited |= not allowed
        return allowed

    def sent(self, total: int, on_the_way: int, size: int) -> None:
        """Handle that `size` bytes were sent, `total` so far; some are not acknowledged."""
        now_s = self._clock()
        if self._probe is None:
            self._probe = total, now_s, on_the_way - size < MIN_BYTES
        if not self._busy:
            self._busy, self._begin = True, (total - on_the_way, now_s)

    def acknowledged(self, total: int, on_the_way: int) -> None:
        """Handle that bytes were acknowledged: `total` so far; others may be on the way."""
        now_s = self._clock()
        if self._probe is not None and total >= self._probe[0]:
            _, since_s, alone = self._probe
            self._probe = None
            trip_s = self._last_trip_s = now_s - since_s
            # With so little on the way, the trip is that of the line, even if it has become longer.
            if self._trip_s is None or trip_s < self._trip_s or alone:
                self._trip_s = trip_s
        began, begin_s = self._begin
        took_s = now_s - begin_s
        if self._busy and took_s >= max(INTERVAL_S, self._last_trip_s):
            rate = (total - began) / took_s
            if self._limited or rate > max(self._rates, default=0.0):
                self._rates.append(rate)
            self._begin = total, now_s
            self._limited = False
        if not on_the_way:
            self._busy = False
        if self._rates and self._trip_s is not None:
            limit = max(self._rates) * (self._trip_s + QUEUE_S)
            self.limit = max(MIN_BYTES, int(limit))


class Use(NamedTuple):
    """What a channel has done with its line for a while."""

    bytes_per_s: int = 0
    wait: int = 0
    """Percent of the time in which its messages waited for acknowledgements of earlier ones."""


class LineMeter:
    """Measures the use that one channel makes of its line."""

    def __init__(self, clock: Callable[[], float]) -> None:
        """`clock` returns seconds."""
        self._clock = clock
        self._begin_s = self._since_s = clock()
        self._bytes = 0
        """How many had been sent when the present measurement began."""
        self._is_waiting = False
        self._waited_s = 0.0
        self._last = Use()

    def waits(self, is_waiting: bool) -> None:
        """Record whether messages wait from now on."""
        if is_waiting is not self._is_waiting:
            self._add(self._clock())
            self._is_waiting = is_waiting

    def measure(self, total: int) -> Use:
        """Return the use since the last measurement; `total` bytes have been sent so far."""
        now_s = self._clock()
        took_s = now_s - self._begin_s
        if took_s < USE_S:
            return self._last
        self._add(now_s)
        wait = min(100, round(100 * self._waited_s / took_s))
        self._last = Use(round((total - self._bytes) / took_s), wait)
        self._begin_s, self._bytes, self._waited_s = now_s, total, 0.0
        return self._last

    def _add(self, now_s: float) -> None:
        if self._is_waiting:
            self._waited_s += now_s - self._since_s
        self._since_s = now_s

"""How often an output sends, seen from the counters alone: nothing is asked of the dataflow.

Somebody who measures looks at a ring's newest timestamp every 2 ms. One message between two looks
gives the exact interval, by the sender's own clock. Several give the mean of their intervals: for
outputs above about 500 Hz minimum, maximum and deviation are those of short means.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections import deque
from typing import TYPE_CHECKING, NamedTuple

from dorad.control.messages import TopicRate, TopicRates

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Mapping

    from dorad.shm.ring import Counters

    Look = Callable[[], Counters | None]
    """The counters of a ring that an output feeds, None once it is gone."""

LOOK_S = 0.002
REPORT_S = 1.0
_LOOKS = 4
_MOST_GROUPS = 50_000
_MS = 1e6


class _Group(NamedTuple):
    """Messages that came between two looks."""

    at: float
    messages: int
    span_ns: int
    """From the newest one before to the newest one of these."""
    size: int


class TopicMeter:
    """The intervals of one output over the last `window` seconds. Times `at` are monotonic."""

    def __init__(self, window: float) -> None:
        self._window = window
        self._groups: deque[_Group] = deque(maxlen=_MOST_GROUPS)
        self._last: Counters | None = None
        self._last_at = 0.0

    def look(self, at: float, now: Counters) -> None:
        """Take in what the ring counts at `at`."""
        before, self._last = self._last, now
        if before is not None and now.sent == before.sent:
            self._last = before
            return
        if before is not None and before.sent and now.sent > before.sent:
            span = max(now.last_ns - before.last_ns, 0)
            size = now.payload_bytes - before.payload_bytes
            self._groups.append(_Group(at, now.sent - before.sent, span, size))
        elif before is not None and now.sent < before.sent:
            self._groups.clear()  # another ring in the place of the old one
        self._last_at = at

    def rate(self, topic: str, at: float) -> TopicRate:
        """What the window that ends at `at` holds."""
        while self._groups and self._groups[0].at < at - self._window:
            self._groups.popleft()
        count = sum(group.messages for group in self._groups)
        if not count:
            return TopicRate(topic=topic, hz=0.0, bandwidth=0.0, count=0)
        span = sum(group.span_ns for group in self._groups)
        means = [group.span_ns / group.messages for group in self._groups]
        mean = span / count
        square = sum(
            group.messages * (each - mean) ** 2
            for group, each in zip(self._groups, means, strict=True)
        )
        # An output that fell silent slows down, instead of keeping its last rate until the end.
        silence = (at - self._last_at) * 1e9
        whole = span + (silence if silence > max(means) else 0.0)
        hz = count / whole * 1e9 if whole else 0.0
        return TopicRate(
            topic=topic,
            hz=hz,
            bandwidth=sum(group.size for group in self._groups) / count * hz,
            count=count,
            mean_ms=mean / _MS,
            min_ms=min(means) / _MS,
            max_ms=max(means) / _MS,
            std_ms=math.sqrt(square / count) / _MS,
            samples=len(means),
        )


async def measure(looks: Mapping[str, Look], window: float) -> AsyncGenerator[TopicRates, None]:
    """The rates of outputs once a second, until cancelled or closed.

    `looks` gives for each output how to read the counters of one ring that it feeds.
    """
    meters = {topic: TopicMeter(window) for topic in looks}
    due = time.monotonic() + REPORT_S
    while True:
        for topic, look in looks.items():
            counters = _settled(look)
            if counters is not None:
                meters[topic].look(time.monotonic(), counters)
        now = time.monotonic()
        if now >= due:
            due += REPORT_S * math.ceil((now - due) / REPORT_S or 1)
            rates = [meter.rate(topic, now) for topic, meter in meters.items()]
            yield TopicRates(at=time.time(), rates=rates)
        await asyncio.sleep(LOOK_S)


def _settled(look: Look) -> Counters | None:
    """The counters once two looks agree.

    A sender stores the timestamp of a message just before it counts it; what one look finds in
    between would put the new timestamp to the old count.
    """
    now = look()
    for _ in range(_LOOKS):
        again = look()
        if again is None or now is None:
            return again
        if (again.sent, again.last_ns) == (now.sent, now.last_ns):
            break
        now = again
    return now

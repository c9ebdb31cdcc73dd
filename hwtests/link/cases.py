"""What is measured, and how a figure is made of the times that a receiver has printed."""

from __future__ import annotations

import statistics
from typing import NamedTuple

SIZES = (8, 64, 4096, 64 << 10, 1 << 20, 8 << 20)
LARGE = 1 << 20
PACE_S = 0.005
LARGE_PACE_S = 0.1
BYTES = 256 << 20
MAX_MESSAGES = 20_000

Times = list[tuple[int, int]]
"""When each message that arrived was sent and received, in ns."""


class Case(NamedTuple):
    """One thing that is measured."""

    scheme: str
    size: int
    paced: bool

    def count(self, scale: float) -> int:
        """Return how many messages it takes."""
        if self.paced:
            return max(20, int((400 if self.size < LARGE else 60) * scale))
        return max(20, int(min(MAX_MESSAGES, BYTES // self.size) * scale))

    @property
    def interval_s(self) -> float:
        """The pause between two messages."""
        if not self.paced:
            return 0.0
        return PACE_S if self.size < LARGE else LARGE_PACE_S


class Figure(NamedTuple):
    """One result."""

    value: float
    """The median latency in us, or the throughput in MB/s of what has arrived."""
    lost: int
    """Messages that were sent and did not arrive."""


def parse(text: str) -> Times:
    """Return the times that a receiver has printed."""
    lines = [line.split() for line in text.splitlines() if line != "ready"]
    return [(int(sent), int(received)) for sent, received in lines]


def figure(case: Case, times: Times, count: int) -> Figure:
    """Return the result of a measurement of so many messages."""
    if len(times) < 2:
        return Figure(float("nan"), count - len(times))
    if case.paced:
        warm = times[len(times) // 10 :]
        value = statistics.median(received - sent for sent, received in warm) / 1000
    else:
        span_s = (times[-1][1] - times[0][1]) / 1e9
        value = (len(times) - 1) * case.size / span_s / 1e6
    return Figure(value, count - len(times))

"""What is measured, and how a figure is made of the times that a receiver has printed."""

import statistics
from collections.abc import Sequence
from typing import NamedTuple

SIZES = (8, 64, 4096, 64 << 10, 1 << 20, 8 << 20)
QUICK_SIZES = (64, 64 << 10, 1 << 20)
"""The sizes that are measured between network namespaces."""
LARGE = 1 << 20
PACE_S = 0.005
LARGE_PACE_S = 0.1
BYTES = 256 << 20
MAX_MESSAGES = 20_000

Times = list[tuple[int, int]]
"""When each message that arrived was sent and received, in ns."""


class Case(NamedTuple):
    """One thing that is measured."""

    network: str
    """`loopback` or `namespaces`."""
    scheme: str
    size: int
    paced: bool

    def count(self, scale: float) -> int:
        """Return how many messages it takes."""
        if self.paced:
            return max(20, int((300 if self.size < LARGE else 40) * scale))
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
    sent: int


def parse(text: str) -> Times:
    """Return the times that a receiver has printed."""
    lines = [line.split() for line in text.splitlines() if line != "ready"]
    return [(int(sent), int(received)) for sent, received in lines]


def figure(case: Case, times: Times, count: int) -> Figure:
    """Return the result of a measurement of so many messages."""
    lost = count - len(times)
    if len(times) < 2:
        return Figure(float("nan"), lost, count)
    if case.paced:
        warm = times[len(times) // 5 :]
        value = statistics.median(received - sent for sent, received in warm) / 1000
    else:
        # From the first send: a system that keeps everything until the end is not faster for it.
        span_s = (times[-1][1] - min(sent for sent, _ in times)) / 1e9
        value = len(times) * case.size / span_s / 1e6
    return Figure(value, lost, count)


def cases(networks: Sequence[str], schemes: Sequence[str], sizes: Sequence[int]) -> list[Case]:
    """Return all cases of one round; between namespaces only some sizes, without TLS."""
    found = []
    for network in networks:
        apart = network != "loopback"
        for scheme in schemes:
            if apart and scheme == "tls":
                continue
            chosen = [size for size in sizes if size in QUICK_SIZES] if apart else sizes
            found += [
                Case(network, scheme, size, paced) for paced in (True, False) for size in chosen
            ]
    return found

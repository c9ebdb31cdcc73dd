"""Rates, latency and jitter of edges, from successive samples of their counters."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, NamedTuple

from dorad.control.messages import EdgeStats
from dorad.int64 import clamped
from dorad.shm import latencies
from dorad.shm.latencies import Percentiles, percentiles

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from dorad.daemon.broker.readings import EdgeCounters

WINDOW_S = 5.0
"""Time span of the rates."""

TOLD = 0.2
"""Share by which a figure of an alert has to change to be told again: each text is sent to all who
watch, and read by people."""

_NS = 1e9


class Rates(NamedTuple):
    """Traffic of an edge per second over some time; latency and jitter in seconds."""

    seconds: float
    rate: float = 0.0
    drop_rate: float = 0.0
    bandwidth: float = 0.0
    latency: float | None = None
    jitter: float | None = None
    percentiles: Percentiles | None = None


def between(seconds: float, first: EdgeCounters, last: EdgeCounters) -> Rates:
    """Return the rates of an edge whose counters went from `first` to `last` in `seconds` (> 0).

    Latency is the mean of the messages received meanwhile, jitter the mean difference of successive
    latencies; None for too few messages.
    """
    received = last.received - first.received
    # The very first message has no predecessor to differ from.
    differences = received - (1 if first.received == 0 else 0)
    return Rates(
        seconds,
        (last.sent - first.sent) / seconds,
        (last.dropped - first.dropped) / seconds,
        (last.payload_bytes - first.payload_bytes) / seconds,
        (last.latency_sum - first.latency_sum) / received / _NS if received > 0 else None,
        (last.latency_diff - first.latency_diff) / differences / _NS if differences > 0 else None,
        percentiles(latencies.between(first.latencies, last.latencies)),
    )


def told(now: float, last: float | None) -> float:
    """Return the figure to tell: the `last` one told as long as the present one is about that."""
    return now if last is None or abs(now - last) > TOLD * last else last


class EdgeHistory:
    """Samples of all edges over the last seconds. Add one once a second."""

    def __init__(self, window: float = WINDOW_S) -> None:
        self._window = window
        self._samples: dict[str, deque[tuple[float, EdgeCounters]]] = {}

    def add(self, at: float, counters: Iterable[EdgeCounters]) -> None:
        """Add the counters of all current edges, read at `at` (monotonic seconds)."""
        seen: dict[str, deque[tuple[float, EdgeCounters]]] = {}
        for now in counters:
            name = f"{now.source_node}/{now.output} {now.node}/{now.input}"
            samples = self._samples.get(name) or deque()
            if samples and now.sent < samples[-1][1].sent:
                samples.clear()  # the edge was removed and added again
            samples.append((at, now))
            while len(samples) > 2 and samples[1][0] <= at - self._window:
                samples.popleft()
            seen[name] = samples
        self._samples = seen

    @property
    def window(self) -> float:
        """Longest time that current rates cover, in seconds."""
        return max((s[-1][0] - s[0][0] for s in self._samples.values()), default=0.0)

    def stats(
        self, dataflow: str, broken: Iterable[str] = (), *, name: str | None = None
    ) -> list[EdgeStats]:
        """Return all edges of the last sample, as the control API reports them.

        `broken` names inputs, as `node/input`, that an input timeout has closed.
        """
        broken_inputs = frozenset(broken)
        return [
            _stats(dataflow, name, samples[-1][1], _rates(samples), broken_inputs)
            for samples in self._samples.values()
        ]


def _rates(samples: deque[tuple[float, EdgeCounters]]) -> Rates:
    (began, first), (ended, last) = samples[0], samples[-1]
    return between(ended - began, first, last) if ended > began else Rates(0.0)


def _stats(
    dataflow: str,
    name: str | None,
    now: EdgeCounters,
    rates: Rates,
    broken: frozenset[str],
) -> EdgeStats:
    target = f"{now.node}/{now.input}"
    slowest = rates.percentiles
    # Nodes can write anything into the memory that counts.
    return EdgeStats(
        dataflow=dataflow,
        dataflow_name=name,
        source=f"{now.source_node}/{now.output}",
        target=target,
        queue_size=now.queue_size,
        sent=clamped(now.sent),
        received=clamped(now.received),
        dropped=clamped(now.dropped),
        queued=clamped(now.queued),
        payload=clamped(now.payload_bytes),
        rate=rates.rate,
        drop_rate=rates.drop_rate,
        bandwidth=rates.bandwidth,
        latency=rates.latency,
        jitter=rates.jitter,
        latency_p50=slowest and slowest.p50 / _NS,
        latency_p99=slowest and slowest.p99 / _NS,
        latency_worst=slowest and slowest.worst / _NS,
        latency_sum=clamped(now.latency_sum) / _NS,
        latencies=without_zeros(now.latencies),
        broken=target in broken,
        unreadable=clamped(now.unreadable),
        lost=clamped(now.lost),
    )


def without_zeros(counts: Sequence[int]) -> list[int]:
    """Return counts for a message: without zeros at the end, and none beyond its integers."""
    used = max((at for at, count in enumerate(counts) if count), default=-1)
    return [clamped(count) for count in counts[: used + 1]]

"""How late nodes take the ticks of their timers, as `dora top` shows it for each node."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable

    from dorad.daemon.broker.readings import Lateness

WINDOW_S = 5.0
"""Time span of the delay and jitter figures."""

_NS = 1e9


class Ticks(NamedTuple):
    """How late a node takes its timer ticks. Times in seconds; None after too few ticks.

    `delay` is the mean time from when a tick was due until the node took it, `jitter` the mean
    difference of successive delays. `worst` and `missed` cover all ticks since the start.
    """

    missed: int
    worst: float
    delay: float | None = None
    jitter: float | None = None


class _Totals(NamedTuple):
    received: int
    late: int
    difference: int


class TickHistory:
    """Samples of the nodes of one dataflow over the last seconds. Add one once a second."""

    def __init__(self, window: float = WINDOW_S) -> None:
        self._window = window
        self._samples: dict[str, deque[tuple[float, _Totals]]] = {}
        self._now: dict[str, Ticks] = {}

    def add(self, at: float, found: Iterable[Lateness]) -> None:
        """Add the counters of all timers, read at `at` (monotonic seconds)."""
        by_node: dict[str, list[Lateness]] = {}
        for each in found:
            by_node.setdefault(each.node, []).append(each)
        samples: dict[str, deque[tuple[float, _Totals]]] = {}
        self._now = {}
        for node, timers in by_node.items():
            kept = samples[node] = self._samples.get(node) or deque()
            totals = _Totals(
                sum(each.received for each in timers),
                sum(each.sum for each in timers),
                sum(each.diff for each in timers),
            )
            if kept and totals.received < kept[-1][1].received:
                kept.clear()  # a timer was removed
            kept.append((at, totals))
            while len(kept) > 2 and kept[1][0] <= at - self._window:
                kept.popleft()
            missed = sum(each.missed for each in timers)
            worst = max(each.most for each in timers) / _NS
            self._now[node] = Ticks(missed, worst, *_means(kept[0][1], totals))
        self._samples = samples

    def ticks(self, node: str) -> Ticks | None:
        """Return the figures of a node; None if it has no timer."""
        return self._now.get(node)


def _means(first: _Totals, last: _Totals) -> tuple[float | None, float | None]:
    count = last.received - first.received
    if count <= 0:
        return None, None
    late = (last.late - first.late) / count / _NS
    return late, (last.difference - first.difference) / count / _NS

"""The figures of nodes and edges over the last ten minutes, one point every five seconds.

They are in memory alone: a daemon that is restarted begins anew. A node or an edge that is gone
keeps its curve until the ten minutes are over, so it can be seen what came before its end.
"""

import math
from array import array
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import NamedTuple

from dorad.control import messages as m

STEP_S = 5.0
"""Seconds between two points; the rates of one point cover about as long."""
POINTS = 120
MAX_SERIES = 4096
"""Nodes and edges that are kept; 2 kB each. Others are counted."""
MAX_ANSWERED = 256
"""Nodes and edges in one answer."""


class Key(NamedTuple):
    """A node, or an edge from an output to an input, of a dataflow."""

    dataflow: str
    source: str
    """`node/output`; of a node its id."""
    target: str = ""
    """`node/input`; empty for a node."""

    def concerns(self, node: str) -> bool:
        """Return True if it is this node, or begins or ends at it."""
        ends = (self.source, self.target)
        return any(end.partition("/")[0] == node for end in ends)


class _Series:
    """The points of one node or edge, those of each field one after the other."""

    def __init__(self, fields: int) -> None:
        self.last = 0
        self._fields = fields
        self._values = array("f", [math.nan]) * (POINTS * fields)

    def set(self, slot: int, values: Sequence[float | None]) -> None:
        for field, value in enumerate(values):
            self._values[field * POINTS + slot % POINTS] = math.nan if value is None else value
        self.last = slot

    def forget(self, slot: int) -> None:
        for field in range(self._fields):
            self._values[field * POINTS + slot % POINTS] = math.nan

    def curves(self, newest: int, points: int = POINTS) -> list[list[float | None]]:
        """Return points of each field, the oldest first, with four digits.

        Fewer than all are each the largest of their part of the time.
        """
        first = newest - POINTS + 1
        ends = [first + place * POINTS // points for place in range(points + 1)]
        parts = [range(*each) for each in pairwise(ends)]
        return [[self._point(field, slots) for slots in parts] for field in range(self._fields)]

    def _point(self, field: int, slots: range) -> float | None:
        values = [self._values[field * POINTS + slot % POINTS] for slot in slots]
        known = [value for value in values if math.isfinite(value)]
        return float(f"{max(known):.4g}") if known else None


class History:
    """The curves of all nodes and edges of a daemon."""

    def __init__(self) -> None:
        self._series: dict[Key, _Series] = {}
        self._slot = 0
        self._left_out = 0
        self._whole = _Series(4)
        """Sums of all nodes and edges, and the longest latency."""

    def due(self, now: float) -> bool:
        """Return True if the next point is to be added; `now` is in monotonic seconds."""
        return int(now / STEP_S) > self._slot

    def add(
        self,
        now: float,
        nodes: Mapping[tuple[str, str], m.NodeMetrics],
        edges: Sequence[m.EdgeStats],
    ) -> None:
        """Add a point; `nodes` are named by dataflow and node."""
        before, self._slot = self._slot, int(now / STEP_S)
        for slot in range(max(before + 1, self._slot - POINTS + 1), self._slot + 1):
            # Also those in which nothing was measured: the machine stood still, or slept.
            for series in (self._whole, *self._series.values()):
                series.forget(slot)
        self._left_out = 0
        for (dataflow, node), each in nodes.items():
            self._set(Key(dataflow, node), (each.cpu, float(each.memory)))
        for edge in edges:
            values = (edge.rate, edge.drop_rate, edge.latency_p50, edge.latency_p99)
            self._set(Key(edge.dataflow, edge.source, edge.target), values)
        if nodes or edges:
            latencies = [each.latency_p99 for each in edges if each.latency_p99 is not None]
            sums = (
                sum(each.cpu for each in nodes.values()),
                sum(each.rate for each in edges),
                sum(each.drop_rate for each in edges),
                max(latencies, default=None),
            )
            self._whole.set(self._slot, sums)
        old = self._slot - POINTS
        self._series = {key: each for key, each in self._series.items() if each.last > old}

    def _set(self, key: Key, values: Sequence[float | None]) -> None:
        series = self._series.get(key)
        if series is None:
            if len(self._series) >= MAX_SERIES:
                self._left_out += 1
                return
            series = self._series[key] = _Series(len(values))
        series.set(self._slot, values)

    def whole(self) -> m.RobotCurves:
        """Return the curves of all nodes and edges together."""
        return m.RobotCurves(*self._whole.curves(self._slot, m.ROBOT_POINTS))

    def read(self, dataflow: str | None, node: str | None, at: float, points: int = 0) -> m.History:
        """Return the curves of a dataflow or a node; `at` is the time now, in Unix seconds.

        `points` is their number in each curve, 0 for all.
        """
        points = min(max(0, points), POINTS) or POINTS
        wanted = [
            (key, each)
            for key, each in self._series.items()
            if dataflow in (None, key.dataflow) and (node is None or key.concerns(node))
        ]
        answer = m.History(
            at=at,
            step=STEP_S * POINTS / points,
            left_out=self._left_out + max(0, len(wanted) - MAX_ANSWERED),
        )
        for key, series in wanted[:MAX_ANSWERED]:
            first, second, *latencies = series.curves(self._slot, points)
            if latencies:
                p50, p99 = latencies
                answer.edges.append(m.EdgeCurves(*key, first, second, p50, p99))
            else:
                answer.nodes.append(m.NodeCurves(key.dataflow, key.source, first, second))
        return answer

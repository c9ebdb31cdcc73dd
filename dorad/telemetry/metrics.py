"""From the figures of `dora top` to metrics of OpenTelemetry, as functions of data."""

from __future__ import annotations

import math
import socket
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from opentelemetry.sdk.metrics.export import (
    AggregationTemporality,
    Gauge,
    Histogram,
    HistogramDataPoint,
    Metric,
    MetricsData,
    NumberDataPoint,
    ResourceMetrics,
    ScopeMetrics,
    Sum,
)

from dorad.telemetry.instruments import (
    OF_DATAFLOWS,
    OF_EXPORTER,
    OF_MACHINE,
    OF_NODES,
    OF_NODES_IN_DORA,
    OF_RECEIVERS,
    OF_SENDERS,
    Labels,
    Machine,
    Own,
    Row,
    Times,
    Value,
    message_labels,
)
from dorad.telemetry.resources import SCOPE, Resources

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from opentelemetry.sdk.metrics import Exemplar
    from opentelemetry.sdk.resources import Resource

    from dorad.control.messages import Top
    from dorad.telemetry.exemplars import Exemplars

Point = NumberDataPoint | HistogramDataPoint
T = TypeVar("T")

MIN_BITS, MAX_BITS = 10, 34
BOUNDS = tuple(((1 << bits) - 1) / 1e9 for bits in range(MIN_BITS, MAX_BITS + 1))
"""Upper bounds of latencies in seconds, from 1 us to 17 s, each twice the one before."""


class _Known(NamedTuple):
    start: int
    value: float


class Collector:
    """Makes metric data of successive measurements.

    It remembers since when each counter counts: a counter that has fallen began anew after the
    measurement before.
    """

    def __init__(self, resources: Resources, began: int, exemplars: Exemplars) -> None:
        """`began` is when the exporter started, in nanoseconds since 1970."""
        self._resources = resources
        self._exemplars = exemplars
        self._began = began
        self._dataflows: dict[str, int] = {}
        """When the first node of each dataflow was started."""
        self._counters: dict[Any, _Known] = {}
        self._last = began

    def collect(self, top: Top, machine: Machine, own: Own) -> MetricsData:
        """Return all metrics of one measurement."""
        now = int(top.at * 1e9)
        self._note_starts(top)
        self._resources.forget(self._dataflows)
        metrics: dict[Resource, dict[Row[Any], list[Point]]] = {}
        counters: dict[Any, _Known] = {}
        for resource, row, labels, value, began in self._readings(top, machine, own):
            count = sum(value.counts) if isinstance(value, Times) else value
            if not math.isfinite(count):
                continue
            key = (resource, row.name, *sorted(labels.items()))
            start = began
            if row.kind in ("counter", "histogram"):
                known = self._counters.get(key)
                if known is not None:
                    start = known.start if count >= known.value else self._last
                counters[key] = _Known(start, count)
            point: Point
            if isinstance(value, Times):
                flow = str(resource.attributes["dora.dataflow.id"])
                of = labels["messaging.operation.name"], labels["dora.edge.target"]
                known_slow = self._exemplars.of(flow, *of)
                point = histogram_point(value, labels, start, now, known_slow)
            else:
                point = NumberDataPoint(labels, start, now, value)
            metrics.setdefault(resource, {}).setdefault(row, []).append(point)
        self._counters, self._last = counters, now
        return MetricsData(
            [
                ResourceMetrics(
                    resource,
                    [ScopeMetrics(SCOPE, [metric_of(*each) for each in rows.items()], "")],
                    "",
                )
                for resource, rows in metrics.items()
            ]
        )

    def _note_starts(self, top: Top) -> None:
        first: dict[str, int] = {}
        for node in top.nodes:
            started = self._began if node.started_at is None else int(node.started_at * 1e9)
            first[node.dataflow] = min(started, first.get(node.dataflow, started))
        self._dataflows = {uuid: self._dataflows.get(uuid, each) for uuid, each in first.items()}

    def _readings(
        self, top: Top, machine: Machine, own: Own
    ) -> Iterator[tuple[Resource, Row[Any], Labels, Value, int]]:
        resources = self._resources
        here = {(node.dataflow, node.node) for node in top.nodes}
        sizes: dict[str, int] = {}
        for node in top.nodes:
            resource = resources.of(node.dataflow, node.dataflow_name, node.node)
            began = self._dataflows[node.dataflow]
            as_dora = {"dataflow": node.dataflow, "node": node.node, "daemon": socket.gethostname()}
            sizes[node.dataflow] = sizes.get(node.dataflow, 0) + 1
            for row in OF_NODES:
                yield from _read(resource, row, node, {}, began)
            for row in OF_NODES_IN_DORA:
                yield from _read(resource, row, node, as_dora, began)
        for edge in top.edges:
            source, target = edge.source.partition("/")[0], edge.target.partition("/")[0]
            for node_id, rows, operation in (
                (source, OF_SENDERS, "send"),
                (target, OF_RECEIVERS, "receive"),
            ):
                if (edge.dataflow, node_id) in here:
                    resource = resources.of(edge.dataflow, edge.dataflow_name, node_id)
                    labels = message_labels(operation, edge.source, edge.target)
                    for of_edge in rows:
                        yield from _read(
                            resource, of_edge, edge, labels, self._dataflows[edge.dataflow]
                        )
        for uuid, size in sizes.items():
            for of_flow in OF_DATAFLOWS:
                labels = {"dataflow": uuid}
                yield from _read(resources.machine, of_flow, size, labels, self._began)
        boot = int((top.at - machine.uptime) * 1e9)
        for of_machine in OF_MACHINE:
            yield from _read(resources.machine, of_machine, machine, {}, boot)
        for of_exporter in OF_EXPORTER:
            yield from _read(resources.machine, of_exporter, own, {}, self._began)


def _read(
    resource: Resource, row: Row[T], subject: T, labels: Labels, began: int
) -> Iterator[tuple[Resource, Row[Any], Labels, Value, int]]:
    values = row.read(subject)
    if isinstance(values, list):
        for more, value in values:
            yield resource, row, labels | more, value, began
    elif values is not None:
        yield resource, row, labels, values, began


def histogram_point(
    times: Times, labels: Labels, start: int, now: int, exemplars: Sequence[Exemplar] = ()
) -> HistogramDataPoint:
    """Return times by the explicit bounds that every backend knows."""
    buckets = [0] * (len(BOUNDS) + 1)
    for bits, count in enumerate(times.counts):
        buckets[min(max(bits - MIN_BITS, 0), len(BOUNDS))] += count
    # Neither the shortest nor the longest is known exactly.
    unknown: Any = None
    return HistogramDataPoint(
        labels, start, now, sum(buckets), times.total, buckets, BOUNDS, unknown, unknown, exemplars
    )


def metric_of(row: Row[Any], points: list[Any]) -> Metric:
    """Return a metric with all its points."""
    if row.kind == "gauge":
        return Metric(row.name, row.text, row.unit, Gauge(points))
    temporality = AggregationTemporality.CUMULATIVE
    if row.kind == "histogram":
        return Metric(row.name, row.text, row.unit, Histogram(points, temporality))
    return Metric(row.name, row.text, row.unit, Sum(points, temporality, row.kind == "counter"))


def point_count(data: MetricsData) -> int:
    """Return the number of values in it."""
    return sum(
        len(metric.data.data_points)
        for of_resource in data.resource_metrics
        for scope in of_resource.scope_metrics
        for metric in scope.metrics
    )

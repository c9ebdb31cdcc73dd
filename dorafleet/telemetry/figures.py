"""From the load of robots, instances and labels to metrics, as functions of data.

A figure of each node and edge of a fleet would be millions of series: robots send those themselves.
Here a metric has one series for each robot, instance or value of a label, up to `MAX_ROWS` of each;
how many more there are is a metric, too.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

from opentelemetry.sdk.metrics.export import (
    MetricsData,
    NumberDataPoint,
    ResourceMetrics,
    ScopeMetrics,
)

from dorad.telemetry.instruments import OF_EXPORTER, Labels, Own, Row, Times
from dorad.telemetry.metrics import metric_of
from dorad.telemetry.resources import SCOPE

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from opentelemetry.sdk.resources import Resource

    from dorafleet.coordinator.loadmessages import FleetLoad, FleetLoads

MAX_ROWS = 2_000
"""Robots, instances, and values of each label that have series."""
MAX_OF_ROBOT = 100
"""Instances of one robot among them: it names its dataflows itself."""
MAX_NAME = 256
"""Characters of a name; a longer one is left out, as two could become the same."""

ROBOT, INSTANCE = "robot", "instance"
"""By what load is added up, besides the keys of labels."""

OF_ROBOTS: tuple[Row[FleetLoad], ...] = (
    Row(
        "up",
        "",
        "gauge",
        "1 if the robot was measured; else 0, and it has no other figure",
        lambda load: int(not load.missing),
    ),
    Row(
        "clock.offset",
        "s",
        "gauge",
        "Seconds by which the robot's clock is ahead of the coordinator's",
        lambda load: load.offset,
    ),
)
"""Of a robot only."""

OF_GROUPS: tuple[Row[FleetLoad], ...] = (
    Row("robots", "{robot}", "updown", "Its robots", lambda load: load.robots),
    Row(
        "robots.missing",
        "{robot}",
        "updown",
        "Its robots that were not measured, and are in no other figure",
        lambda load: len(load.missing),
    ),
    Row(
        "clock.spread",
        "s",
        "gauge",
        "Seconds between its clock that is most ahead and the one that is most behind",
        lambda load: load.offset,
    ),
)
"""Of an instance or a label only."""

OF_ALL: tuple[Row[FleetLoad], ...] = (
    Row("nodes", "{node}", "updown", "Its nodes", lambda load: load.nodes),
    Row("nodes.failed", "{node}", "updown", "Nodes that have failed", lambda load: load.failed),
    Row("node.restarts", "{restart}", "updown", "Restarts of nodes", lambda load: load.restarts),
    Row(
        "cpu.cores",
        "",
        "gauge",
        "Processors that its nodes use",
        lambda load: None if load.cpu is None else load.cpu / 100,
    ),
    Row("memory", "By", "updown", "Memory of its nodes", lambda load: load.memory),
    Row("message.rate", "", "gauge", "Messages sent a second", lambda load: load.rate),
    Row("byte.rate", "", "gauge", "Bytes sent a second", lambda load: load.bandwidth),
    Row("drop.rate", "", "gauge", "Messages displaced a second", lambda load: load.drop_rate),
    Row("messages.sent", "{message}", "updown", "Messages sent", lambda load: load.sent),
    Row("payload.sent", "By", "updown", "Bytes of the messages sent", lambda load: load.payload),
    Row(
        "messages.dropped",
        "{message}",
        "updown",
        "Messages that full queues displaced",
        lambda load: load.dropped,
    ),
    Row(
        "messages.lost",
        "{message}",
        "updown",
        "Messages lost between machines",
        lambda load: load.lost,
    ),
    Row(
        "latency.p99",
        "s",
        "gauge",
        "Of the slowest edge: 99 % of its messages took at most so long",
        lambda load: load.latency_p99,
    ),
)
"""Sums, without the robots that are missing: of rows with a robot that was measured."""

LEFT_OUT: Row[Mapping[str, int]] = Row(
    "dora.fleet.left_out",
    "{row}",
    "gauge",
    "Robots, instances and labels without series, because there are too many of them",
    lambda counts: [({"dora.fleet.by": by}, count) for by, count in counts.items()],
)


class Chosen(NamedTuple):
    """The rows that have series, and how many have none."""

    rows: list[FleetLoad]
    left_out: int


def choose(rows: Iterable[FleetLoad], by: str) -> Chosen:
    """Return the first rows, each of another name that is not too long."""
    chosen: dict[str, FleetLoad] = {}
    of_robots: Counter[str] = Counter()
    left_out = 0
    for row in rows:
        robot = row.name.partition("/")[0] if by == INSTANCE else row.name
        full = len(chosen) >= MAX_ROWS or of_robots[robot] >= MAX_OF_ROBOT
        if full or row.name in chosen or len(row.name) > MAX_NAME:
            left_out += 1
            continue
        of_robots[robot] += 1
        chosen[row.name] = row
    return Chosen([*chosen.values()], left_out)


def fleet_metrics(
    loads: Mapping[str, FleetLoads], own: Own, resource: Resource, began: int
) -> MetricsData:
    """Return the metrics of one measurement; `loads` has it by robot, instance and labels.

    `began` is when the exporter started, in ns since 1970.
    """
    points: dict[Row[Any], list[Any]] = {}

    def add(row: Row[Any], subject: Any, labels: Labels, at: int) -> None:
        values = row.read(subject)
        if not isinstance(values, list):
            values = [] if values is None else [({}, values)]
        for more, value in values:
            assert not isinstance(value, Times)
            point = NumberDataPoint({**labels, **more}, began, at, value)
            points.setdefault(row, []).append(point)

    left_out: dict[str, int] = {}
    now = began
    for by, load in loads.items():
        now = int(load.at * 1e9)
        chosen, left_out[by] = choose(load.rows, by)
        first, figures = _rows_of(by)
        for each in chosen:
            labels = _labels(by, each.name)
            measured = each.cpu is not None
            for row in (*first, *figures) if measured else first:
                add(row, each, labels, now)
    add(LEFT_OUT, left_out, {}, now)
    for of_exporter in OF_EXPORTER:
        add(of_exporter, own, {}, now)
    scope = ScopeMetrics(SCOPE, [metric_of(*each) for each in points.items()], "")
    return MetricsData([ResourceMetrics(resource, [scope], "")])


def _rows_of(by: str) -> list[list[Row[FleetLoad]]]:
    """Return the metrics of each row, and those of a row with a robot that was measured."""
    # Names of their own: a sum over one metric must count no message twice.
    what = by if by in (ROBOT, INSTANCE) else "label"
    return [
        [replace(row, name=f"dora.{what}.{row.name}") for row in table]
        for table in (OF_ROBOTS if by == ROBOT else OF_GROUPS, OF_ALL)
    ]


def _labels(by: str, name: str) -> Labels:
    if by == ROBOT:
        return {"dora.robot.id": name}
    if by == INSTANCE:
        return {"dora.instance.name": name}
    return {"dora.label.key": by, "dora.label.value": name}

"""Whole messages that are drawn from their types: whatever a server sends can be shown."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dorad.control import messages as m
from dorad.control.filters import Value, parse
from dorad.control.topparts import edge_cells, node_cells, reduction
from dorad.logrecord import filter_cells
from dorad.terminal import visible
from dorafleet.console.model import alerts, places, plans, targets, topology
from dorafleet.console.model.commands import ACTIONS
from dorafleet.console.model.fleet import FleetStore
from dorafleet.console.model.logwindow import LogWindow
from dorafleet.console.model.order import FLEET_ORDERS
from dorafleet.console.view import (
    alertrows,
    auditrows,
    curves,
    flowrows,
    loglines,
    paramrows,
    planlines,
    releaserows,
    robotlines,
    rolloutlines,
    rolloutrows,
    tables,
    tracerows,
    values,
    words,
)
from dorafleet.console.view.glyphs import ASCII, UNICODE
from dorafleet.console.view.graph import graph, overview
from dorafleet.console.view.plot import plot
from dorafleet.console.view.rows import PREFIX, Column, Row, Span, fitted, line, plain
from dorafleet.coordinator.messages import AuditPage, AuditRecord
from dorafleet.rollout.messages import ReleaseList, RolloutPlan, RolloutUpdate
from tests.console.fakefleet import edge as made_edge
from tests.harness.drawing import anything, messages

NOW = 1_800_000_000.0
EDGE = made_edge("arm", "a/out", "b/in")
WIDE = 80
FILTERS = [parse(text) for text in ("a", "!x", "since<10m", "cpu>5", "size>1k", "node~a.*")]


def table(
    columns: Sequence[Column], rows: Iterable[Row], cells: Iterable[dict[str, Value]] = ()
) -> Iterator[list[Span]]:
    """Yield the lines of a table, after its rows were filtered; all are equally wide."""
    for each in cells:
        for wanted in FILTERS:
            wanted.matches(each)
    shown = fitted(columns, WIDE)
    for row in rows:
        yield line(row, shown)
        assert words.width(plain(line(row, shown))) == PREFIX + sum(x.wide + 1 for x in shown)


def fleet(found: m.FleetRows) -> Iterator[list[Span]]:
    rows = FleetStore().take(found).rows
    for key in FLEET_ORDERS.values():
        sorted(rows.values(), key=key)
    releaserows.users(rows.values())
    targets.with_release(targets.Target("arm001/pick"), rows)
    places.with_dataflow("logs", ["a"], rows)
    for stale in (False, True):
        yield from table(
            tables.FLEET,
            [tables.fleet_row(row, NOW, stale=stale) for row in rows.values()],
            [tables.fleet_cells(row, NOW) for row in rows.values()],
        )
        for row in rows.values():
            yield from robotlines.inspector_lines(row, NOW, stale=stale)
            yield from robotlines.lines(row, row.robot, NOW, WIDE, stale=stale)


def top(found: m.Top) -> Iterator[list[Span]]:
    reduction(m.TopWatch(order="drops"))(found)
    topology.worst_first(found.edges)
    yield from table(tables.NODES, map(tables.node_row, found.nodes), map(node_cells, found.nodes))
    yield from table(tables.EDGES, map(tables.edge_row, found.edges), map(edge_cells, found.edges))
    drawn = topology.topology(found.nodes, found.edges)
    worst = topology.worst_node(drawn)
    yield from graph(drawn, UNICODE, worst).lines
    yield from overview(drawn, ASCII, worst, WIDE, 24).lines
    if worst is not None:
        yield from graph(drawn.around(worst), ASCII, worst, WIDE).lines


def alert(found: m.PastAlerts) -> Iterator[list[Span]]:
    needed = alerts.by_need(found.alerts)
    cells = [alertrows.cells(each, NOW) for each in needed]
    yield from table(alertrows.COLUMNS, [alertrows.row(each, NOW) for each in needed], cells)
    yield from table(alertrows.PAST_COLUMNS, map(alertrows.past_row, found.alerts))
    yield from alertrows.past_lines(found.alerts)
    yield alertrows.heading(found.alerts, WIDE, UNICODE, quiet="all is well")


def audit(found: AuditPage) -> Iterator[list[Span]]:
    cells = [auditrows.cells(each, NOW) for each in found.records]
    yield from table(auditrows.COLUMNS, map(auditrows.row, found.records), cells)


def dataflows(found: m.DataflowList) -> Iterator[list[Span]]:
    flows = flowrows.arranged(found.dataflows)
    cells = [flowrows.cells(each, NOW) for each in flows]
    yield from table(flowrows.COLUMNS, [flowrows.row(each, NOW) for each in flows], cells)


def logs(found: m.LogLines) -> Iterator[list[Span]]:
    loglines.are_of_today([each.timestamp for each in found.lines], NOW)
    yield from loglines.clocks(found.skew)
    window = LogWindow()
    for entry in window.add(map(loglines.shortened, found.lines)):
        list(table((), (), [filter_cells(entry.record, NOW)]))
        yield loglines.spans(entry, loglines.LineLook(8, 8, dated=True, needle="a"))
        nodes = (entry.record.node or "", "other")
        yield loglines.spans(entry, loglines.LineLook(8, beside=nodes, columns=WIDE))
        yield from loglines.details(entry, WIDE)


def history(found: m.History) -> Iterator[list[Span]]:
    for each in (*map(curves.of_edge, found.edges), *map(curves.of_node, found.nodes)):
        yield curves.line("arm", each, WIDE, ascii_only=True)
    cells = [cell for each in found.edges for cell in tables.edge_row(EDGE, each).cells]
    yield [(each.text, each.style) for each in cells]
    for edge in found.edges:
        yield from plot({"p99": curves.timed(edge.latency_p99, 5.0)}, WIDE, 24, 595.0)


def robot_history(found: m.RobotHistory) -> Iterator[list[Span]]:
    row = m.FleetRow(robot="arm")
    for each in found.robots.values():
        yield curves.line("arm", curves.of_robot(each), WIDE, ascii_only=True)
        rows = [tables.fleet_row(row, NOW, curves=each)]
        yield from table((*tables.FLEET, *tables.FLEET_CURVES), rows)


def traces(found: m.TraceList) -> Iterator[list[Span]]:
    cells = [tracerows.cells(each) for each in found.traces]
    rows = [tracerows.row(each, ascii_only=False) for each in found.traces]
    yield from table(tracerows.COLUMNS, rows, cells)
    yield [(tracerows.losses(found.counts), "")]
    for each in found.traces:
        tracerows.last_node(each)
        for ascii_only in (True, False):
            yield from tracerows.waterfall(each, None, WIDE, ascii_only=ascii_only)


def plans_of(found: m.DataflowDetail | m.NodeDetail) -> Iterator[list[Span]]:
    names = ("stop-dataflow", "stop-node")
    for action in ACTIONS:
        if action.name == names[isinstance(found, m.NodeDetail)]:
            yield [(words.clean(plans.text(action, [found, found], {})), "")]


def params(found: m.ParamList) -> Iterator[list[Span]]:
    cells = [paramrows.cells("camera", each) for each in found.params]
    rows = [paramrows.row("id", "camera", each) for each in found.params]
    yield from table(paramrows.COLUMNS, rows, cells)


def plan(found: RolloutPlan) -> Iterator[list[Span]]:
    robots = planlines.in_order(found.robots)
    cells = [planlines.cells(found, each) for each in robots]
    yield from planlines.lines(found, NOW, WIDE, 24)
    yield from table(planlines.COLUMNS, [planlines.row(found, each) for each in robots], cells)


def releases(found: ReleaseList) -> Iterator[list[Span]]:
    cells = [releaserows.cells(each, {}, {}, NOW) for each in found.releases]
    rows = [releaserows.row(each, {}, {}, NOW) for each in found.releases]
    yield from table(releaserows.COLUMNS, rows, cells)


def rollout(found: RolloutUpdate) -> Iterator[list[Span]]:
    robots = rolloutlines.worst_first(found.robots)
    cells = [rolloutlines.cells(each, NOW) for each in robots]
    for each in found.rollouts:
        yield from rolloutlines.lines(each, NOW, WIDE, found.rollouts)
    yield from table(rolloutlines.COLUMNS, [rolloutlines.row(each, NOW) for each in robots], cells)
    heads = rolloutrows.newest_first(found.rollouts)
    cells = [rolloutrows.cells(each, NOW) for each in heads]
    yield from table(rolloutrows.COLUMNS, map(rolloutrows.row, heads), cells)
    for each in heads:
        yield from rolloutrows.lines(each, NOW, WIDE)


def message(found: m.TopicHeader) -> Iterator[list[Span]]:
    yield values.line(values.read(found, None, 1, (80, 48))[0])


@pytest.mark.parametrize(
    ("kind", "show"),
    [
        (m.FleetRows, fleet),
        (m.Top, top),
        (m.PastAlerts, alert),
        (AuditPage, audit),
        (m.DataflowList, dataflows),
        (m.LogLines, logs),
        (m.History, history),
        (m.RobotHistory, robot_history),
        (m.TraceList, traces),
        (m.DataflowDetail, plans_of),
        (m.NodeDetail, plans_of),
        (m.ParamList, params),
        (RolloutPlan, plan),
        (ReleaseList, releases),
        (RolloutUpdate, rollout),
        (m.TopicHeader, message),
    ],
)
def test_any_message_of_a_type_is_shown_and_all_its_characters_are_visible(
    kind: type, show: Callable[[Any], Iterator[list[Span]]]
) -> None:
    @given(messages(kind))
    @settings(max_examples=settings().max_examples // 3)
    def shown(found: Any) -> None:
        for text, _ in chain.from_iterable(show(found)):
            assert visible(text) == text

    shown()


RECORDS = st.fixed_dictionaries(
    {},
    optional={
        **dict.fromkeys(("time", "peer", "user", "expires", "client"), anything),
        "action": anything | st.just("desired.set"),
        "content": anything | st.dictionaries(st.sampled_from(("enabled", "generation")), anything),
    },
)


@given(RECORDS)
def test_any_record_of_the_audit_is_shown(record: dict[str, Any]) -> None:
    list(audit(AuditPage(records=[AuditRecord(sequence=1, hash="", record=record)], head="")))

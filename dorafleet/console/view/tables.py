"""The tables of the screens: their columns, and from data to rows."""

from collections.abc import Iterable

from dorad.control.filters import Value
from dorad.control.messages import (
    EdgeCurves,
    EdgeStats,
    FleetRow,
    InterfaceRates,
    NodeCurves,
    NodeInfo,
    RobotCurves,
)
from dorafleet.console.model.targets import shown_dataflows
from dorafleet.console.view import words
from dorafleet.console.view.curves import CELL, cell
from dorafleet.console.view.glyphs import STATES
from dorafleet.console.view.rows import Cell, Column, Row, Span

FLEET = (
    Column("state", "STATE", 9),
    Column("robot", "ROBOT", 8, grow=1, most=24),
    Column("why", "WHY", 24, grow=4),
    Column("since", "SINCE", 6, right=True, drop=1),
    Column("dataflow", "DATAFLOW", 8, grow=2, drop=4),
    Column("release", "RELEASE", 10, grow=4, drop=6),
    Column("nodes", "NODES", 7, right=True, drop=3),
    Column("cpu", "CPU%", 4, right=True, drop=5),
    Column("drops", "DROP/s", 6, right=True, drop=2),
    Column("seen", "SEEN", 6, right=True, drop=7),
)
FLEET_CURVES = (
    Column("cpu_10m", "CPU 10 MIN", CELL, drop=8, spare=16),
    Column("p99_10m", "P99 10 MIN", CELL, drop=9, spare=16),
    Column("rate_10m", "RATE 10 MIN", CELL, drop=10, spare=16),
    Column("drops_10m", "DROPS 10 MIN", CELL, drop=11, spare=16),
)
"""Columns that follow those, with bars of the last ten minutes. No row is filtered by them."""
CURVES = tuple(column.key for column in FLEET_CURVES)

NODES = (
    Column("node", "NODE", 16, grow=3, most=24),
    Column("robot", "ROBOT", 8, most=24),
    Column("status", "STATUS", 10),
    Column("cpu", "CPU%", 6, right=True),
    Column("memory", "MEM(MB)", 8, right=True, drop=3),
    Column("restarts", "RESTARTS", 8, right=True, drop=2),
    Column("queue", "QUEUE", 6, right=True, drop=4),
    Column("missed", "MISSED", 6, right=True, drop=6),
    Column("pid", "PID", 7, right=True, drop=7),
    Column("disk", "DISK R/W B/s", 12, right=True, drop=8),
    Column("net", "NET TX/RX B/s", 13, right=True, drop=9),
    Column("dataflow", "DATAFLOW", 12, grow=1, drop=5),
    Column("cpu_10m", "CPU 10 MIN", CELL, drop=8, spare=8),
)

EDGES = (
    Column("edge", "EDGE", 24, grow=3),
    Column("robot", "ROBOT", 8, most=24),
    Column("rate", "RATE/s", 7, right=True),
    Column("drops", "DROP/s", 6, right=True),
    Column("dropped", "DROPPED", 8, right=True, drop=3),
    Column("queue", "QUEUE", 7, right=True, drop=2),
    Column("latency", "LATENCY", 8, right=True, drop=1),
    Column("jitter", "JITTER", 8, right=True, drop=6),
    Column("bandwidth", "B/s", 7, right=True, drop=5),
    Column("dataflow", "DATAFLOW", 8, grow=1, drop=4),
    Column("p99_10m", "P99 10 MIN", CELL, drop=7, spare=8),
    Column("rate_10m", "RATE 10 MIN", CELL, drop=8, spare=8),
    Column("drops_10m", "DROPS 10 MIN", CELL, drop=9, spare=8),
)

_NODE_STYLE = {
    "running": "ok",
    "degraded": "warn",
    "restarting": "warn",
    "failed": "fail",
    "starting": "update",
    "pending": "unreach",
    "stopped": "dim",
}


def state_text(state: str) -> str:
    """Return the letter and the word of a state."""
    letter, word = STATES[state]
    return f"{letter} {word}"


def varied(releases: Iterable[str]) -> frozenset[str]:
    """Return the names of releases of which robots have several versions, such as `pick`."""
    values: dict[str, set[str]] = {}
    for text in set(releases):
        for each in text.split(", "):
            values.setdefault(each.partition("@")[0], set()).add(each)
    return frozenset(name for name, versions in values.items() if len(versions) > 1)


def fleet_row(
    row: FleetRow,
    now: float,
    *,
    stale: bool = False,
    varied: frozenset[str] = frozenset(),
    curves: RobotCurves | None = None,
    ascii_only: bool = False,
) -> Row:
    """Return the row of a robot; of a `stale` one only how it was is known.

    Of several releases the first one that is `varied` is shown in narrow columns.
    """
    known = row.known
    state, why = str(row.state), row.why
    if stale:
        was = "well" if state == "ok" else state_text(state)[2:]
        state, why = "stale", f"was {was}" + (f": {why}" if why else "")
    seen = "-" if stale else "now" if row.state != "unreach" else _ago(row.seen_at, now)
    return Row(
        row.robot,
        (
            Cell(state_text(state), state),
            Cell(row.robot, "name"),
            Cell(why or "-", "" if why else "dim", short="" if stale else _brief(row)),
            Cell(_ago(row.since, now)),
            Cell(shown_dataflows(row) or "-", short=_number(row.dataflow, "flows")),
            Cell(row.release or "-", short=_release(row.release, varied)),
            Cell(f"{row.running if known else '-'}/{row.nodes}"),
            Cell(words.percent(row.cpu if known else None)),
            Cell(
                words.rate(row.drops if known else None),
                "warn" if known and row.drops else "",
            ),
            Cell(seen),
            cell(curves.cpu if curves else (), ascii_only=ascii_only),
            *_traffic(curves, ascii_only=ascii_only),
        ),
        "dim" if row.state == "unreach" else "",
    )


def _traffic(curves: RobotCurves | EdgeCurves | None, *, ascii_only: bool) -> list[Cell]:
    """Return the bars of a robot's or an edge's latency, rate and drops."""
    if curves is None:
        return [Cell("")] * 3
    return [
        cell(curves.latency_p99, "line4", ascii_only=ascii_only),
        cell(curves.rate, "line2", ascii_only=ascii_only),
        cell(curves.drop_rate, "line3", ascii_only=ascii_only),
    ]


def _brief(row: FleetRow) -> str:
    """Return the node and the line that tells why it failed, for a column that is narrow."""
    worst = row.findings[0] if row.findings else None
    return f"{worst.node}: {worst.error}" if worst and worst.error and row.state == "fail" else ""


def fleet_cells(row: FleetRow, now: float) -> dict[str, Value]:
    """Return the cells by which robots are filtered; labels are `label.NAME` and `NAME`."""
    cells: dict[str, Value] = {
        "state": row.state,
        "robot": row.robot,
        "why": row.why,
        "since": None if row.since is None else max(0.0, now - row.since),
        "dataflow": _names(row.dataflow),
        "release": _names(row.release),
        "instance": tuple(row.instances),
        "nodes": row.nodes,
        "running": row.running,
        "cpu": row.cpu if row.known else None,
        "memory": row.memory if row.known else None,
        "drops": row.drops if row.known else None,
        "seen": None if row.seen_at is None else max(0.0, now - row.seen_at),
        "version": row.version,
        "finding": tuple(f"{each.cause}:{each.subject}" for each in row.findings),
    }
    for name, value in row.labels.items():
        cells[f"label.{name}"] = value
        cells.setdefault(name.lower(), value)
    return cells


FLEET_KEYS = (
    *(column.key for column in FLEET),
    "instance",
    "running",
    "memory",
    "version",
    "finding",
)


def node_row(info: NodeInfo, curves: NodeCurves | None = None, *, ascii_only: bool = False) -> Row:
    """Return the row of a node."""
    style = _NODE_STYLE.get(info.status, "")
    missed, used = info.deadline_misses, info.metrics
    return Row(
        node_id(info),
        (
            Cell(info.node, "name"),
            Cell(info.machine or "-"),
            Cell(_status(info), style),
            Cell(f"{info.metrics.cpu:.1f}"),
            Cell(f"{info.metrics.memory / 1e6:.1f}"),
            Cell(str(info.restarts), "warn" if info.restarts else ""),
            Cell(str(info.pending)),
            Cell("-" if missed is None else str(missed), "warn" if missed else ""),
            Cell("-" if info.pid is None else str(info.pid)),
            Cell(f"{words.count(used.disk_read)}/{words.count(used.disk_write)}"),
            Cell(
                f"{words.count(used.net_tx)}/{words.count(used.net_rx)}" if used.net_known else "-"
            ),
            Cell(info.dataflow_name or info.dataflow[:8]),
            cell(curves.cpu if curves else (), ascii_only=ascii_only),
        ),
    )


def node_id(info: NodeInfo) -> str:
    """Return what names a node on a screen."""
    return f"{info.dataflow}/{info.node}/{info.machine or ''}"


def _status(info: NodeInfo) -> str:
    if info.dynamic and info.pid is None:
        return "dynamic"
    return info.status


def interface_lines(interfaces: Iterable[InterfaceRates]) -> list[list[Span]]:
    """Return one line with the traffic of network interfaces, the busiest first."""
    spans: list[Span] = []
    for each in sorted(interfaces, key=lambda each: -(each.received + each.sent)):
        where = f"{each.machine} " if each.machine else ""
        traffic = f"{words.count(each.received)}/{words.count(each.sent)}"
        spans += [(f"  {where}{each.name} ", "name"), (traffic, "")]
        if each.dropped:
            spans.append((f" drops {words.rate(each.dropped)}/s", "warn"))
    return [[(" NET RX/TX B/s", "head"), *spans]] if spans else []


def edge_row(edge: EdgeStats, curves: EdgeCurves | None = None, *, ascii_only: bool = False) -> Row:
    """Return the row of an edge."""
    broken, losses = edge.broken, edge.losses
    dropped = words.count(edge.dropped) + (f"+{words.count(losses)}" if losses else "")
    return Row(
        edge_id(edge),
        (
            Cell(
                ("broken " if broken else "") + f"{edge.source} -> {edge.target}",
                "fail" if broken else "name",
            ),
            Cell(edge.machine or "-"),
            Cell(words.rate(edge.rate)),
            Cell(words.rate(edge.drop_rate), "warn" if edge.drop_rate else ""),
            Cell(dropped, "fail" if losses else "warn" if edge.dropped else ""),
            Cell(f"{edge.queued}/{edge.queue_size}"),
            Cell(words.milliseconds(edge.latency)),
            Cell(words.milliseconds(edge.jitter)),
            Cell(words.count(edge.bandwidth)),
            Cell(edge.dataflow_name or edge.dataflow[:8]),
            *_traffic(curves, ascii_only=ascii_only),
        ),
    )


def edge_id(edge: EdgeStats) -> str:
    """Return what names an edge on a screen."""
    return f"{edge.dataflow} {edge.source} {edge.target} {edge.machine or ''}"


def _names(listed: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in listed.split(","))


def _release(text: str, varied: frozenset[str]) -> str:
    names = text.split(", ")
    of = next((each for each in names if each.partition("@")[0] in varied), None)
    if of is None or len(names) == 1:
        return _number(text, "releases")
    return f"{of} +{len(names) - 1}"


def _number(names: str, what: str) -> str:
    """Return how many names there are; empty for one, whose beginning says more."""
    commas = names.count(", ")
    return f"{commas + 1} {what}" if commas else ""


def _ago(at: float | None, now: float) -> str:
    return words.age(None if at is None else now - at)

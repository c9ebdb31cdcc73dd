"""The tables of the screens: their columns, and from data to rows."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dorafleet.console.view import words
from dorafleet.console.view.glyphs import STATES
from dorafleet.console.view.rows import Cell, Column, Row

if TYPE_CHECKING:
    from collections.abc import Iterable

    from dorad.control.filters import Value
    from dorad.control.messages import EdgeStats, FleetRow, NodeInfo

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
    Column("dataflow", "DATAFLOW", 12, grow=1, drop=5),
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
    found: dict[str, set[str]] = {}
    for text in set(releases):
        for each in text.split(", "):
            found.setdefault(each.partition("@")[0], set()).add(each)
    return frozenset(name for name, versions in found.items() if len(versions) > 1)


def fleet_row(
    row: FleetRow, now: float, *, stale: bool = False, varied: frozenset[str] = frozenset()
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
            Cell(why or "-", "" if why else "dim"),
            Cell(_ago(row.since, now)),
            Cell(row.dataflow or "-", short=_number(row.dataflow, "flows")),
            Cell(row.release or "-", short=_release(row.release, varied)),
            Cell(f"{row.running if known else '-'}/{row.nodes}"),
            Cell(words.percent(row.cpu if known else None)),
            Cell(
                words.rate(row.drops if known else None),
                "warn" if known and row.drops else "",
            ),
            Cell(seen),
        ),
        "dim" if row.state == "unreach" else "",
    )


def fleet_cells(row: FleetRow, now: float) -> dict[str, Value]:
    """Return the cells by which robots are filtered; labels are `label.NAME` and `NAME`."""
    cells: dict[str, Value] = {
        "state": row.state,
        "robot": row.robot,
        "why": row.why,
        "since": None if row.since is None else max(0.0, now - row.since),
        "dataflow": _names(row.dataflow),
        "release": _names(row.release),
        "nodes": row.nodes,
        "running": row.running,
        "cpu": row.cpu if row.known else None,
        "memory": row.memory if row.known else None,
        "drops": row.drops if row.known else None,
        "seen": None if row.seen_at is None else max(0.0, now - row.seen_at),
        "version": row.version,
    }
    for name, value in row.labels.items():
        cells[f"label.{name}"] = value
        cells.setdefault(name.lower(), value)
    return cells


FLEET_KEYS = (
    *("state", "robot", "why", "since", "dataflow", "release", "nodes", "running"),
    *("cpu", "memory", "drops", "seen", "version"),
)


def node_row(info: NodeInfo) -> Row:
    """Return the row of a node."""
    style = _NODE_STYLE.get(info.status, "")
    missed = info.deadline_misses
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
            Cell(info.dataflow_name or info.dataflow[:8]),
        ),
    )


def node_id(info: NodeInfo) -> str:
    """Return what names a node on a screen."""
    return f"{info.dataflow}/{info.node}/{info.machine or ''}"


def _status(info: NodeInfo) -> str:
    if info.dynamic and info.pid is None:
        return "dynamic"
    return info.status


def edge_row(edge: EdgeStats) -> Row:
    """Return the row of an edge."""
    broken = edge.broken
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
            Cell(words.count(edge.dropped), "warn" if edge.dropped else ""),
            Cell(f"{edge.queued}/{edge.queue_size}"),
            Cell(words.milliseconds(edge.latency)),
            Cell(words.milliseconds(edge.jitter)),
            Cell(words.count(edge.bandwidth)),
            Cell(edge.dataflow_name or edge.dataflow[:8]),
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

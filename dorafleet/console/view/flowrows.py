"""Dataflows as rows: those that run, then those that have ended."""

from collections.abc import Iterable
from typing import NamedTuple

from dorad.control.filters import Value
from dorad.control.messages import DataflowInfo, FleetRow
from dorad.natural import natural
from dorad.phrases import first_of
from dorafleet.console.model.targets import dataflows_of
from dorafleet.console.view import words
from dorafleet.console.view.rows import Cell, Column, Row
from dorafleet.coordinator.deploymentmessages import DeploymentInfo

COLUMNS = (
    Column("dataflow", "DATAFLOW", 12, grow=2, most=24),
    Column("source", "SOURCE", 16, grow=1, most=32, drop=1),
    Column("status", "STATUS", 12),
    Column("nodes", "NODES", 5, right=True),
    Column("cpu", "CPU%", 6, right=True, drop=2),
    Column("memory", "MEM(MB)", 8, right=True, drop=3),
    Column("since", "SINCE", 6, right=True),
    Column("robots", "ROBOTS", 20, grow=4, drop=1),
    Column("uuid", "UUID", 8, drop=4),
)
KEYS = tuple(column.key for column in COLUMNS)

MAX_MACHINES = 8
"""Robots that a row names."""

_STYLES = {
    "running": "ok",
    "failed": "fail",
    "starting": "update",
    "stopping": "update",
    "finished": "dim",
}


class RobotFlow(NamedTuple):
    """A dataflow that robots run by themselves, from a release or begun there."""

    name: str
    robots: tuple[str, ...]
    """In their natural order."""

    @property
    def id(self) -> str:
        """What no UUID is: names the row."""
        return f"robots/{self.name}"


def on_robots(rows: Iterable[FleetRow], listed: Iterable[DataflowInfo]) -> list[RobotFlow]:
    """Return the dataflows that robots run now and the server does not list, by name."""
    known: set[tuple[str, str]] = set()
    for info in listed:
        if info.active:
            known.update((name(info), machine) for machine in info.machines or ("",))
    robots: dict[str, list[str]] = {}
    for row in rows:
        for each in dataflows_of(row) if row.known else ():
            if known.isdisjoint(((each, row.robot), (each, ""))):
                robots.setdefault(each, []).append(row.robot)
    return [RobotFlow(each, tuple(sorted(robots[each], key=natural))) for each in sorted(robots)]


def name(info: DataflowInfo) -> str:
    """Return the name of a dataflow; without one, the beginning of its UUID."""
    return info.name or info.uuid[:8]


def title(info: DataflowInfo) -> str:
    """Return what names a run in questions: several that have ended may have the same name."""
    return f"{info.name} ({info.uuid[:8]})" if info.name else info.uuid


def arranged(dataflows: Iterable[DataflowInfo]) -> list[DataflowInfo]:
    """Return dataflows in an order: what runs by name, then what has ended, the last one first."""
    return sorted(
        dataflows, key=lambda each: (not each.active, -(each.ended_at or 0.0), natural(name(each)))
    )


def released(listed: Iterable[DeploymentInfo]) -> dict[str, str]:
    """Return the release of each deployment that has one, by name."""
    return {each.name: f"release {each.label}" for each in listed if each.source == "release"}


def cells(info: DataflowInfo, now: float, source: str = "") -> dict[str, Value]:
    """Return the cells by which dataflows are filtered."""
    return {
        "dataflow": info.name or "",
        "source": source,
        "status": info.status,
        "nodes": info.nodes,
        "cpu": info.cpu,
        "memory": info.memory,
        "since": max(0.0, now - (info.ended_at or info.started_at)),
        "robots": tuple(info.machines),
        "uuid": info.uuid,
    }


def row(info: DataflowInfo, now: float, source: str = "") -> Row:
    """Return the row of a dataflow. Its time is since its start, or since its end."""
    running = info.active
    return Row(
        info.uuid,
        (
            Cell(name(info), "name"),
            Cell(source),
            Cell(info.status, _STYLES.get(info.status, "")),
            Cell(str(info.nodes) if running else "-"),
            Cell(f"{info.cpu:.1f}" if running else "-"),
            Cell(f"{info.memory / 1e6:.1f}" if running else "-"),
            Cell(words.age(now - (info.ended_at or info.started_at))),
            Cell(first_of(info.machines, MAX_MACHINES) or "-"),
            Cell(info.uuid[:8], "dim"),
        ),
        "" if running else "dim",
    )


def robot_cells(flow: RobotFlow, source: str = "") -> dict[str, Value]:
    """Return the cells by which a dataflow of robots is filtered."""
    return {
        "dataflow": flow.name,
        "source": source,
        "status": "running",
        "robots": flow.robots,
    }


def robot_row(flow: RobotFlow, source: str = "") -> Row:
    """Return the row of a dataflow of robots: its figures are on their screens."""
    none = Cell("-", "dim")
    robots = Cell(first_of(flow.robots, MAX_MACHINES))
    figures = (none, none, none, none, robots, none)
    cells = (Cell(flow.name, "name"), Cell(source), Cell("running", "ok"), *figures)
    return Row(flow.id, cells)

"""Dataflows as rows: those that run, then those that have ended."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dorad.natural import natural
from dorad.phrases import first_of
from dorafleet.console.view import words
from dorafleet.console.view.rows import Cell, Column, Row

if TYPE_CHECKING:
    from collections.abc import Iterable

    from dorad.control.filters import Value
    from dorad.control.messages import DataflowInfo

COLUMNS = (
    Column("dataflow", "DATAFLOW", 12, grow=2, most=24),
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


def name(info: DataflowInfo) -> str:
    """Return the name of a dataflow; without one, the beginning of its UUID."""
    return info.name or info.uuid[:8]


def title(info: DataflowInfo) -> str:
    """Return what names a run in questions: several that have ended may have the same name."""
    return f"{info.name} ({info.uuid[:8]})" if info.name else info.uuid


def arranged(found: Iterable[DataflowInfo]) -> list[DataflowInfo]:
    """Return dataflows in an order: what runs by name, then what has ended, the last one first."""
    return sorted(
        found, key=lambda each: (not each.active, -(each.ended_at or 0.0), natural(name(each)))
    )


def cells(info: DataflowInfo, now: float) -> dict[str, Value]:
    """Return the cells by which dataflows are filtered."""
    return {
        "dataflow": info.name or "",
        "status": info.status,
        "nodes": info.nodes,
        "cpu": info.cpu,
        "memory": info.memory,
        "since": max(0.0, now - (info.ended_at or info.started_at)),
        "robots": tuple(info.machines),
        "uuid": info.uuid,
    }


def row(info: DataflowInfo, now: float) -> Row:
    """Return the row of a dataflow. Its time is since its start, or since its end."""
    running = info.active
    return Row(
        info.uuid,
        (
            Cell(name(info), "name"),
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

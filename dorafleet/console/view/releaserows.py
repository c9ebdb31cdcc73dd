"""Registered releases as rows."""

from collections import Counter
from collections.abc import Iterable, Mapping

from dorad.control.filters import Value
from dorad.control.messages import FleetRow
from dorad.phrases import first_of, size_text
from dorafleet.console.view import words
from dorafleet.console.view.rows import Cell, Column, Row
from dorafleet.coordinator.deploymentmessages import DeploymentInfo
from dorafleet.rollout.messages import ReleaseInfo

COLUMNS = (
    Column("release", "RELEASE", 12, grow=1, most=32),
    Column("robots", "ROBOTS", 6, right=True),
    Column("instances", "INSTANCES", 9, grow=1, most=24, drop=2),
    Column("age", "AGE", 6, right=True),
    Column("by", "BY", 8, grow=1, most=20, drop=3),
    Column("size", "SIZE", 9, right=True, drop=4),
    Column("nodes", "NODES", 20, grow=4, drop=1),
    Column("id", "ID", 12, drop=5),
)
KEYS = tuple(column.key for column in COLUMNS)

MAX_NAMES = 8
"""Nodes that a row names."""


def label(info: ReleaseInfo) -> str:
    """Return what a release is called: `pick@4`."""
    return f"{info.name}@{info.sequence}"


def users(rows: Iterable[FleetRow]) -> Counter[str]:
    """Return how many robots run each release."""
    return Counter(name for row in rows for name in row.release.split(", ") if name)


def deployed(deployments: Iterable[DeploymentInfo]) -> dict[str, str]:
    """Return how many instances of its deployment run, or are to run, each release: `3/4 each`."""
    counts: dict[str, str] = {}
    for each in deployments:
        if each.source != "release":
            continue
        running = Counter(one.release for one in each.instances)
        running[each.label] += 0
        for name, count in running.items():
            counts[name] = f"{count}/{len(each.instances)} {each.scope}"
    return counts


def cells(
    info: ReleaseInfo, used: Mapping[str, int], instances: Mapping[str, str], now: float
) -> dict[str, Value]:
    """Return the cells by which releases are filtered."""
    return {
        "release": label(info),
        "robots": used.get(label(info), 0),
        "instances": instances.get(label(info), ""),
        "age": max(0.0, now - info.put_at),
        "by": info.by,
        "size": info.size,
        "nodes": tuple(info.nodes),
        "id": info.id,
    }


def row(
    info: ReleaseInfo, used: Mapping[str, int], instances: Mapping[str, str], now: float
) -> Row:
    """Return the row of a release."""
    robots = used.get(label(info), 0)
    return Row(
        info.id,
        (
            Cell(label(info), "name"),
            Cell(str(robots), "ok" if robots else "dim"),
            Cell(instances.get(label(info), "-")),
            Cell(words.age(now - info.put_at)),
            Cell(info.by),
            Cell(size_text(info.size)),
            Cell(first_of(info.nodes, MAX_NAMES)),
            Cell(info.id[:12], "dim"),
        ),
    )

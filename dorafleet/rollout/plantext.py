"""A plan of a rollout as lines for people: for the commands, and for the console."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dorad.phrases import first_of, size_text

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from dorad.release.changes import Changes
    from dorafleet.rollout.messages import PlannedRobot, RolloutPlan

MAX_NAMES = 8
"""Names in one list."""

PLAN_COLUMNS = ("Robot", "Batch", "From", "To", "Nodes", "Bytes", "Free", "Note")


def batch_name(batch: int | None) -> str:
    """Return a batch for people."""
    return "-" if batch is None else "canary" if batch == 0 else str(batch)


def robot_name(robot: str, instance: str) -> str:
    """Return a robot for people, with the instance that it runs with others."""
    return f"{robot} ({instance})" if instance else robot


def plan_row(plan: RolloutPlan, robot: PlannedRobot) -> tuple[str, ...]:
    """Return a row under `PLAN_COLUMNS`."""
    new = plan.names.get(plan.release.id, plan.release.id[:12])
    if robot.changes is None:
        return (robot.robot, "-", "-", "-", "untouched", "0", "-", robot.note)
    changes = plan.changes[robot.changes]
    before = plan.names.get(robot.before, robot.before[:12]) if robot.before else "nothing"
    nodes = [
        f"{len(names)} {what}"
        for names, what in (
            (changes.added, "added"),
            (changes.replaced, "replaced"),
            (changes.removed, "removed"),
            (
                {line.partition("/")[0] for line in changes.inputs}.difference(changes.replaced),
                "with other inputs",
            ),
            (changes.untouched, "untouched"),
            (changes.uncompared, "not compared"),
        )
        if names
    ]
    return (
        robot_name(robot.robot, robot.instance),
        batch_name(robot.batch),
        before,
        new,
        ", ".join(nodes) or "none",
        f"{changes.size:,}",
        "-" if robot.room is None else size_text(robot.room),
        robot.note,
    )


def left_out_line(plan: RolloutPlan) -> str:
    """Return which robots a rollout leaves out although they lack the release; or an empty text."""
    from dorafleet.rollout.plan import HAS_IT

    left = [each for each in plan.robots if each.batch is None and each.note != HAS_IT]
    return f"left out: {_some([f'{each.robot} ({each.note})' for each in left])}" if left else ""


def placement_lines(plan: RolloutPlan) -> Iterator[str]:
    """Yield which nodes are placed on each machine of instances over several."""
    for robot in plan.robots:
        if robot.nodes:
            yield f"{robot.instance} on {robot.robot}: {_some(robot.nodes)}"


def file_lines(plan: RolloutPlan) -> Iterator[str]:
    """Yield which way robots get their files, each way once."""
    ways: dict[str, list[str]] = {}
    for robot in plan.robots:
        if robot.files:
            ways.setdefault(robot.files, []).append(robot.robot)
    for way, robots in ways.items():
        yield f"files over {way}: {_some(robots)}"
    if plan.no_files:
        yield f"the coordinator lacks files for robots that no command reaches: {plan.no_files}"
        yield f"  dorafleet release upload {plan.names.get(plan.release.id, plan.release.id[:12])}"
    if plan.no_copy:
        yield f"these coordinators have no copy of the files yet: {_some(plan.no_copy)}"


def change_lines(changes: Changes, robots: Sequence[str]) -> Iterator[str]:
    """Yield what changes, for the robots where it is the same."""
    yield f"{_some(robots)}:"
    for title, names in (
        ("nodes added", changes.added),
        ("nodes replaced", changes.replaced),
        ("nodes removed", changes.removed),
        ("inputs changed", changes.inputs),
        ("nodes untouched", changes.untouched),
        ("files added", changes.files_added),
        ("files changed", changes.files_changed),
        ("files removed", changes.files_removed),
        ("packages", changes.packages),
        ("parameters", changes.params),
    ):
        if names:
            yield f"  {title}: {_some(names)}"
    if changes.uncompared:
        yield f"  cannot compare inputs of {_some(changes.uncompared)}: {changes.uncompared_why}"
    if changes.empty:
        yield "  nothing: the content is the same"


def _some(names: Sequence[str]) -> str:
    return first_of(names, MAX_NAMES)

"""The plan of a rollout: what changes in a few lines, and its robots as rows."""

import textwrap
from collections.abc import Iterable

from dorad.control.filters import Value
from dorad.natural import natural
from dorafleet.console.view import words
from dorafleet.console.view.rows import Cell, Column, Row, Span
from dorafleet.console.view.words import clean
from dorafleet.rollout.messages import PlannedRobot, RolloutPlan
from dorafleet.rollout.plantext import change_lines, plan_row

COLUMNS = (
    Column("robot", "ROBOT", 10, grow=1, most=24),
    Column("batch", "BATCH", 6, right=True),
    Column("from", "FROM", 10, grow=1),
    Column("to", "TO", 10, grow=1),
    Column("nodes", "NODES", 22, grow=2, drop=2),
    Column("bytes", "BYTES", 12, right=True, drop=3),
    Column("free", "FREE", 9, right=True, drop=4),
    Column("note", "NOTE", 20, grow=4),
)
KEYS = tuple(column.key for column in COLUMNS)

MAX_CHANGES = 8
"""Lines about what changes; `dorafleet plan` prints all."""


def switching(plan: RolloutPlan) -> list[str]:
    """Return the robots that would switch, in the order in which they do."""
    return [each.robot for each in in_order(plan.robots) if each.batch is not None]


def in_order(robots: Iterable[PlannedRobot]) -> list[PlannedRobot]:
    """Return robots in the order in which they switch, then those that are left out."""
    return sorted(
        robots,
        key=lambda x: (x.batch is None, -1 if x.batch is None else x.batch, natural(x.robot)),
    )


def lines(plan: RolloutPlan, now: float, columns: int, rows: int) -> list[list[Span]]:
    """Return the release, how it would be rolled out, and what changes on which robots.

    On a low terminal they leave room for the robots.
    """
    info = plan.release
    limits = f"at most {plan.parallel} at a time, {plan.tolerated} may fail, none of the canaries"
    above: list[list[Span]] = [
        [
            (f" {clean(info.name)}@{info.sequence}  ", "title"),
            (
                f"{clean(info.id[:12])}   by {clean(info.by)}, {words.age(now - info.put_at)} ago",
                "dim",
            ),
        ],
        [(f" {limits}", "")],
    ]
    if plan.supersedes:
        numbers = ", ".join(map(str, plan.supersedes))
        above.append([(f" it would supersede rollout {numbers}", "warn")])
    changes = [
        part
        for place, each in enumerate(plan.changes)
        for line in change_lines(each, [x.robot for x in plan.robots if x.changes == place])
        for part in textwrap.wrap(clean(line), max(columns - 2, 20), subsequent_indent="    ")
    ]
    limit = min(MAX_CHANGES, rows // 4)
    above += [[(f" {each}", "dim")] for each in changes[:limit]]
    if len(changes) > limit:
        more = words.counted(len(changes) - limit, "line")
        above.append([(f"   and {more} more; `y` copies the command that prints all", "dim")])
    return [*above, []]


def cells(plan: RolloutPlan, robot: PlannedRobot) -> dict[str, Value]:
    """Return the cells by which robots of a plan are filtered."""
    texts = dict(zip(KEYS, plan_row(plan, robot), strict=True))
    switched = 0 if robot.changes is None else plan.changes[robot.changes].size
    return {**texts, "bytes": switched, "free": robot.room}


def row(plan: RolloutPlan, robot: PlannedRobot) -> Row:
    """Return the row of a robot."""
    texts = plan_row(plan, robot)
    left_out = robot.batch is None
    styles = ("name", *[""] * (len(texts) - 2), "" if left_out or not robot.note else "warn")
    cells_ = tuple(Cell(text or "-", style) for text, style in zip(texts, styles, strict=True))
    return Row(robot.robot, cells_, "dim" if left_out else "")

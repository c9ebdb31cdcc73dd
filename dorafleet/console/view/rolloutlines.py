"""A rollout in a few lines: its waves and counts; and its robots as rows."""

import textwrap
from collections.abc import Iterable

from dorad.control.filters import Value
from dorad.natural import natural
from dorafleet.console.model.targets import unit_of
from dorafleet.console.view import words
from dorafleet.console.view.rows import Cell, Column, Row, Span
from dorafleet.console.view.words import clean, width
from dorafleet.rollout.messages import RolloutRobot, RolloutSummary, Wave

COLUMNS = (
    Column("state", "STATE", 12),
    Column("instance", "INSTANCE", 8, grow=1, most=24),
    Column("robot", "ROBOT", 10, grow=1, most=24),
    Column("wave", "WAVE", 6, right=True),
    Column("why", "WHY", 24, grow=6),
    Column("since", "SINCE", 6, right=True),
)
KEYS = tuple(column.key for column in COLUMNS)

MAX_FLOWING = 4
"""Lines for the waves, and for the counts."""

MAX_REASON = 4
"""Lines for a reason."""
BESIDE_WHY = 46
"""Columns of a row beside its reason, at least."""

MAX_OTHERS = 4
"""Lines for other rollouts."""

_STYLES = {
    **dict.fromkeys(("failed", "stuck", "refused", "lost"), "fail"),
    **dict.fromkeys(("reverted", "reverting"), "warn"),
    **dict.fromkeys(("switching", "probation", "staging", "staged"), "update"),
    "busy": "busy",
    "confirmed": "ok",
}
_ORDER = (
    *("failed", "stuck", "refused", "lost", "reverting", "reverted", "switching", "probation"),
    *("staging", "staged", "busy", "pending", "waiting", "back", "left", "removed", "confirmed"),
)


_GATES = {
    "parallel": "their turn",
    "budget": "the budget",
    "machines": "other machines",
    "window": "the window",
}
"""What robots wait for, in other words than those of the server."""


def worst_first(robots: Iterable[RolloutRobot]) -> list[RolloutRobot]:
    """Return robots: failed ones, then those that are being changed, then the others.

    The machines of an instance stay together.
    """
    known = list(robots)
    ranks: dict[str, int] = {}
    for each in known:
        rank = _ORDER.index(each.state)
        ranks[unit_of(each)] = min(rank, ranks.get(unit_of(each), rank))
    return sorted(
        known,
        key=lambda each: (
            ranks[unit_of(each)],
            each.batch,
            natural(unit_of(each)),
            natural(each.robot),
        ),
    )


def by_wave(robots: Iterable[RolloutRobot]) -> list[RolloutRobot]:
    """Return robots in the order in which they get the release."""
    return sorted(robots, key=lambda each: (each.batch, natural(each.robot)))


def lines(
    summary: RolloutSummary, now: float, columns: int, others: Iterable[RolloutSummary] = ()
) -> list[list[Span]]:
    """Return the state of a rollout, its waves, and how many robots are in which state."""
    state = clean(summary.state or summary.phase)
    style = "warn" if summary.paused or "revert" in state or "fail" in state else "title"
    first: list[Span] = [
        (f" {summary.rollout}  {clean(summary.name)}  ", "title"),
        (f"{clean(summary.scope)}  " if summary.scope != "each" else "", ""),
        (state.upper(), style),
        (f"  {words.age(now - summary.since)}", "dim"),
        (f"   by {clean(summary.by)}, {words.age(now - summary.created)} ago", "dim"),
    ]
    waves: list[Span] = []
    for wave in summary.waves:
        end = ">" if wave is not summary.waves[-1] else ""
        waves.append((f"[{_wave(wave)}]{end}", _wave_style(wave)))
    more: list[list[Span]] = []
    if summary.reason:
        more += _wrapped(summary.reason, columns, "warn")
    if summary.waiting:
        waiting = summary.waiting.items()
        text = ", ".join(f"{count} for {clean(_GATES.get(gate, gate))}" for gate, count in waiting)
        more.append([(f" waiting: {text}", "dim")])
    return [
        first,
        *_flowing(waves, columns),
        *counts(summary, columns),
        *more,
        *_others(others),
        [],
    ]


def counts(summary: RolloutSummary, columns: int) -> list[list[Span]]:
    """Return how many robots of a rollout are in which state."""
    spans: list[Span] = []
    for name in _ORDER[::-1]:
        if summary.counts.get(name):
            spans.append((f"{name} {summary.counts[name]}  ", _STYLES.get(name, "")))
    if summary.unreachable:
        spans.append((f"unreachable {summary.unreachable}  ", "unreach"))
    spans.append((f"(= {summary.size})", "dim"))
    return _flowing(spans, columns)


def _others(rollouts: Iterable[RolloutSummary]) -> list[list[Span]]:
    """Return which other rollouts have not ended, each with the way to its screen."""
    return [
        [
            (f" also under way: {each.rollout}  {clean(each.name)}  by {clean(each.by)}", "update"),
            (f"   :rollout {each.rollout}", "dim"),
        ]
        for each in sorted(rollouts, key=lambda each: -each.rollout)[:MAX_OTHERS]
    ]


def chosen(robot: RolloutRobot | None, columns: int) -> list[list[Span]]:
    """Return why the robot under the cursor is in its state, if its row cannot say all of it."""
    text = "" if robot is None else why(robot)
    if width(clean(text)) <= columns - BESIDE_WHY:
        return []
    return [[], *_wrapped(text, columns, "")]


def _wrapped(text: str, columns: int, style: str) -> list[list[Span]]:
    lines = textwrap.wrap(
        clean(text), max(columns - 2, 20), max_lines=MAX_REASON, placeholder=" ..."
    )
    return [[(f" {line}", style)] for line in lines]


def _flowing(spans: Iterable[Span], columns: int) -> list[list[Span]]:
    """Return spans on as many lines as they need, `MAX_FLOWING` at most."""
    flowing: list[list[Span]] = []
    left = 0
    for text, style in spans:
        if width(text.rstrip()) > left:
            flowing.append([(" ", "")])
            left = columns - 1
        flowing[-1].append((text, style))
        left -= width(text)
    return flowing[:MAX_FLOWING]


def _wave(wave: Wave) -> str:
    name = "canary" if wave.batch == 0 else f"wave {wave.batch}"
    text = f"{name} {wave.confirmed}/{wave.size}"
    if wave.failed:
        text += f", {wave.failed} failed"
    return text + (f", {wave.moving} at once" if wave.moving else "")


def _wave_style(wave: Wave) -> str:
    if wave.failed:
        return "fail"
    return "ok" if wave.confirmed == wave.size else "update" if wave.moving else "dim"


def cells(robot: RolloutRobot, now: float) -> dict[str, Value]:
    """Return the cells by which robots of a rollout are filtered."""
    return {
        "state": robot.state,
        "instance": robot.instance,
        "robot": robot.robot,
        "wave": robot.batch,
        "why": why(robot),
        "since": max(0.0, now - robot.since) if robot.since else None,
    }


def why(robot: RolloutRobot) -> str:
    """Return why a robot is in its state."""
    if not robot.reachable:
        return "unreachable" + (f", {robot.why}" if robot.why else "")
    lease = f"lease {robot.leases[0]}" if robot.leases else ""
    gate = _GATES.get(robot.waiting, robot.waiting).replace("their", "its")
    return robot.why or lease or (f"waits for {gate}" if gate else "")


def row(robot: RolloutRobot, now: float) -> Row:
    """Return the row of a robot."""
    return Row(
        robot.robot,
        (
            Cell(robot.state, _STYLES.get(robot.state, "")),
            Cell(robot.instance or "-"),
            Cell(robot.robot, "name"),
            Cell("canary" if robot.batch == 0 else str(robot.batch)),
            Cell(why(robot) or "-"),
            Cell(words.age(now - robot.since if robot.since else None)),
        ),
    )

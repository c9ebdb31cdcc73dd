"""Rollouts and journals as lines for people."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dorad.commandline.tables import age
from dorad.natural import natural
from dorad.phrases import first_of
from dorad.terminal import local_time
from dorafleet.rollout.model import FAILURES
from dorafleet.rollout.plantext import MAX_NAMES, batch_name, robot_name

if TYPE_CHECKING:
    from collections.abc import Iterable

    from dorafleet.rollout.messages import (
        JournalEntry,
        RolloutRobot,
        RolloutSummary,
    )

ROBOT_COLUMNS = ("Robot", "Batch", "State", "Since", "Waits for", "Why")
HISTORY_COLUMNS = ("Rollout", "Dataflow", "Release", "State", "Robots", "By", "Started", "Why")
JOURNAL_COLUMNS = ("Step", "Time", "What", "By", "Robots", "Why")

DONE_STATES = ("confirmed", "back", "left", "removed")


def has_failures(summary: RolloutSummary) -> bool:
    """Return True if some robots of a rollout have failed."""
    return any(map(summary.counts.get, FAILURES))


def robot_row(robot: RolloutRobot, now: float) -> tuple[str, ...]:
    """Return a row under `ROBOT_COLUMNS`."""
    why = robot.why or "; ".join(robot.leases)
    return (
        robot_name(robot.robot, robot.instance),
        batch_name(robot.batch),
        robot.state,
        age(max(0.0, now - robot.since)) if robot.since else "-",
        robot.waiting or "-",
        why,
    )


def summary_line(summary: RolloutSummary) -> str:
    """Return a rollout in one line."""
    reason = f": {summary.reason}" if summary.reason else ""
    if summary.soaks_until is not None:
        reason = f" until {_moment(summary.soaks_until)}{reason}"
    return (
        f"rollout {summary.rollout}  {summary.name} on {summary.size} "
        f"{'robot' if summary.size == 1 else 'robots'}  {summary.state}{reason}"
    )


def wave_line(summary: RolloutSummary) -> str:
    """Return how far the batches are."""
    parts = []
    for wave in summary.waves:
        name = "canary" if wave.batch == 0 else f"batch {wave.batch}"
        text = f"{name} {wave.confirmed}/{wave.size}"
        if wave.moving:
            text += f", {wave.moving} switching"
        if wave.failed:
            text += f", {wave.failed} failed"
        parts.append(f"[{text}]")
    counts = "  ".join(f"{state} {count}" for state, count in sorted(summary.counts.items()))
    return (
        " > ".join(parts)
        + f"  {counts}"
        + (f"  unreachable {summary.unreachable}" if summary.unreachable else "")
    )


def opening_line(summary: RolloutSummary) -> str:
    """Return when the next window opens, or an empty text."""
    if summary.opening is None:
        return ""
    return f"the next window opens {_moment(summary.opening)}"


def history_row(summary: RolloutSummary) -> tuple[str, ...]:
    """Return a row under `HISTORY_COLUMNS`."""
    done = summary.counts.get("confirmed", 0)
    return (
        str(summary.rollout),
        summary.dataflow,
        summary.name,
        summary.state,
        f"{done}/{summary.size}",
        summary.by,
        _moment(summary.created),
        summary.reason,
    )


def journal_row(entry: JournalEntry) -> tuple[str, ...]:
    """Return a row under `JOURNAL_COLUMNS`."""
    robots = first_of(entry.robots, MAX_NAMES) if entry.robots else "-"
    return (str(entry.step), _moment(entry.at), entry.what, entry.by or "-", robots, entry.reason)


def worst_first(robots: Iterable[RolloutRobot]) -> list[RolloutRobot]:
    """Return robots with those first that need a look."""

    def rank(robot: RolloutRobot) -> tuple[bool, bool, int, tuple[str, str]]:
        state = robot.state
        return (
            state not in FAILURES,
            state in DONE_STATES,
            robot.batch,
            natural(robot.robot),
        )

    return sorted(robots, key=rank)


def _moment(seconds: float) -> str:
    return local_time(seconds, "%Y-%m-%d %H:%M:%S")

"""Rollouts as rows, and the one under the cursor in a few lines."""

import textwrap
from collections.abc import Sequence

from dorad.control.filters import Value
from dorad.terminal import local_time
from dorafleet.console.view import rolloutlines, words
from dorafleet.console.view.rows import Cell, Column, Row, Span
from dorafleet.console.view.words import clean
from dorafleet.rollout.messages import RolloutSummary
from dorafleet.rollout.model import FAILURES

COLUMNS = (
    Column("number", "NO", 4, right=True),
    Column("state", "STATE", 9, most=19),
    Column("release", "RELEASE", 10, grow=1, most=32),
    Column("robots", "ROBOTS", 7, right=True),
    Column("started", "STARTED", 11),
    Column("by", "BY", 6, grow=1, most=10, drop=1),
    Column("why", "WHY", 10, grow=6),
)
KEYS = ("number", "state", "dataflow", "release", "robots", "started", "since", "by", "why")
"""`since` is the time since its start."""

MAX_LINES = 4
"""Lines for the reason of the rollout under the cursor."""

_STYLES = {
    **dict.fromkeys(("failed", "revert_incomplete"), "fail"),
    **dict.fromkeys(("reverting", "reverted", "refused", "aborted"), "warn"),
    "succeeded_partially": "warn",
    **dict.fromkeys(("planned", "canary", "awaiting_promotion"), "update"),
    **dict.fromkeys(("rolling", "soaking", "settled"), "update"),
    "succeeded": "ok",
    "superseded": "dim",
}


def state(summary: RolloutSummary) -> str:
    """Return the phase of a rollout, or that it is paused."""
    return "paused" if summary.paused else summary.phase


def cells(summary: RolloutSummary, now: float) -> dict[str, Value]:
    """Return the cells by which rollouts are filtered."""
    return {
        "number": summary.rollout,
        "state": state(summary),
        "dataflow": summary.dataflow,
        "release": summary.name,
        "robots": summary.size,
        "started": _started(summary),
        "since": max(0.0, now - summary.created),
        "by": summary.by,
        "why": summary.reason,
    }


def row(summary: RolloutSummary) -> Row:
    """Return the row of a rollout: of its robots, how many have the release."""
    failed = any(summary.counts.get(each) for each in FAILURES)
    return Row(
        str(summary.rollout),
        (
            Cell(str(summary.rollout)),
            Cell(state(summary), "warn" if summary.paused else _STYLES.get(summary.phase, "")),
            Cell(summary.name, "name"),
            Cell(f"{summary.counts.get('confirmed', 0)}/{summary.size}", "warn" if failed else ""),
            Cell(_started(summary)),
            Cell(summary.by),
            Cell(summary.reason or "-"),
        ),
    )


def lines(summary: RolloutSummary, now: float, columns: int) -> list[list[Span]]:
    """Return a rollout in full: how many robots are in which state, and why it is in its own."""
    head: list[Span] = [
        (f" {summary.rollout}  {clean(summary.name)}  ", "title"),
        (f"{state(summary)} {words.age(now - summary.since)}", ""),
        (f"  by {clean(summary.by)}, {words.age(now - summary.created)} ago", "dim"),
    ]
    reason = textwrap.wrap(clean(summary.reason), max(columns - 2, 20))[:MAX_LINES]
    counts = rolloutlines.counts(summary, columns)
    return [[], head, *counts, *([(f" {line}", "")] for line in reason)]


def newest_first(summaries: Sequence[RolloutSummary]) -> list[RolloutSummary]:
    """Return rollouts, the newest first."""
    return sorted(summaries, key=lambda each: -each.rollout)


def _started(summary: RolloutSummary) -> str:
    return local_time(summary.created, "%m-%d %H:%M")

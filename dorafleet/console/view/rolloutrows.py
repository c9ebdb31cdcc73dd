"""Rollouts as rows, and the one under the cursor in a few lines."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING

from dorad.terminal import local_time
from dorafleet.console.view import rolloutlines, words
from dorafleet.console.view.rows import Cell, Column, Row
from dorafleet.console.view.words import clean
from dorafleet.rollout.model import FAILURES

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dorad.control.filters import Value
    from dorafleet.console.view.rows import Span
    from dorafleet.rollout.messages import RolloutSummary

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


def state(found: RolloutSummary) -> str:
    """Return the phase of a rollout, or that it is paused."""
    return "paused" if found.paused else found.phase


def cells(found: RolloutSummary, now: float) -> dict[str, Value]:
    """Return the cells by which rollouts are filtered."""
    return {
        "number": found.rollout,
        "state": state(found),
        "dataflow": found.dataflow,
        "release": found.name,
        "robots": found.size,
        "started": _started(found),
        "since": max(0.0, now - found.created),
        "by": found.by,
        "why": found.reason,
    }


def row(found: RolloutSummary) -> Row:
    """Return the row of a rollout: of its robots, how many have the release."""
    failed = any(found.counts.get(each) for each in FAILURES)
    return Row(
        str(found.rollout),
        (
            Cell(str(found.rollout)),
            Cell(state(found), "warn" if found.paused else _STYLES.get(found.phase, "")),
            Cell(found.name, "name"),
            Cell(f"{found.counts.get('confirmed', 0)}/{found.size}", "warn" if failed else ""),
            Cell(_started(found)),
            Cell(found.by),
            Cell(found.reason or "-"),
        ),
    )


def lines(found: RolloutSummary, now: float, columns: int) -> list[list[Span]]:
    """Return a rollout in full: how many robots are in which state, and why it is in its own."""
    head: list[Span] = [
        (f" {found.rollout}  {clean(found.name)}  ", "title"),
        (f"{state(found)} {words.age(now - found.since)}", ""),
        (f"  by {clean(found.by)}, {words.age(now - found.created)} ago", "dim"),
    ]
    reason = textwrap.wrap(clean(found.reason), max(columns - 2, 20))[:MAX_LINES]
    counts = rolloutlines.counts(found, columns)
    return [[], head, *counts, *([(f" {line}", "")] for line in reason)]


def newest_first(found: Sequence[RolloutSummary]) -> list[RolloutSummary]:
    """Return rollouts, the newest first."""
    return sorted(found, key=lambda each: -each.rollout)


def _started(found: RolloutSummary) -> str:
    return local_time(found.created, "%m-%d %H:%M")

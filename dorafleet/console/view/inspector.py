"""What is known of one thing, as lines beside the table."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dorad.terminal import local_time
from dorafleet.console.model.alerts import state_of
from dorafleet.console.view import words
from dorafleet.console.view.tables import state_text
from dorafleet.console.view.words import clean

if TYPE_CHECKING:
    from dorad.control.messages import FleetRow
    from dorafleet.console.view.rows import Span

MAX_LINES = 100
"""Labels, and findings, that are shown."""


def robot_lines(row: FleetRow, now: float, *, stale: bool = False) -> list[list[Span]]:
    """Return what is known of a robot; of a `stale` one, how it was."""
    known = row.known
    state = "stale" if stale else row.state
    lines: list[list[Span]] = [
        [(f" {clean(row.robot)}", "title"), ("  ", ""), (state_text(state), state)],
    ]
    if row.since is not None:
        at = local_time(row.since, "%Y-%m-%d %H:%M")
        lines.append([(f" since {at}", "dim")])
    lines.append([])
    facts = {
        "dataflow": row.dataflow or "-",
        "release": row.release or "-",
        "nodes": f"{row.running} of {row.nodes} run" if known else "not known",
        "cpu": f"{words.percent(row.cpu)} %" if known else "-",
        "memory": f"{words.percent(row.memory)} %" if known else "-",
        "drops": f"{words.rate(row.drops)}/s" if known else "-",
        "version": row.version or "-",
    }
    if row.state == "unreach":
        facts["seen"] = words.age(None if row.seen_at is None else now - row.seen_at) + " ago"
    lines += [[(f" {name:<9}", "dim"), (clean(value), "")] for name, value in facts.items()]
    for name, value in sorted(row.labels.items())[:MAX_LINES]:
        lines.append([(f" {clean(name)}", "dim"), (f" = {clean(value)}", "")])
    if row.findings:
        lines += [[], [(" what is wrong", "head")]]
    for each in row.findings[:MAX_LINES]:
        kind = state_of(each)
        lines.append([(f" {words.age(now - each.since):>6} ", "dim"), (state_text(kind), kind)])
        lines += [[("   " + part, "")] for part in _wrapped(clean(each.text), 35)]
    return lines


def _wrapped(text: str, columns: int) -> list[str]:
    import textwrap

    return textwrap.wrap(text, columns) or [""]

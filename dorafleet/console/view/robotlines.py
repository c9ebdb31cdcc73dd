"""One robot in lines: state, figures, and what is wrong, above its nodes or beside a table."""

import textwrap

from dorad.control.messages import Finding, FleetRow
from dorad.terminal import local_time
from dorafleet.console.model.alerts import state_of
from dorafleet.console.model.targets import dataflows_of, released_on, shown_dataflows
from dorafleet.console.view import words
from dorafleet.console.view.glyphs import STATES
from dorafleet.console.view.rows import Cell, Column, Row, Span
from dorafleet.console.view.tables import state_text
from dorafleet.console.view.words import clean

FINDINGS = (
    Column("state", "", 1),
    Column("text", "WHAT IS WRONG", 36, grow=8),
    Column("since", "SINCE", 7, right=True),
)
MAX_INSPECTED = 100
"""Labels, and findings, that are shown beside a table."""


def lines(
    row: FleetRow | None, robot: str, now: float, columns: int, *, stale: bool
) -> list[list[Span]]:
    """Return the lines above the tables of a robot."""
    if row is None:
        return [[(f" no robot `{clean(robot)}` is known", "warn")]]
    state: Span = (state_text(row.state), row.state)
    if stale:
        state = ("~ STALE", "stale")
    first: list[Span] = [(" ", ""), state]
    if row.since is not None:
        first.append((f" {words.age(now - row.since)}", "dim"))
    if row.known:
        first.append((f"   nodes {row.running}/{row.nodes}", ""))
        first.append(
            (f"   cpu {words.percent(row.cpu)}%   memory {words.percent(row.memory)}%", "")
        )
        first.append((f"   drops {words.rate(row.drops)}/s", "warn" if row.drops else ""))
    else:
        first.append((f"   seen {words.age(row.seen_at and now - row.seen_at)} ago", "dim"))
    released = released_on(row)  # by their names and numbers
    own = [name for name in dataflows_of(row) if name not in released]
    if row.instances:
        first.append((f"   {clean(', '.join(row.instances))}", "name"))
    if own:
        first.append((f"   {clean(', '.join(own))}", "name"))
    if row.release:
        first.append((f"   {clean(row.release)}", "name"))
    if row.version and columns >= 100:
        first.append((f"   dorad {clean(row.version)}", "dim"))
    shown: list[list[Span]] = [first]
    if not row.findings and row.why:
        shown.append([(f"   {clean(row.why)}", "dim")])
    return shown


def finding_row(finding: Finding, now: float) -> Row:
    """Return the row of one thing that is wrong."""
    state = state_of(finding)
    cells = (
        Cell(STATES[state][0], state),
        Cell(finding.text),
        Cell(words.age(now - finding.since)),
    )
    return Row(finding_id(finding), cells)


def finding_id(finding: Finding) -> str:
    """Return what names a finding of a robot."""
    return f"{finding.cause}:{finding.subject}"


def inspector_lines(row: FleetRow, now: float, *, stale: bool = False) -> list[list[Span]]:
    """Return what is known of a robot, for beside the table; of a `stale` one, how it was."""
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
        "dataflow": shown_dataflows(row) or "-",
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
    for name, value in sorted(row.labels.items())[:MAX_INSPECTED]:
        lines.append([(f" {clean(name)}", "dim"), (f" = {clean(value)}", "")])
    if row.findings:
        lines += [[], [(" what is wrong", "head")]]
    for each in row.findings[:MAX_INSPECTED]:
        kind = state_of(each)
        lines.append([(f" {words.age(now - each.since):>6} ", "dim"), (state_text(kind), kind)])
        lines += [[("   " + part, "")] for part in textwrap.wrap(clean(each.text), 35)]
    return lines

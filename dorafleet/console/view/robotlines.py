"""One robot in a few lines: state, figures, and what is wrong."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dorafleet.console.model.alerts import state_of
from dorafleet.console.model.targets import dataflows_of, released_on
from dorafleet.console.view import words
from dorafleet.console.view.glyphs import STATES
from dorafleet.console.view.tables import state_text
from dorafleet.console.view.words import clean

if TYPE_CHECKING:
    from dorad.control.messages import FleetRow
    from dorafleet.console.view.rows import Span

MAX_FINDINGS = 4
"""Findings that are shown; Alerts has all of them."""


def lines(
    row: FleetRow | None, robot: str, now: float, columns: int, *, stale: bool
) -> list[list[Span]]:
    """Return the lines above the nodes of a robot."""
    if row is None:
        return [[(f" no robot `{clean(robot)}` is known", "warn")], []]
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
    if own:
        first.append((f"   {clean(', '.join(own))}", "name"))
    if row.release:
        first.append((f"   {clean(row.release)}", "name"))
    if row.version and columns >= 100:
        first.append((f"   dorad {clean(row.version)}", "dim"))
    found: list[list[Span]] = [first]
    for each in row.findings[:MAX_FINDINGS]:
        problem = state_of(each)
        found.append(
            [
                (f" {STATES[problem][0]} ", problem),
                (clean(each.text), "dim" if stale else ""),
                (f"  {words.age(now - each.since)}", "dim"),
            ]
        )
    if len(row.findings) > MAX_FINDINGS:
        found.append([(f"   and {len(row.findings) - MAX_FINDINGS} more", "dim")])
    if not row.findings and row.why:
        found.append([(f"   {clean(row.why)}", "dim")])
    found.append([])
    return found

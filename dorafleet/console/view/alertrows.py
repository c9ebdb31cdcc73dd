"""Alerts as rows."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dorad.phrases import shorten
from dorafleet.console.model.alerts import new_count, state_of, where
from dorafleet.console.view import words
from dorafleet.console.view.bars import rule_line
from dorafleet.console.view.glyphs import STATES
from dorafleet.console.view.rows import Cell, Column, Row

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from dorad.control.filters import Value
    from dorad.control.messages import Alert, PastAlert
    from dorafleet.console.view.glyphs import Glyphs
    from dorafleet.console.view.rows import Span
    from dorafleet.coordinator.messages import AlertReceiver, AlertReceivers

COLUMNS = (
    Column("state", "", 1),
    Column("where", "WHERE", 9, grow=1, most=24),
    Column("text", "WHAT", 36, grow=8),
    Column("since", "SINCE", 7, right=True),
    Column("ack", "STATE", 8, drop=1),
    Column("do", "DO", 17, drop=2),
)
PAST_COLUMNS = (
    *COLUMNS[:3],
    Column("since", "FROM", 14),
    Column("until", "UNTIL", 14),
    COLUMNS[4],
)
OF_RUNNING = ("output-slow", "input-drops", "log-flood", "link-loses")
"""Causes of nodes that run: a restart begins to learn what is usual again, and hides them."""
MAX_ACK = 12
"""Columns for who has acknowledged an alert that is over."""
KEYS = ("state", "where", "what", "since", "ack", "robots", "dataflow", "node")


def row(alert: Alert, now: float) -> Row:
    """Return the row of an alert: where, what, since when, who knows, what to do."""
    state = state_of(alert)
    letter, _ = STATES[state]
    text = alert.text + (f"  flapping x{alert.flapping}" if alert.flapping else "")
    acked = bool(alert.acked_by)
    return Row(
        alert.id,
        (
            Cell(letter, state),
            Cell(where(alert), "name"),
            Cell(text, "dim" if acked else ""),
            Cell(words.age(now - alert.since)),
            Cell(f"ack {alert.acked_by}" if acked else "new", "dim" if acked else "key"),
            Cell(_advice(alert), "dim"),
        ),
    )


def past_row(alert: PastAlert) -> Row:
    """Return the row of an alert that is over: with the times of its begin and its end."""
    shown = row(alert, alert.until)
    state, where_, text, _, _, _ = shown.cells
    moments = (words.moment(alert.since), words.moment(alert.until))
    acked = Cell(f"ack {alert.acked_by}" if alert.acked_by else "-", "dim")
    return Row(alert.id, (state, where_, text, *map(Cell, moments), acked))


def past_lines(alerts: Sequence[PastAlert]) -> list[list[Span]]:
    """Return the lines about alerts that are over; none without any."""
    acks = [f"ack {words.clean(each.acked_by)}" if each.acked_by else "" for each in alerts]
    columns = min(max(map(words.width, acks), default=0), MAX_ACK)
    lines: list[list[Span]] = [
        [
            (f" {words.moment(each.since)} to {words.moment(each.until)}  ", "dim"),
            (f"{words.fit(words.clean(where(each)), 9)} ", "name"),
            (f"{words.fit(ack, columns)} " if columns else "", "dim"),
            (words.clean(each.text), "dim"),
        ]
        for each, ack in zip(alerts, acks, strict=True)
    ]
    more = ("   dorafleet alerts --past has more", "dim")
    return [[], [(" OVER, the last first", "title"), more], *lines] if lines else []


def _advice(alert: Alert) -> str:
    if alert.count > 1:
        return "enter list"
    if alert.cause in OF_RUNNING:
        return "l logs  t top"
    if alert.node:
        return "l logs  a restart"
    if alert.dataflow:
        return "l logs  a actions"
    return ":alerts says how" if alert.hint else "enter look"


def cells(alert: Alert, now: float) -> dict[str, Value]:
    """Return the cells by which alerts are filtered."""
    return {
        "state": state_of(alert),
        "where": where(alert),
        "what": alert.text,
        "since": max(0.0, now - alert.since),
        "ack": alert.acked_by,
        "robots": tuple(alert.robots),
        "dataflow": alert.dataflow or "",
        "node": alert.node or "",
    }


def receiver_trouble(receiver: AlertReceiver, now: float) -> str:
    """Return why people are not told of alerts by a receiver; empty if they are."""
    if receiver.failing_since is not None:
        waiting = f"; {receiver.waiting} wait" if receiver.waiting else ""
        since = words.age(max(now - receiver.failing_since, 0.0))
        return f"{receiver.place} has not taken any for {since}: {receiver.error}{waiting}"
    if not receiver.stored:
        return "what waits is not stored, a restart of the coordinator would lose it"
    return ""


def undelivered(receivers: AlertReceivers | None, now: float) -> str:
    """Return why alerts do not reach people, for the line above the alerts; or an empty text."""
    if receivers is None:
        return ""
    texts = [
        f"alerts by {words.clean(each.name)}: {words.clean(trouble)}"
        for each in receivers.receivers
        if (trouble := receiver_trouble(each, now))
    ]
    if receivers.problem:
        texts.append(f"alerts: the old configuration is in use: {words.clean(receivers.problem)}")
    return "; ".join(texts)


def heading(
    alerts: Sequence[Alert] | Iterable[Alert],
    columns: int,
    glyphs: Glyphs,
    *,
    quiet: str,
    undelivered: str = "",
) -> list[Span]:
    """Return the line above the alerts; `quiet` is what it says without any.

    `undelivered` is why people are not told of them.
    """
    listed = list(alerts)
    if undelivered:
        text = f"NEEDS YOU  {new_count(listed)} new  {undelivered}"
        return rule_line(shorten(text, max(columns - 6, 10)), columns, glyphs.rule, "fail")
    if not listed:
        return rule_line(f"NEEDS YOU  {quiet}", columns, glyphs.rule, "dim")
    new = new_count(listed)
    text = f"NEEDS YOU  {new} new" + (f" of {len(listed)}" if new != len(listed) else "")
    return rule_line(text, columns, glyphs.rule, "title")

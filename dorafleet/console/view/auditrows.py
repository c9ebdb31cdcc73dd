"""Changes that the audit has recorded, in words and as rows."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

from dorad.logrecord import LAST_MOMENT
from dorad.terminal import local_time
from dorafleet.console.view import words
from dorafleet.console.view.rows import Cell, Column, Row

if TYPE_CHECKING:
    from dorad.control.filters import Value
    from dorafleet.coordinator.messages import AuditRecord

COLUMNS = (
    Column("time", "TIME", 14),
    Column("who", "WHO", 12, grow=1, most=24),
    Column("change", "CHANGE", 40, grow=4),
)
KEYS = ("number", "time", "since", "who", "client", "change")

MAX_DETAIL = 200
"""Characters of a detail; `dorafleet audit --json` has all of it."""

_BESIDE = ("time", "epoch", "user", "peer", "role", "client", "action", "old", "new")
"""Fields of a record that do not describe the change, or that come last."""
_DIGEST = re.compile(r"\b([0-9a-f]{12})[0-9a-f]{52}\b")
"""The id of a release, of which lists show the beginning."""


def time_of(found: AuditRecord) -> float:
    """Return when a change was made, in seconds since 1970; 0 if the record does not say it."""
    seconds = found.record.get("time")
    if isinstance(seconds, int | float) and 0 <= seconds < LAST_MOMENT:
        return float(seconds)
    return 0.0


def who(record: dict[str, Any]) -> str:
    """Return the author: the name in a certificate or of a token, or the user of a Unix socket."""
    if record.get("peer"):
        return str(record["peer"])
    user = record.get("user")
    return str(record.get("client", "-")) if user is None else f"user {user}"


def change(record: dict[str, Any]) -> str:
    """Return the change of a record in words, without author and time."""
    action, content = str(record.get("action")), record.get("content")
    if action != "desired.set" or not isinstance(content, dict):
        details = (_detail(key, value) for key, value in record.items() if key not in _BESIDE)
        return f"{action}: {', '.join(details)}{_values(record)}"
    enabled = "enabled" if content.get("enabled") else "disabled"
    return (
        f"{action} {record.get('robot')}/{record.get('dataflow')}: "
        f"{content.get('release')}, {enabled}, generation {content.get('generation')}"
    )


def _values(record: dict[str, Any]) -> str:
    """Return the old and the new value of a parameter, which are JSON; empty without any."""
    old, new = record.get("old", "unset"), record.get("new", "unset")
    return f": {old} -> {new}" if {"old", "new"} & record.keys() else ""


def _detail(key: str, value: object) -> str:
    """Return a detail of a change in words: moments as dates, lists and mappings as JSON."""
    if key == "expires" and isinstance(value, int | float):
        return f"expires {local_time(value, '%Y-%m-%d %H:%M:%S')}"
    text = json.dumps(value) if isinstance(value, dict | list) else str(value)
    text = _DIGEST.sub(r"\1", text)
    return f"{key} {text if len(text) <= MAX_DETAIL else f'{text[:MAX_DETAIL]}…'}"


def row(found: AuditRecord) -> Row:
    """Return the row of a change."""
    cells = (
        Cell(words.moment(time_of(found))),
        Cell(who(found.record), "name"),
        Cell(change(found.record)),
    )
    return Row(str(found.sequence), cells)


def cells(found: AuditRecord, now: float) -> dict[str, Value]:
    """Return the cells by which changes are filtered."""
    return {
        "number": found.sequence,
        "time": words.moment(time_of(found)),
        "since": max(0.0, now - time_of(found)),
        "who": who(found.record),
        "client": str(found.record.get("client", "")),
        "change": change(found.record),
    }

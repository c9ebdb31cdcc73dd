"""Changes that the audit has recorded, in words and as rows."""

from __future__ import annotations

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

_BARE = ("what", "robots")
"""Details whose values need no name."""
_BESIDE = ("time", "epoch", "user", "peer", "role", "client", "action", "old", "new")
"""Fields of a record that do not describe the change, or that come last."""
_DIGEST = re.compile(r"\b([0-9a-f]{12})[0-9a-f]{52}\b")
"""The id of a release, of which lists show the beginning."""


def time_of(entry: AuditRecord) -> float:
    """Return when a change was made, in seconds since 1970; 0 if the record does not say it."""
    seconds = entry.record.get("time")
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
    """Return the change of a record in words, without author and time.

    They are the action and what was changed, such as `node.restart arm1/pick/camera`, and details.
    """
    action, content = str(record.get("action")), record.get("content")
    if action == "desired.set" and isinstance(content, dict):
        enabled = "enabled" if content.get("enabled") else "disabled"
        return (
            f"{action} {record.get('robot')}/{record.get('dataflow')}: "
            f"{content.get('release')}, {enabled}, generation {content.get('generation')}"
        )
    details = {key: value for key, value in record.items() if key not in _BESIDE}
    names = ("rollout",) if "rollout" in details else ("robot", "dataflow", "node", "key")
    subject = "/".join(str(details.pop(name)) for name in names if name in details)
    texts = ", ".join(_detail(key, value) for key, value in details.items() if not _is_void(value))
    what = " ".join(filter(None, (action, subject)))
    return ": ".join(filter(None, (what, texts, _values(record))))


def is_by_person(entry: AuditRecord) -> bool:
    """Return True if an operator or a program has made a change, and no rollout by itself."""
    return bool(entry.record.get("peer")) or entry.record.get("user") is not None


def _values(record: dict[str, Any]) -> str:
    """Return the old and the new value of a parameter, which are JSON; empty without any."""
    old, new = record.get("old", "unset"), record.get("new", "unset")
    return f"{old} -> {new}" if {"old", "new"} & record.keys() else ""


def _detail(key: str, value: object) -> str:
    """Return a detail of a change in words: moments as dates, lists and mappings by their items."""
    if value is True:
        return key
    if key == "expires" and isinstance(value, int | float):
        return f"expires {local_time(value, '%Y-%m-%d %H:%M:%S')}"
    if key == "labels" and isinstance(value, dict):
        value = [f"{name} {'removed' if each is None else each}" for name, each in value.items()]
    text = _DIGEST.sub(r"\1", _text(value))
    text = text if len(text) <= MAX_DETAIL else f"{text[:MAX_DETAIL]}…"
    return text if key in _BARE and isinstance(value, str | list) else f"{key} {text}"


def _text(value: object) -> str:
    if isinstance(value, dict):
        said = (_detail(str(key), each) for key, each in value.items() if not _is_void(each))
        return ", ".join(said)
    if isinstance(value, list):
        return ", ".join(map(_text, value))
    return str(value)


def _is_void(value: object) -> bool:
    return value is None or value is False or (isinstance(value, str | list | dict) and not value)


def row(entry: AuditRecord) -> Row:
    """Return the row of a change."""
    cells = (
        Cell(words.moment(time_of(entry))),
        Cell(who(entry.record), "name"),
        Cell(change(entry.record)),
    )
    return Row(str(entry.sequence), cells)


def cells(entry: AuditRecord, now: float) -> dict[str, Value]:
    """Return the cells by which changes are filtered."""
    return {
        "number": entry.sequence,
        "time": words.moment(time_of(entry)),
        "since": max(0.0, now - time_of(entry)),
        "who": who(entry.record),
        "client": str(entry.record.get("client", "")),
        "change": change(entry.record),
    }

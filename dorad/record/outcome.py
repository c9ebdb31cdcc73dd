"""How a recording ended, as a log line of its recorder, and read again from the log."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from dorad.node import logbridge
from dorad.record.report import outcome_lines

if TYPE_CHECKING:
    from dorad.record.items import Outcome

TARGET = "dora.record"
"""The target of the line, by which commands know it."""

MARK_TARGET = "dora.record.mark"
"""The target of the line that says whether an incident was made."""

MARK_PARAM = "mark_incident"
"""Setting this parameter of a recorder to the fields of a `Mark` lets it make an incident."""

MARK_WORD = "incident"
"""A word of each such line, to search a log for it."""

END_PARAM = "end_recording"
"""Setting this parameter of a recorder ends its recording."""

MAX_PATHS = 100


class Ended(msgspec.Struct, frozen=True):
    """The end of one recorder, as a command on another machine learns of it."""

    complete: bool
    reason: str
    messages: int
    bytes: int
    paths: list[str]
    dropped: dict[str, int]


def outcome_line(node_id: str, outcome: Outcome) -> str:
    """Return the structured log line that a recorder prints at its end."""
    fields: dict[str, Any] = msgspec.to_builtins(
        Ended(
            outcome.complete,
            outcome.reason,
            outcome.messages,
            outcome.bytes,
            [str(path.absolute()) for path in outcome.paths[-MAX_PATHS:]],
            {topic: count for topic, count in outcome.dropped.items() if count},
        )
    )
    level = "info" if outcome.complete else "warn"
    return logbridge.line(node_id, level, outcome_lines(outcome)[0], TARGET, fields)


def read_outcome(target: str | None, fields: dict[str, Any] | None) -> Ended | None:
    """Return the end that a log line reports, by its target and fields; None for other lines."""
    if target != TARGET or not fields:
        return None
    try:
        return msgspec.convert(fields, type=Ended)
    except msgspec.ValidationError:
        return None


class Marked(msgspec.Struct, frozen=True):
    """Whether an incident was made: its id and folder, or what was wrong."""

    made: bool
    text: str


def marked_line(node_id: str, marked: Marked) -> str:
    """Return the structured log line about an incident."""
    level = "info" if marked.made else "warn"
    return logbridge.line(node_id, level, marked.text, MARK_TARGET, msgspec.to_builtins(marked))


def read_marked(target: str | None, fields: dict[str, Any] | None) -> Marked | None:
    """Return what a log line reports of an incident; None for other lines."""
    if target != MARK_TARGET or not fields:
        return None
    try:
        return msgspec.convert(fields, type=Marked)
    except msgspec.ValidationError:
        return None

"""How far a recording is and how it ended: for people, and as log lines that commands read."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from dorad.node import logbridge
from dorad.phrases import count_text, size_text
from dorad.record.encoding.extras import is_own

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

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


class Progress(NamedTuple):
    """What has been recorded so far; sizes in bytes."""

    messages: int
    """Those of nodes that are written; what the recorder adds is not among them."""
    bytes: int
    free: int
    dropped: int
    files: int


class RecordingOutcome(NamedTuple):
    """How a recording ended."""

    complete: bool
    reason: str
    messages: int
    bytes: int
    paths: tuple[Path, ...]
    """The files, or the folder of a black box."""
    dropped: Mapping[str, int]
    counts: Mapping[str, int]
    closed: bool
    """Whether the last file has its summary."""


def progress_line(now: Progress, before: Progress, seconds: float) -> str:
    """Return how far a recording is; `before` was `seconds` ago."""
    rate = max(0, now.bytes - before.bytes) / max(seconds, 0.001)
    parts = [
        count_text(now.messages, "message"),
        size_text(now.bytes),
        f"{size_text(rate)}/s",
        f"{size_text(now.free)} free",
    ]
    if now.files > 1:
        parts.append(count_text(now.files, "file"))
    if now.dropped:
        parts.append(f"{now.dropped} dropped")
    return ", ".join(parts)


def outcome_lines(outcome: RecordingOutcome) -> list[str]:
    """Return how a recording ended."""
    status = "COMPLETE" if outcome.complete else "INCOMPLETE"
    counts = [n for topic, n in outcome.counts.items() if n and not is_own(topic)]
    topics = count_text(len(counts), "topic")
    first = (
        f"{status}: {count_text(sum(counts), 'message')} of {topics}, "
        f"{size_text(outcome.bytes)}; {outcome.reason}"
    )
    dropped = sorted(outcome.dropped.items())
    return [first, *(f"{count} dropped on {topic}" for topic, count in dropped if count)]


class Ended(msgspec.Struct, frozen=True):
    """The end of one recorder, as a command on another machine learns of it."""

    complete: bool
    reason: str
    messages: int
    bytes: int
    paths: list[str]
    dropped: dict[str, int]


def outcome_line(node_id: str, outcome: RecordingOutcome) -> str:
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

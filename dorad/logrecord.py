"""A log line as a record: what log files, live followers and the control API have in common."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Annotated, Any, Literal

import msgspec

Stream = Literal["stdout", "stderr"]
Level = Literal["error", "warn", "info", "debug", "trace", "stdout"]

RAW: Literal["stdout"] = "stdout"
"""The level of a line without a severity, from either stream."""

_ERROR = re.compile(r"\W{,40}[Ee]rror:|.{,80}?\b(?:ERROR|FATAL|CRITICAL)\b", re.DOTALL)
"""How lines without a level begin that tell of an error: `[ERROR] no frame`, `error: no frame`."""

LAST_MOMENT = 253_370_764_800
"""The year 9998, in seconds since 1970. Times beyond it cannot be shown as a date."""


class LogRecord(msgspec.Struct, frozen=True, gc=False):
    """One line of a node, or of the daemon itself (`node` None)."""

    timestamp: Annotated[float, msgspec.Meta(ge=0, lt=LAST_MOMENT)]
    """Seconds since 1970. If the line has no time of its own, it is the time of reading."""
    level: Level
    """`stdout` means that the line has no severity; it may come from either stream."""
    node: str | None
    message: str
    stream: Stream = "stdout"
    target: str | None = None
    fields: dict[str, Any] | None = None
    file: str | None = None
    line: Annotated[int, msgspec.Meta(ge=0, lt=1 << 31)] | None = None
    module_path: str | None = None
    machine: str | None = None
    """The machine of the line; only from a coordinator."""


def is_error(record: LogRecord) -> bool:
    """Return True if a record tells of an error, by its level or, without one, by its text."""
    if record.level == RAW:
        return _ERROR.match(record.message) is not None
    return record.level == "error"


def size(record: LogRecord) -> int:
    """Return about how many characters a record has. A line of a node may have a million."""
    if record.fields is None:
        return len(record.message)
    try:
        return len(record.message) + len(msgspec.json.encode(record.fields))
    except RecursionError:
        return 1 << 20


def in_blocks(
    records: Iterable[LogRecord], lines: int, characters: int
) -> Iterator[list[LogRecord]]:
    """Yield the records in blocks of at most so many lines, and of characters unless it is one."""
    block: list[LogRecord] = []
    filled = 0
    for record in records:
        own = size(record)
        if len(block) == lines or (block and filled + own > characters):
            yield block
            block, filled = [], 0
        block.append(record)
        filled += own
    if block:
        yield block


FILTER_KEYS = ("since", "level", "node", "message", "stream", "robot", "machine", "target")
"""What terms of a filter may name; see `dorad.control.filters`. A robot is its machine."""


def filter_cells(record: LogRecord, now: float) -> dict[str, str | float | tuple[str, ...]]:
    """Return what a filter looks at; `since` is the age in seconds at the time `now`.

    Lines without a level have that of their output, which tables show as `out` or `err`.
    """
    return {
        "since": max(0.0, now - record.timestamp),
        "level": (RAW, record.stream.removeprefix("std")) if record.level == RAW else record.level,
        "node": record.node or "dora",
        "message": record.message,
        "stream": record.stream,
        "robot": record.machine or "",
        "machine": record.machine or "",
        "target": record.target or "",
    }

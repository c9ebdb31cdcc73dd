"""From a line of a node's output to a record: severity, origin, text."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any, TypeVar

from dorad.logrecord import LAST_MOMENT, RAW, Level, LogRecord, Stream

_LEVELS: dict[str, Level] = {
    "error": "error",
    "critical": "error",
    "fatal": "error",
    "warn": "warn",
    "warning": "warn",
    "info": "info",
    "debug": "debug",
    "trace": "trace",
    "stdout": RAW,
}
"""Every accepted spelling of a severity, in lower case."""

_PYTHON_LOGGING = re.compile(r"(CRITICAL|ERROR|WARNING|INFO|DEBUG):([\w.-]+):(.*)", re.DOTALL)
"""The default format of Python's logging: `WARNING:camera.driver:no frame`."""

_ROS2 = re.compile(
    r"(?:\[[\w.+-]{1,200}-\d+\] +)?\[(DEBUG|INFO|WARN|WARNING|ERROR|FATAL|CRITICAL)\]"
    r" (?:\[\d+\.\d+\] )?\[([\w./+-]{1,200})\]: (.*)",
    re.DOTALL,
)
"""The default format of ROS 2, and of what `ros2 launch` shows of the processes it starts:
`[talker-1] [WARN] [1700000000.123456789] [talker]: no frame`."""

_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")
_TOP = ("message", "target", "file", "line", "module_path")
_T = TypeVar("_T")


Sink = Callable[[Sequence[LogRecord]], None]
"""Gets records in order; must not block."""


def parse_line(line: bytes, node: str, stream: Stream, now: float) -> LogRecord:
    """Return the record of one output line (without its newline). Never raises.

    Three forms are structured: a JSON object with at least a known `level` and a `timestamp`, in
    the shape of our log methods or of Rust's `tracing` (text and origin inside `fields`), a line of
    Python's `logging` in its default format, and one of ROS 2 in its own. Any other line is a
    message at level `stdout` and time `now`. Invalid UTF-8 is replaced.
    """
    text = line.decode("utf-8", "replace")
    if text.startswith("{"):
        record = _from_json(text, node, stream)
        if record is not None:
            return record
    elif text[:1] in "[CEWID":
        match = (_ROS2 if text[:1] == "[" else _PYTHON_LOGGING).fullmatch(text)
        if match:
            level, target, message = match.groups()
            return LogRecord(now, _LEVELS[level.lower()], node, message, stream, target)
    return LogRecord(now, RAW, node, text, stream)


def parse_level(text: str) -> Level | None:
    """Return the level that `text` spells, in upper or lower case; None if unknown."""
    return _LEVELS.get(text.lower())


def _from_json(text: str, node: str, stream: Stream) -> LogRecord | None:
    try:
        data = json.loads(text)
    except (ValueError, RecursionError):
        return None
    if not isinstance(data, dict):
        return None
    if _SURROGATE.search(text):
        # JSON can contain a lone surrogate, which no output could encode.
        data = json.loads(json.dumps(data, ensure_ascii=False).encode("utf-8", "replace"))
    level, when = data.get("level"), _seconds(data.get("timestamp"))
    known = parse_level(level) if isinstance(level, str) else None
    if known is None or when is None:
        return None
    fields = data.get("fields")
    rest: dict[str, Any] = dict(fields) if isinstance(fields, dict) else {}
    if "message" not in data:
        # The shape of `tracing`: our top-level keys are inside its fields.
        data = {**data, "message": "", **{key: rest.pop(key) for key in _TOP if key in rest}}
    message = data["message"]
    return LogRecord(
        timestamp=when,
        level=known,
        node=node,
        message=message if isinstance(message, str) else json.dumps(message),
        stream=stream,
        target=_typed(data.get("target"), str),
        fields=rest or None,
        file=_typed(data.get("file"), str),
        line=_line_number(data.get("line")),
        module_path=_typed(data.get("module_path"), str),
    )


def _typed(value: object, kind: type[_T]) -> _T | None:
    return value if isinstance(value, kind) else None


def _line_number(value: object) -> int | None:
    return value if type(value) is int and 0 <= value < 1 << 31 else None


def _seconds(timestamp: object) -> float | None:
    """Return seconds since the epoch from RFC 3339 text or a number; None for anything else."""
    if isinstance(timestamp, str):
        try:
            moment = datetime.fromisoformat(timestamp)
            timestamp = (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
        except (ValueError, OverflowError):
            return None
    if isinstance(timestamp, int | float) and 0 < timestamp < LAST_MOMENT:
        return float(timestamp)
    return None

"""Log records as text: pretty, compact, and JSON lines."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Literal

import msgspec

from dorad.logrecord import RAW, LogRecord
from dorad.terminal import local_time, visible, visible_json, visible_lines

Format = Literal["pretty", "compact", "json"]
Formatter = Callable[[LogRecord], str]

_LEVEL_WIDTH = len(RAW)
_RESET = "\x1b[0m"
_INDENT = "    "
_LEVEL_COLORS = {
    "error": "\x1b[1;31m",
    "warn": "\x1b[33m",
    "info": "\x1b[32m",
    "debug": "\x1b[34m",
    "trace": "\x1b[2m",
    RAW: "\x1b[2m",
}
_NODE_COLORS = tuple(f"\x1b[38;5;{n}m" for n in (39, 208, 141, 43, 205, 178, 75, 113, 203, 80))
"""Ten distinct colours, readable on black and on white."""


def formatter(
    kind: Format,
    *,
    dataflow_id: str,
    nodes: Sequence[str] = (),
    color: bool = False,
    daemon_id: str | None = None,
) -> Formatter:
    """Return a function from a record to its line(s), without the last newline.

    pretty: `HH:MM:SS LEVEL node: target message`, with padded levels, so that nodes line up, and
    `machine/node` from a coordinator; compact: without target and padding; both with local time.
    json: the record as dora's `LogMessage`, with times in UTC, never with colours. `color` gives
    each of `nodes` its own colour. Control characters from nodes are escaped. Further lines of a
    message are indented, so that none looks like a line of another node.
    """
    if kind == "json":
        return lambda record: visible_json(log_message(record, dataflow_id, daemon_id))
    text = _TextFormatter(nodes, pretty=kind == "pretty")
    return text.colored if color else text.plain


class _TextFormatter:
    def __init__(self, nodes: Sequence[str], *, pretty: bool) -> None:
        self._pretty = pretty
        self._colors = {
            node: _NODE_COLORS[place % len(_NODE_COLORS)] for place, node in enumerate(nodes)
        }
        self._second = -1
        self._clock = ""

    def plain(self, record: LogRecord) -> str:
        level = self._level(record)
        return f"{self._time(record)} {level} {_origin(record)}: {self._text(record)}"

    def colored(self, record: LogRecord) -> str:
        level = self._level(record)
        shade = _LEVEL_COLORS[record.level]
        return (
            f"\x1b[2m{self._time(record)}{_RESET} {shade}{level}{_RESET} "
            f"{self._color(record.node)}{_origin(record)}{_RESET}: {self._text(record)}"
        )

    def _level(self, record: LogRecord) -> str:
        level = _shown_level(record)
        return level.ljust(_LEVEL_WIDTH) if self._pretty else level

    def _text(self, record: LogRecord) -> str:
        message = visible_lines(record.message, _INDENT)
        if self._pretty and record.target:
            return f"{visible(record.target)} {message}"
        return message

    def _time(self, record: LogRecord) -> str:
        second = int(record.timestamp)
        if second != self._second:
            self._second = second
            self._clock = local_time(second, "%H:%M:%S", "--:--:--")
        return self._clock

    def _color(self, node: str | None) -> str:
        """Return the colour of a node, chosen by its place in the dataflow, else by its name."""
        if node is None:
            return "\x1b[1m"
        if node not in self._colors:
            self._colors[node] = _NODE_COLORS[zlib.crc32(node.encode()) % len(_NODE_COLORS)]
        return self._colors[node]


def _level_name(record: LogRecord) -> str:
    return record.level if record.level == RAW else record.level.upper()


def _shown_level(record: LogRecord) -> str:
    """Return the level for people: a line without one is named after its output."""
    return record.stream if record.level == RAW else record.level.upper()


def _origin(record: LogRecord) -> str:
    if record.node is None:
        return f"[dora {visible(record.machine)}]" if record.machine else "[dora]"
    # A link has the same id on each machine, and so have the nodes of a release.
    return visible(f"{record.machine}/{record.node}" if record.machine else record.node)


def log_message(record: LogRecord, dataflow_id: str, daemon_id: str | None = None) -> str:
    """Return the record as dora's `LogMessage`: one JSON object on one line, times in UTC.

    A record from a coordinator has its machine as `daemon_id`.
    """
    message = {
        "build_id": None,
        "dataflow_id": dataflow_id,
        "node_id": record.node,
        "daemon_id": record.machine or daemon_id,
        "level": _level_name(record),
        "target": record.target,
        "module_path": record.module_path,
        "file": record.file,
        "line": record.line,
        "message": record.message,
        "timestamp": _iso(record.timestamp),
        "fields": record.fields,
    }
    try:
        return msgspec.json.encode(message).decode()
    except RecursionError:
        message["fields"] = {"left_out": "nested too deeply"}
        return msgspec.json.encode(message).decode()


def _iso(seconds: float) -> str:
    """Return a time as RFC 3339 in UTC; the beginning of 1970 for one that no calendar has."""
    try:
        moment = datetime.fromtimestamp(seconds, UTC)
    except (OverflowError, ValueError, OSError):
        moment = datetime.fromtimestamp(0, UTC)
    return moment.isoformat(timespec="microseconds").replace("+00:00", "Z")

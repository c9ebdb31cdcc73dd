"""A line of a log file: one JSON object with `ts level node stream msg target fields`.

`file`, `line` and `module_path` follow if the node gives them. `ts` has milliseconds.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import msgspec

from dorad.logrecord import LAST_MOMENT, RAW, LogRecord, Stream
from dorad.logs.record import parse_level


class _Line(msgspec.Struct, gc=False):
    ts: str
    level: str
    node: str | None
    stream: str
    msg: str
    target: str | None = None
    fields: dict[str, Any] | None = None
    file: str | msgspec.UnsetType = msgspec.UNSET
    line: int | msgspec.UnsetType = msgspec.UNSET
    module_path: str | msgspec.UnsetType = msgspec.UNSET


_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(_Line)
_RAW_END = b',"target":null,"fields":null}\n'
_RAW_EMPTY = b'""' + _RAW_END.rstrip()


def encode(records: Sequence[LogRecord]) -> list[bytes]:
    """Return the line of each record, newline included."""
    lines = []
    known: tuple[float, str | None, Stream] | None = None
    head = b""
    text = _encoder.encode
    for record in records:
        if record.level == RAW and record.target is None and record.fields is None:
            # Most lines share time, node and stream with their neighbours: encode those once.
            now = (record.timestamp, record.node, record.stream)
            if now != known:
                known = now
                head = text(_line(record, message="")).removesuffix(_RAW_EMPTY)
            lines.append(head + text(record.message) + _RAW_END)
        else:
            lines.append(_encode_any(record))
    return lines


def _line(record: LogRecord, message: str | None = None) -> _Line:
    return _Line(
        ts=timestamp(record.timestamp),
        level=record.level,
        node=record.node,
        stream=record.stream,
        msg=record.message if message is None else message,
        target=record.target,
        fields=None if record.fields is None else dict(record.fields),
        file=msgspec.UNSET if record.file is None else record.file,
        line=msgspec.UNSET if record.line is None else record.line,
        module_path=msgspec.UNSET if record.module_path is None else record.module_path,
    )


def _encode_any(record: LogRecord) -> bytes:
    line = _line(record)
    try:
        return _encoder.encode(line) + b"\n"
    except RecursionError:
        line.fields = {"left_out": "nested too deeply"}
        return _encoder.encode(line) + b"\n"


def decode(line: bytes) -> LogRecord:
    """Return the record of a line of a log file.

    Raises:
        ValueError: it is not a record, for example half a line written to a full disk.
    """
    try:
        record = _decoder.decode(line)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise ValueError(f"not a line of a log file: {error}") from error
    level = record.level if record.level == RAW else parse_level(record.level)
    if level is None:
        raise ValueError(f"not a log level: {record.level}")
    if record.line is not msgspec.UNSET and not 0 <= record.line < 1 << 31:
        raise ValueError("not a line number")
    return LogRecord(
        _seconds(record.ts),
        level,
        record.node,
        record.msg,
        "stderr" if record.stream == "stderr" else "stdout",
        record.target,
        record.fields,
        None if record.file is msgspec.UNSET else record.file,
        None if record.line is msgspec.UNSET else record.line,
        None if record.module_path is msgspec.UNSET else record.module_path,
    )


def timestamp(seconds: float) -> str:
    """Return a time as RFC 3339 in UTC with milliseconds."""
    moment = datetime.fromtimestamp(seconds, UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


_last_text = ""
_last_seconds = 0.0


def _seconds(text: str) -> float:
    """Return seconds since the epoch, or raise ValueError.

    The last one is cached: neighbouring lines often have the same time.
    """
    global _last_text, _last_seconds
    if text != _last_text:
        moment = datetime.fromisoformat(text)
        seconds = (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
        if not 0 <= seconds < LAST_MOMENT:
            raise ValueError(f"time is out of range: {text}")
        _last_text, _last_seconds = text, seconds
    return _last_seconds

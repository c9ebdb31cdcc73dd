"""From log lines to log records of OpenTelemetry, as functions of data."""

from __future__ import annotations

import re
import time
from typing import TYPE_CHECKING, Any

import msgspec
from opentelemetry._logs import LogRecord as OtelRecord
from opentelemetry._logs import SeverityNumber
from opentelemetry.sdk._logs import ReadableLogRecord
from opentelemetry.trace import (
    NonRecordingSpan,
    SpanContext,
    TraceFlags,
    set_span_in_context,
)

from dorad.telemetry.resources import SCOPE

if TYPE_CHECKING:
    from opentelemetry.context import Context
    from opentelemetry.sdk.resources import Resource

    from dorad.logrecord import LogRecord

MAX_FIELDS = 64
"""Fields of a line that become attributes; the rest is counted in one more."""
MAX_VALUE = 16_384
"""Characters of the value of a field."""

_SEVERITIES = {
    "trace": SeverityNumber.TRACE,
    "debug": SeverityNumber.DEBUG,
    "info": SeverityNumber.INFO,
    "warn": SeverityNumber.WARN,
    "error": SeverityNumber.ERROR,
}
_OF_STREAM = {"stdout": SeverityNumber.INFO, "stderr": SeverityNumber.WARN}
"""Of lines without a severity, as `dora logs` counts them."""
_TRACE_ID = re.compile(r"[0-9a-f]{32}")
_SPAN_ID = re.compile(r"[0-9a-f]{16}")
_INT64 = 1 << 63


def log_record(record: LogRecord, resource: Resource) -> ReadableLogRecord:
    """Return a line as the exporters want it."""
    fields = record.fields or {}
    severity = _SEVERITIES.get(record.level) or _OF_STREAM[record.stream]
    return ReadableLogRecord(
        OtelRecord(
            timestamp=int(record.timestamp * 1e9),
            observed_timestamp=time.time_ns(),
            context=_trace_context(fields),
            severity_number=severity,
            severity_text=record.level if record.level in _SEVERITIES else None,
            body=_text(record.message),
            attributes=_attributes(record, fields),
        ),
        resource,
        SCOPE,
    )


def _attributes(record: LogRecord, fields: dict[str, Any]) -> dict[str, Any]:
    attributes: dict[str, Any] = {}
    for name in list(fields)[:MAX_FIELDS]:
        attributes[_text(name)] = _value(fields[name])
    if len(fields) > MAX_FIELDS:
        attributes["dora.log.fields_left_out"] = len(fields) - MAX_FIELDS
    attributes["log.iostream"] = record.stream
    for name, value in (
        ("dora.log.target", record.target),
        ("code.file.path", record.file),
        ("code.line.number", record.line),
        ("code.module", record.module_path),
    ):
        if value is not None:
            attributes[name] = _value(value)
    return attributes


def _value(value: Any) -> str | int | float | bool:
    if isinstance(value, bool | float):
        return value
    if isinstance(value, int):
        return value if -_INT64 <= value < _INT64 else str(value)
    if not isinstance(value, str):
        try:
            value = msgspec.json.encode(value).decode()
        except (RecursionError, msgspec.MsgspecError, UnicodeError):
            value = "(nested too deeply)"
    return _text(value[:MAX_VALUE])


def _text(text: str) -> str:
    """Return text that UTF-8 can express: a line may have half of a character."""
    return text if text.isascii() else text.encode("utf-8", "replace").decode()


def _trace_context(fields: dict[str, Any]) -> Context | None:
    """Return the context of a line with ids of a trace; None if it has none that are valid."""
    trace, span = fields.get("trace_id"), fields.get("span_id")
    if not isinstance(trace, str) or not _TRACE_ID.fullmatch(trace) or not int(trace, 16):
        return None
    if not isinstance(span, str) or not _SPAN_ID.fullmatch(span) or not int(span, 16):
        return None
    flags = TraceFlags(TraceFlags.SAMPLED)
    context = SpanContext(int(trace, 16), int(span, 16), is_remote=True, trace_flags=flags)
    return set_span_in_context(NonRecordingSpan(context))

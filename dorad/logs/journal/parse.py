"""From the journal's entries, as `journalctl -o json` prints them, to records."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from dorad.logrecord import LAST_MOMENT, RAW, LogRecord
from dorad.logs.journal.entry import DAEMON_STREAM
from dorad.logs.paths import DAEMON
from dorad.logs.record import parse_level

if TYPE_CHECKING:
    from collections.abc import Mapping

FIELDS = (
    "MESSAGE",
    "DORA_NODE",
    "DORA_STREAM",
    "DORA_LEVEL",
    "DORA_TARGET",
    "DORA_TIME",
    "DORA_SEQ",
    "DORA_FIELDS",
    "CODE_FILE",
    "CODE_LINE",
    "CODE_FUNC",
)
"""The fields of an entry that are read."""

_DIGITS = re.compile(r"[0-9]{1,19}")

_decoder = msgspec.json.Decoder(dict[str, Any])
_fields_decoder = msgspec.json.Decoder(dict[str, Any])


class JournalEntry(NamedTuple):
    """One entry: its lines, and what identifies it."""

    records: list[LogRecord]
    node: str
    stream: str
    number: int
    cursor: str
    """Its position in the journal."""


def parse(line: bytes) -> JournalEntry | None:
    """Return the entry of one line of JSON; None if it is not one that dorad writes."""
    try:
        found = _decoder.decode(line)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    node, stream, level, message, micros, number = (
        _text(found, key)
        for key in ("DORA_NODE", "DORA_STREAM", "DORA_LEVEL", "MESSAGE", "DORA_TIME", "DORA_SEQ")
    )
    if message is None or node is None or stream not in ("stdout", "stderr", DAEMON_STREAM):
        return None
    known = RAW if level == RAW else parse_level(level or "")
    when, at = _number(micros, LAST_MOMENT * 1_000_000), _number(number, 1 << 63)
    if known is None or when is None or at is None:
        return None
    record = LogRecord(
        timestamp=when / 1e6,
        level=known,
        node=None if node == DAEMON else node,
        message=message,
        stream="stderr" if stream == "stderr" else "stdout",
        target=_text(found, "DORA_TARGET"),
        fields=_fields(_text(found, "DORA_FIELDS")),
        file=_text(found, "CODE_FILE"),
        line=_number(_text(found, "CODE_LINE"), 1 << 31),
        module_path=_text(found, "CODE_FUNC"),
    )
    return JournalEntry(_lines(record), node, stream, at, _text(found, "__CURSOR") or "")


def _number(text: str | None, limit: int) -> int | None:
    """Return a whole number of at least 0 and below `limit`; None for any other text."""
    if text is None or not _DIGITS.fullmatch(text):
        return None
    number = int(text)
    return number if number < limit else None


def _lines(record: LogRecord) -> list[LogRecord]:
    """Split joined raw lines: a raw line itself never contains a newline."""
    if record.level != RAW or "\n" not in record.message:
        return [record]
    lines = record.message.split("\n")
    return [msgspec.structs.replace(record, message=line) for line in lines]


def _text(found: Mapping[str, Any], key: str) -> str | None:
    """Return a field; the journal gives unprintable ones as a list of byte values."""
    value = found.get(key)
    if isinstance(value, list) and value and not isinstance(value[0], int):
        value = value[0]  # the field occurs more than once
    if isinstance(value, list):
        try:
            return bytes(value).decode("utf-8", "replace")
        except (TypeError, ValueError, OverflowError):
            return None
    return value if isinstance(value, str) else None


def _fields(text: str | None) -> dict[str, Any] | None:
    if text is None:
        return None
    try:
        return _fields_decoder.decode(text)
    except (msgspec.DecodeError, RecursionError):
        return None

"""Records as entries of the journal, in the bytes of its native protocol.

The protocol is at https://systemd.io/JOURNAL_NATIVE_PROTOCOL: `NAME=value` and a newline, or, for
a value with newlines, `NAME`, a newline, its length as 64 bits, the value and a newline.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from dorad.logrecord import RAW, LogRecord
from dorad.logs.paths import DAEMON

DAEMON_STREAM = "daemon"
"""The stream of the daemon's reports; nodes have `stdout` and `stderr`."""

_PRIORITY = {"error": b"3", "warn": b"4", "info": b"6", "debug": b"7", "trace": b"7"}
_encoder = msgspec.json.Encoder()


class Origin:
    """The fields that all entries of one stream share."""

    def __init__(
        self,
        dataflow: str,
        name: str | None,
        node: str | None,
        stream: str,
        unit: str | None = None,
    ) -> None:
        """`node` is None for the daemon; `unit` is the systemd unit of the node's process, if any.

        With a unit, its `systemctl status` also shows the lines.
        """
        fields = [
            ("SYSLOG_IDENTIFIER", "dorad" if stream == DAEMON_STREAM else node or DAEMON),
            ("DORA_DATAFLOW", dataflow),
            ("DORA_DATAFLOW_NAME", name),
            ("DORA_NODE", node or DAEMON),
            ("DORA_STREAM", stream),
            ("OBJECT_SYSTEMD_UNIT", unit),
        ]
        self.head = b"".join(field(key, value.encode()) for key, value in fields if value)


def field(name: str, value: bytes) -> bytes:
    """Return the bytes of one field."""
    if b"\n" in value:
        return b"%b\n%b%b\n" % (name.encode(), len(value).to_bytes(8, "little"), value)
    return b"%b=%b\n" % (name.encode(), value)


def encode(origin: Origin, records: Sequence[LogRecord], number: int) -> bytes:
    """Return the entry of one record, or of several raw lines that belong together.

    `number` is unique per node and stream, and rises.
    """
    record = records[0]
    message = record.message
    if len(records) > 1:
        message = "\n".join(each.message for each in records)
    level = record.level
    raw = "warn" if record.stream == "stderr" else "info"
    priority = _PRIORITY[raw if level == RAW else level]
    entry = b"%bPRIORITY=%b\nDORA_LEVEL=%b\nDORA_SEQ=%d\nDORA_TIME=%d\n%b" % (
        origin.head,
        priority,
        level.encode(),
        number,
        round(record.timestamp * 1e6),
        field("MESSAGE", message.encode("utf-8", "replace")),
    )
    if level == RAW and record.target is None and record.fields is None:
        return entry
    more = {
        "DORA_TARGET": record.target,
        "CODE_FILE": record.file,
        "CODE_LINE": None if record.line is None else str(record.line),
        "CODE_FUNC": record.module_path,
    }
    for name, value in more.items():
        if value is not None:
            entry += field(name, value.encode("utf-8", "replace"))
    if record.fields is not None:
        entry += field("DORA_FIELDS", _json(record))
    return entry


def _json(record: LogRecord) -> bytes:
    try:
        return _encoder.encode(record.fields)
    except RecursionError:
        return _encoder.encode({"left_out": "nested too deeply"})

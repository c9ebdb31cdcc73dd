"""Messages of a recording that no node sends: log lines, events of the dataflow, hop records."""

from __future__ import annotations

import json
from datetime import datetime
from typing import Any

from dorad.record.encoding import protobuf
from dorad.record.encoding.messages import Encoded, Kind
from dorad.record.encoding.protobuf import (
    FIXED32,
    STRING,
    Field,
    delimited,
    fixed32,
    foxglove_schema,
    number,
    timestamp_field,
)

LOG_TOPIC = "dora/log"
HOPS_TOPIC = "dora/hops"
"""Hop records in batches, as `dorad.trace.hopbatch` makes them. Other readers skip them."""
CONTROL_TOPIC = "dora/control"
HOPS = "hops"
"""Key in `dora.recording`: 1 if the recorder gets hop records, absent in older recordings."""
PARAM_TOPIC = "dora/param"
TICK_TOPIC = "dora/tick"
"""The start of the topics of timers, `dora/tick/<node>/<input>`."""

_OWN = "dora/"

# foxglove.Log declares its level as an enumeration; an int32 (5) has the same bytes.
_LOG_SCHEMA = foxglove_schema(
    "Log",
    (
        Field("level", 2, 5),
        Field("message", 3, STRING),
        Field("name", 4, STRING),
        Field("file", 5, STRING),
        Field("line", 6, FIXED32),
        Field("metadata", protobuf.METADATA_FIELD, STRING),
    ),
)
LOG = Kind("protobuf", "foxglove.Log", "protobuf", _LOG_SCHEMA, b"", "")
_EVENT = Kind("json", "dora.Event", "jsonschema", b'{"type":"object"}', b"", "")
_TICK = Kind("json", "dora.Tick", "jsonschema", b'{"type":"object"}', b"", "")
HOP_BATCH = Kind("msgpack", "", "", b"", b"", "")
TICK = Encoded(_TICK, b"", b"{}", b"")
"""The message of every tick: its time and its number say all."""

_LEVELS = {"trace": 1, "debug": 1, "info": 2, "stdout": 2, "warn": 3, "error": 4}


def is_own(topic: str) -> bool:
    """Return True for a topic that the recorder adds to those of nodes. No node is called dora."""
    return topic.startswith(_OWN)


def event(kind: str, /, **fields: Any) -> Encoded:
    """Return a message for `CONTROL_TOPIC` or `PARAM_TOPIC`."""
    return Encoded(_EVENT, b"", json.dumps({"event": kind, **fields}, default=str).encode(), b"")


def log_line(line: dict[str, Any], stamp: int) -> Encoded:
    """Return a message for `LOG_TOPIC`: one line of `dora/logs`, received at `stamp` ns."""
    level = _LEVELS.get(str(line.get("level", "")).lower(), 0)
    head = timestamp_field(1, _time_of(line.get("timestamp"), stamp)) + number(2, level)
    head += delimited(3, _text(line.get("message"))) + delimited(4, _text(line.get("node_id")))
    if isinstance(line.get("file"), str):
        head += delimited(5, _text(line["file"]))
    place = line.get("line")
    if isinstance(place, int) and 0 <= place < 1 << 32:
        head += fixed32(6, place)
    whole = json.dumps(line).encode()
    return Encoded(LOG, head, b"", delimited(protobuf.METADATA_FIELD, whole))


def _text(value: Any) -> bytes:
    return ("" if value is None else str(value)).encode("utf-8", "replace")


def _time_of(value: Any, default: int) -> int:
    try:
        return max(0, round(datetime.fromisoformat(value).timestamp() * 1e9))
    except (TypeError, ValueError, OverflowError):
        return default

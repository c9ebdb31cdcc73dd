"""The file of a node's test inputs: `DORA_WRITE_EVENTS_TO` writes it, `DORA_TEST_WITH_INPUTS` reads
it. It is a JSON object with the node's `id`, its `events`, and the values of its `params`, if any.

An event has a `type` (`Input`, `InputClosed`, `AllInputsClosed`, `Stop`) and a `time_offset_secs`
since the node's start. The first two types have an `id`. An input has `data` with an optional
`data_type`, or the `path` of an Arrow file. Metadata is an object of values with their type:
`{"count": {"Integer": 3}}`; plain values are accepted too.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from dorad.node import events

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

_TAGS: dict[str, Callable[[Any], Any]] = {
    "Bool": bool,
    "Integer": int,
    "Float": float,
    "String": str,
    "ListInt": lambda values: [int(value) for value in values],
    "ListFloat": lambda values: [float(value) for value in values],
    "ListString": lambda values: [str(value) for value in values],
    "Timestamp": lambda text: _timestamp(text),
}


@dataclass(slots=True)
class TimedEvent:
    """An event and its time, in seconds after the node's start."""

    offset: float
    event: events.Event


@dataclass(slots=True)
class Recording:
    """The content of a file of test inputs; `events` are sorted by time."""

    node_id: str
    inputs: dict[str, Any] = field(default_factory=dict)
    outputs: list[str] = field(default_factory=list)
    params: dict[str, Any] = field(default_factory=dict)
    description: dict[str, Any] = field(default_factory=dict)
    events: list[TimedEvent] = field(default_factory=list)


def load(path: Path) -> Recording:
    """Read a file of test inputs.

    Raises:
        RuntimeError: it cannot be read, or is not valid; the text names the event.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise RuntimeError(f"{path}: cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise RuntimeError(f"{path}: is not JSON: {error}") from error
    try:
        return _parse(content)
    except ValueError as error:
        raise RuntimeError(f"{path}: {error}") from error


def _parse(content: Any) -> Recording:
    if not isinstance(content, dict):
        raise ValueError("must be an object with the keys `id` and `events`")
    node_id = content.get("id")
    if not isinstance(node_id, str) or not node_id or "/" in node_id:
        raise ValueError("`id` must be the node's id")
    timed = content.get("events")
    if not isinstance(timed, list):
        raise ValueError("`events` must be a list")
    _refuse_incomplete(content.get("recording_status"))
    recording = Recording(node_id)
    recording.inputs = _typed(content, "inputs", dict)
    recording.outputs = _typed(content, "outputs", list)
    recording.params = _typed(content, "params", dict)
    omitted = ("events", "recording_status")
    recording.description = {key: content[key] for key in content if key not in omitted}
    for index, entry in enumerate(timed):
        try:
            recording.events.append(_timed_event(entry))
        except (ValueError, OSError) as error:
            raise ValueError(f"events[{index}]: {error}") from error
    recording.events.sort(key=lambda timed: timed.offset)
    return recording


def _typed(content: dict[str, Any], key: str, kind: type) -> Any:
    value = content.get(key) or kind()
    if not isinstance(value, kind):
        raise ValueError(f"`{key}` must be {'an object' if kind is dict else 'a list'}")
    return value


def _refuse_incomplete(status: Any) -> None:
    if isinstance(status, dict) and status.get("state") == "poisoned":
        raise ValueError(
            "the recording is incomplete from event "
            f"{status.get('first_failure_event_index')} on: {status.get('first_failure_error')}"
        )


def _timed_event(entry: Any) -> TimedEvent:
    if not isinstance(entry, dict):
        raise ValueError("must be an object")
    offset = entry.get("time_offset_secs")
    if isinstance(offset, bool) or not isinstance(offset, int | float) or not 0 <= offset < 1e9:
        raise ValueError("`time_offset_secs` must be seconds since the node's start")
    kind = entry.get("type")
    if kind == "Stop":
        return TimedEvent(offset, events.stop(events.MANUAL))
    if kind == "AllInputsClosed":
        return TimedEvent(offset, events.stop(events.ALL_INPUTS_CLOSED))
    if kind not in ("Input", "InputClosed"):
        raise ValueError(
            f"there is no event type {kind!r}; known are Input, InputClosed, AllInputsClosed, Stop"
        )
    input_id = entry.get("id")
    if not isinstance(input_id, str):
        raise ValueError("`id` must be the input's id")
    if kind == "InputClosed":
        return TimedEvent(offset, events.input_closed(input_id))
    metadata = {key: _untag(key, value) for key, value in _typed(entry, "metadata", dict).items()}
    if "data" not in entry and "path" not in entry:
        return TimedEvent(offset, events.tick(input_id, metadata))
    value = _value(entry)
    event = {"kind": "dora", "type": "INPUT", "id": input_id, "value": value, "metadata": metadata}
    return TimedEvent(offset, event)


def _value(entry: dict[str, Any]) -> Any:
    if "path" in entry:
        return _from_arrow_file(entry["path"], entry.get("batch_index", 0), entry.get("column"))
    from dorad.node.offline.arrowjson import from_json

    return from_json(entry["data"], entry.get("data_type"))


def _from_arrow_file(path: str, batch_index: int, column: str | None) -> Any:
    import pyarrow as pa

    try:
        with pa.memory_map(path) as source:
            batch = pa.ipc.open_file(source).get_batch(batch_index)
    except (pa.ArrowException, ValueError, TypeError) as error:
        raise ValueError(f"batch {batch_index} of {path} cannot be read: {error}") from error
    if column is None:
        return batch.to_struct_array()
    if column not in batch.schema.names:
        raise ValueError(f"{path} has no column {column!r}; it has {batch.schema.names}")
    return batch.column(column)


def tag(metadata: dict[str, Any]) -> dict[str, Any]:
    """Return received metadata in the form of the file.

    A datetime `timestamp` is omitted, because every message gets one.
    """
    tagged = {}
    for key, value in metadata.items():
        if not (key == "timestamp" and isinstance(value, datetime)):
            tagged[key] = _tagged(value)
    return tagged


def _tagged(value: Any) -> dict[str, Any]:
    match value:
        case bool():
            return {"Bool": value}
        case int():
            return {"Integer": value}
        case float():
            return {"Float": value}
        case datetime():
            return {"Timestamp": value.astimezone(UTC).isoformat().replace("+00:00", "Z")}
        case [int(), *_]:
            return {"ListInt": value}
        case [float(), *_]:
            return {"ListFloat": value}
        case list():
            return {"ListString": value}
    return {"String": str(value)}


def _untag(key: str, value: Any) -> Any:
    if not isinstance(value, dict):
        return value
    if len(value) == 1:
        ((name, content),) = value.items()
        if name in _TAGS:
            try:
                return _TAGS[name](content)
            except (TypeError, ValueError) as error:
                raise ValueError(f"metadata {key!r}: {content!r} is not a valid {name}") from error
    raise ValueError(f"metadata {key!r} must be an object of one key: {', '.join(_TAGS)}")


def _timestamp(text: str) -> datetime:
    moment = datetime.fromisoformat(text)
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).astimezone(UTC)

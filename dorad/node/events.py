"""The events that a node receives: dictionaries with the same keys as dora's.

Each has `kind` and `type`, most have `id`; the other keys depend on the type.
"""

from __future__ import annotations

import functools
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from _collections_abc import dict_items, dict_values
    from collections.abc import Iterator

    import pyarrow as pa

Event = dict[str, Any]

MANUAL = "MANUAL"
ALL_INPUTS_CLOSED = "ALL_INPUTS_CLOSED"

FINISHED = "finished"
TIMEOUT = "timeout"


def stop(reason: str) -> Event:
    """Return a STOP event; `reason` is MANUAL or ALL_INPUTS_CLOSED."""
    return {"kind": "dora", "type": "STOP", "id": reason}


def input_closed(input_id: str, reason: str = FINISHED) -> Event:
    """Return the event that closes an input.

    `reason` is "finished", or "timeout" when nothing came within `input_timeout`; after a timeout
    the input may recover.
    """
    return {"kind": "dora", "type": "INPUT_CLOSED", "id": input_id, "reason": reason}


def input_recovered(input_id: str) -> Event:
    """Return the event that a closed input receives messages again."""
    return {"kind": "dora", "type": "INPUT_RECOVERED", "id": input_id}


def node_restarted(source: str) -> Event:
    """Return the event that a source node is being restarted."""
    return {"kind": "dora", "type": "NODE_RESTARTED", "id": source}


def param_update(key: str, value: Any) -> Event:
    """Return the event for a new parameter value."""
    return {"kind": "dora", "type": "PARAM_UPDATE", "id": key, "value": value}


def param_deleted(key: str) -> Event:
    """Return the event for a deleted parameter."""
    return {"kind": "dora", "type": "PARAM_DELETED", "id": key}


def node_failed(source: str, error: str, inputs: list[str]) -> Event:
    """Return the event that a source node has failed and will not be restarted."""
    value = {"source_node_id": source, "error": error, "affected_input_ids": inputs}
    return {"kind": "dora", "type": "NODE_FAILED", "id": source, "value": value}


def dataflow_event(what: str, node: str | None, text: str, data: dict[str, Any]) -> Event:
    """Return an event about any part of the dataflow; only recorders get it."""
    value = {"node": node, "text": text, **data}
    return {"kind": "dora", "type": "HAPPENED", "id": what, "value": value}


def reload(operator: str) -> Event:
    """Return the event that a changed operator file was reloaded."""
    return {"kind": "dora", "type": "RELOAD", "id": operator}


def error(text: str) -> Event:
    """Return an ERROR event."""
    return {"kind": "dora", "type": "ERROR", "error": text}


def external(value: Any) -> Event:
    """Return the event of a value from outside the dataflow. In dora it has no `type`."""
    return {"kind": "external", "type": "EXTERNAL", "value": value}


def timed_out(seconds: float) -> Event:
    """Return the result of `next(timeout)` when nothing came: an event, not None, as in dora."""
    return error(f"Timeout event stream error: Receiver timed out after {seconds:g} s")


def tick(input_id: str, metadata: dict[str, Any]) -> Event:
    """Return a timer's event; its value is an empty null array."""
    if "pyarrow" in sys.modules:
        return {
            "kind": "dora",
            "type": "INPUT",
            "id": input_id,
            "value": _no_value(),
            "metadata": metadata,
        }
    return _Tick(input_id, metadata)


@functools.cache
def _no_value() -> pa.Array:
    """Return the value of all ticks: an Arrow array never changes."""
    import pyarrow as pa

    return pa.nulls(0)


class _Tick(Event):
    """A timer's event whose value is created at first access.

    A node that only counts ticks never imports pyarrow.
    """

    def __init__(self, input_id: str, metadata: dict[str, Any]) -> None:
        super().__init__(kind="dora", type="INPUT", id=input_id, value=_Tick, metadata=metadata)

    def _materialize(self) -> None:
        if super().get("value") is _Tick:
            super().__setitem__("value", _no_value())

    def __getitem__(self, key: str) -> Any:
        if key == "value":
            self._materialize()
        return super().__getitem__(key)

    # With __iter__ overridden, dict(event) and {**event} use __getitem__ for the values.
    def __iter__(self) -> Iterator[str]:
        return super().__iter__()

    def get(self, key: str, default: Any = None) -> Any:
        if key == "value":
            self._materialize()
        return super().get(key, default)

    def pop(self, key: str, *default: Any) -> Any:
        self._materialize()
        return super().pop(key, *default)

    def popitem(self) -> tuple[str, Any]:
        self._materialize()
        return super().popitem()

    def setdefault(self, key: str, default: Any = None) -> Any:
        self._materialize()
        return super().setdefault(key, default)

    def values(self) -> dict_values[str, Any]:
        self._materialize()
        return super().values()

    def items(self) -> dict_items[str, Any]:
        self._materialize()
        return super().items()

    def copy(self) -> Event:
        return dict(self.items())

    def __eq__(self, other: object) -> bool:
        self._materialize()
        if isinstance(other, _Tick):
            other._materialize()
        return super().__eq__(other)

    def __ne__(self, other: object) -> bool:
        return not self == other

    __hash__ = None

    def __repr__(self) -> str:
        self._materialize()
        return super().__repr__()

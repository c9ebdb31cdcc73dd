"""Event dictionaries; above all, a tick behaves like any dictionary."""

import copy
import json
import operator
import pickle
from collections import ChainMap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from dorad.node import events
from dorad.node.events import Event, _Tick
from tests.node.bed import run_source

KEYS = ["kind", "type", "id", "value", "metadata"]


def tick() -> Event:
    """Return a tick as made before pyarrow was imported."""
    return _Tick("in", {"timestamp": 1})


def matched(event: Event) -> Any:
    match event:
        case {"type": "INPUT", "value": value}:
            return value
    return None


def rest(event: Event) -> Any:
    match event:
        case {"type": "INPUT", **others}:
            return others["value"]
    return None


def keywords(**given: Any) -> dict[str, Any]:
    return given


def updated(event: Event) -> dict[str, Any]:
    target: dict[str, Any] = {}
    target.update(event)
    return target


def popped(event: Event) -> Any:
    items = dict(event.popitem() for _ in KEYS)
    return items["value"]


def in_place(event: Event) -> Any:
    event |= {"more": 1}
    return event["value"]


WAYS: dict[str, Callable[[Event], Any]] = {
    "key": operator.itemgetter("value"),
    "get": lambda event: event.get("value"),
    "pop": lambda event: event.pop("value"),
    "pop-default": lambda event: event.pop("value", None),
    "popitem": popped,
    "setdefault": lambda event: event.setdefault("value", None),
    "values": lambda event: list(event.values())[KEYS.index("value")],
    "items": lambda event: dict(event.items())["value"],
    "copy": lambda event: event.copy()["value"],
    "copy.copy": lambda event: copy.copy(event)["value"],
    "deepcopy": lambda event: copy.deepcopy(event)["value"],
    "pickle": lambda event: pickle.loads(pickle.dumps(event))["value"],
    "dict": lambda event: dict(event)["value"],
    "unpacked": lambda event: {**event}["value"],
    "keywords": lambda event: keywords(**event)["value"],
    "update": lambda event: updated(event)["value"],
    "or": lambda event: (event | {"more": 1})["value"],
    "ror": lambda event: ({"more": 1} | event)["value"],
    "ior": in_place,
    "match": matched,
    "match-rest": rest,
    "chain": lambda event: ChainMap({}, event)["value"],
}


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
def test_a_ticks_value_is_an_empty_null_array(way: Callable[[Event], Any]) -> None:
    value = way(tick())
    assert isinstance(value, pa.NullArray)
    assert len(value) == 0


def test_a_tick_is_written_out_with_its_value() -> None:
    for text in (repr(tick()), str(tick()), f"{tick()}", "{value}".format_map(tick())):
        assert "0 nulls" in text
    assert json.loads(json.dumps(tick(), default=str))["value"] == "0 nulls"


def test_a_tick_has_the_keys_of_an_input() -> None:
    assert list(tick()) == list(tick().keys()) == KEYS
    assert len(tick()) == 5
    assert "value" in tick()
    assert isinstance(tick(), dict)


def test_ticks_compare_by_their_content() -> None:
    assert tick() == tick()
    assert tick() == dict(tick())
    assert dict(tick()) == tick()
    assert not operator.ne(tick(), tick())
    assert tick() != _Tick("other", {"timestamp": 1})
    with pytest.raises(TypeError, match="unhashable"):
        hash(tick())


def test_a_tick_can_be_changed() -> None:
    event = tick()
    event["value"] = 5
    event["more"] = 6
    assert (event["value"], event["more"]) == (5, 6)
    del event["value"]
    assert event.get("value", 7) == 7
    with pytest.raises(KeyError):
        event.pop("value")


def test_pyarrow_is_imported_when_the_value_of_a_tick_is_first_read(
    tmp_path: Path,
) -> None:
    ended = run_source(
        """
        import sys
        from dorad.node.events import tick

        event = tick("in", {"timestamp": 1})
        event["type"], event.get("id"), event["metadata"], "value" in event, list(event), len(event)
        print("pyarrow" in sys.modules)
        print(type(event["value"]).__name__, "pyarrow" in sys.modules)
        print(type(tick("in", {})).__name__)
        """,
        cwd=tmp_path,
    )
    assert ended.stdout.splitlines() == ["False", "NullArray True", "dict"], ended.stderr


def test_events_of_other_types_have_doras_keys() -> None:
    assert events.stop(events.MANUAL) == {"kind": "dora", "type": "STOP", "id": "MANUAL"}
    assert events.input_recovered("a") == {"kind": "dora", "type": "INPUT_RECOVERED", "id": "a"}
    assert events.node_restarted("b") == {"kind": "dora", "type": "NODE_RESTARTED", "id": "b"}
    assert events.param_update("p", [1]) == {
        "kind": "dora",
        "type": "PARAM_UPDATE",
        "id": "p",
        "value": [1],
    }
    assert events.param_deleted("p") == {"kind": "dora", "type": "PARAM_DELETED", "id": "p"}
    assert events.node_failed("cam", "exited with code 3", ["image"]) == {
        "kind": "dora",
        "type": "NODE_FAILED",
        "id": "cam",
        "value": {
            "source_node_id": "cam",
            "error": "exited with code 3",
            "affected_input_ids": ["image"],
        },
    }


def test_input_closed_has_a_reason_besides_doras_keys() -> None:
    finished = {"kind": "dora", "type": "INPUT_CLOSED", "id": "a", "reason": "finished"}
    assert events.input_closed("a") == finished
    assert events.input_closed("a", events.TIMEOUT) == finished | {"reason": "timeout"}


def test_a_timeout_is_an_error_event_with_doras_words() -> None:
    event = events.timed_out(0.5)
    assert event["type"] == "ERROR"
    assert event["error"].startswith("Timeout event stream error: Receiver timed out")

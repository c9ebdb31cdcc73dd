"""The file of test inputs: its format, and the messages about its mistakes."""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from dorad.node.offline.testfile import Recording, load, tag


def loaded(folder: Path, content: Any) -> Recording:
    path = folder / "inputs.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return load(path)


def events(folder: Path, *entries: dict[str, Any]) -> list[dict[str, Any]]:
    content = {"id": "node", "events": [{"time_offset_secs": 0, **entry} for entry in entries]}
    return [timed.event for timed in loaded(folder, content).events]


def test_events_come_in_the_order_of_their_times(tmp_path: Path) -> None:
    content = {
        "id": "node",
        "events": [
            {"type": "InputClosed", "id": name, "time_offset_secs": offset}
            for name, offset in (("late", 2.5), ("first", 1), ("second", 1))
        ],
    }
    found = loaded(tmp_path, content)
    assert [(timed.event["id"], timed.offset) for timed in found.events] == [
        ("first", 1),
        ("second", 1),
        ("late", 2.5),
    ]


def test_each_type_of_event(tmp_path: Path) -> None:
    stopped, ended, closed = events(
        tmp_path,
        {"type": "Stop"},
        {"type": "AllInputsClosed"},
        {"type": "InputClosed", "id": "a"},
    )
    assert stopped == {"kind": "dora", "type": "STOP", "id": "MANUAL"}
    assert ended == {"kind": "dora", "type": "STOP", "id": "ALL_INPUTS_CLOSED"}
    assert closed == {"kind": "dora", "type": "INPUT_CLOSED", "id": "a", "reason": "finished"}


def test_an_input_without_data_is_a_tick(tmp_path: Path) -> None:
    (event,) = events(tmp_path, {"type": "Input", "id": "tick"})
    assert (event["type"], event["id"], event["metadata"]) == ("INPUT", "tick", {})
    assert event["value"].equals(pa.nulls(0))


def test_data_becomes_an_array(tmp_path: Path) -> None:
    (event,) = events(tmp_path, {"type": "Input", "id": "a", "data": [1], "data_type": "Int8"})
    assert event["value"].equals(pa.array([1], pa.int8()))


def test_data_may_be_in_an_arrow_file(tmp_path: Path) -> None:
    path = tmp_path / "data.arrow"
    with pa.ipc.new_file(path, pa.schema({"x": pa.int64(), "y": pa.string()})) as writer:
        for n in range(2):
            writer.write_batch(pa.record_batch({"x": [n], "y": [str(n)]}))
    column, struct = events(
        tmp_path,
        {"type": "Input", "id": "a", "path": str(path), "batch_index": 1, "column": "y"},
        {"type": "Input", "id": "a", "path": str(path)},
    )
    assert column["value"].to_pylist() == ["1"]
    assert struct["value"].to_pylist() == [{"x": 0, "y": "0"}]


METADATA: dict[str, Any] = {
    "bool": True,
    "int": 3,
    "float": 1.5,
    "text": "x",
    "ints": [1, 2],
    "floats": [1.0],
    "texts": ["a"],
    "none": [],
    "time": datetime(2026, 1, 2, 3, 4, 5, 6, tzinfo=UTC),
}


def test_metadata_is_read_back_with_its_types(tmp_path: Path) -> None:
    tagged = tag(METADATA)
    assert tagged["int"] == {"Integer": 3}
    (event,) = events(tmp_path, {"type": "Input", "id": "a", "metadata": tagged})
    assert event["metadata"] == METADATA


def test_plain_metadata_is_accepted(tmp_path: Path) -> None:
    (event,) = events(tmp_path, {"type": "Input", "id": "a", "metadata": {"n": 1, "l": ["a"]}})
    assert event["metadata"] == {"n": 1, "l": ["a"]}


def test_a_datetime_timestamp_is_omitted_and_a_number_is_kept() -> None:
    assert tag({"timestamp": datetime.now(UTC)}) == {}
    assert tag({"timestamp": 5}) == {"timestamp": {"Integer": 5}}


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("{", "not JSON"),
        ([], "must be an object"),
        ({}, "`id`"),
        ({"id": "a/b", "events": []}, "`id`"),
        ({"id": "a"}, "`events` must be a list"),
        ({"id": "a", "events": [5]}, r"events\[0\]: must be an object"),
        ({"id": "a", "events": [], "inputs": []}, None),
        ({"id": "a", "events": [], "inputs": [1]}, "`inputs` must be an object"),
    ],
    ids=repr,
)
def test_mistakes_of_the_file(tmp_path: Path, content: Any, expected: str | None) -> None:
    if expected is None:
        loaded(tmp_path, content)
    else:
        with pytest.raises(RuntimeError, match=rf"inputs\.json: .*{expected}"):
            loaded(tmp_path, content)


@pytest.mark.parametrize(
    ("entry", "expected"),
    [
        ({"type": "Foo"}, "no event type 'Foo'; known are Input"),
        ({"type": "Input"}, "`id`"),
        ({"type": "Input", "id": "a", "time_offset_secs": None}, "`time_offset_secs`"),
        ({"type": "Input", "id": "a", "time_offset_secs": -1}, "`time_offset_secs`"),
        ({"type": "Input", "id": "a", "time_offset_secs": True}, "`time_offset_secs`"),
        ({"type": "Input", "id": "a", "data": ["x"], "data_type": "Int8"}, "does not fit"),
        ({"type": "Input", "id": "a", "data": [1], "data_type": "Int"}, "no Arrow type 'Int'"),
        (
            {"type": "Input", "id": "a", "metadata": {"k": {"Integer": "x"}}},
            "'x' is not a valid Integer",
        ),
        ({"type": "Input", "id": "a", "metadata": {"k": {"a": 1, "b": 2}}}, "metadata 'k'"),
        ({"type": "Input", "id": "a", "path": "nowhere.arrow"}, "nowhere.arrow"),
    ],
    ids=repr,
)
def test_an_invalid_event_is_named_by_its_index(
    tmp_path: Path, entry: dict[str, Any], expected: str
) -> None:
    with pytest.raises(RuntimeError, match=rf"events\[1\]: .*{expected}"):
        events(tmp_path, {"type": "Stop"}, entry)


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="cannot be read: No such file"):
        load(tmp_path / "inputs.json")


def test_a_missing_column(tmp_path: Path) -> None:
    path = tmp_path / "data.arrow"
    with pa.ipc.new_file(path, pa.schema({"x": pa.int64()})) as writer:
        writer.write_batch(pa.record_batch({"x": [1]}))
    for more, expected in (({"column": "y"}, "no column 'y'"), ({"batch_index": 7}, "batch 7")):
        with pytest.raises(RuntimeError, match=expected):
            events(tmp_path, {"type": "Input", "id": "a", "path": str(path), **more})


def test_an_incomplete_recording_is_refused(tmp_path: Path) -> None:
    status = {"state": "poisoned", "first_failure_event_index": 7, "first_failure_error": "union"}
    with pytest.raises(RuntimeError, match="incomplete from event 7 on: union"):
        loaded(tmp_path, {"id": "a", "events": [], "recording_status": status})

"""`DORA_WRITE_EVENTS_TO` records received events, and a replay returns the same events."""

import json
import os
import signal
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from dorad.node import events
from dorad.node.events import Event
from dorad.node.offline.capture import CapturingReceiver, Recorder
from dorad.node.offline.filemode import FileReceiver
from dorad.node.offline.testfile import TimedEvent, load
from tests.harness.dataflow import Flow
from tests.node.bed import run_node


def recording(folder: Path, *received: Event) -> dict[str, Any]:
    recorder = Recorder(folder, "node")
    for event in received:
        recorder.add(event)
    content: dict[str, Any] = json.loads((folder / "inputs-node.json").read_text())
    return content


def an_input(value: Any, **metadata: Any) -> Event:
    metadata = {"timestamp": datetime.now(UTC), **metadata}
    return {"kind": "dora", "type": "INPUT", "id": "in", "value": value, "metadata": metadata}


def without_time(content: dict[str, Any]) -> list[dict[str, Any]]:
    return [
        {key: event[key] for key in event if key != "time_offset_secs"}
        for event in content["events"]
    ]


def test_an_event_of_synchronised_inputs_makes_the_recording_incomplete(tmp_path: Path) -> None:
    both = {"left": pa.array([1]), "right": pa.array([2])}
    content = recording(tmp_path, an_input(both, left={}, right={}), an_input(pa.array([1])))
    assert content["recording_status"]["state"] == "poisoned"
    assert "synchronised inputs" in content["recording_status"]["first_failure_error"]
    assert len(content["events"]) == 1


def test_each_event_is_written_in_the_form_of_test_inputs(tmp_path: Path) -> None:
    content = recording(
        tmp_path,
        events.tick("tick", {"timestamp": datetime.now(UTC)}),
        an_input(pa.array([1, None]), n=3),
        events.input_closed("in"),
        events.stop(events.ALL_INPUTS_CLOSED),
        events.stop(events.MANUAL),
    )
    assert content["id"] == "node"
    assert content["recording_status"] == {"state": "clean"}
    assert without_time(content) == [
        {"type": "Input", "id": "tick"},
        {
            "type": "Input",
            "id": "in",
            "metadata": {"n": {"Integer": 3}},
            "data": [1, None],
            "data_type": "Int64",
        },
        {"type": "InputClosed", "id": "in"},
        {"type": "AllInputsClosed"},
        {"type": "Stop"},
    ]


def test_times_count_from_the_start_and_never_back(tmp_path: Path) -> None:
    content = recording(tmp_path, *[events.input_closed(str(n)) for n in range(5)])
    offsets = [event["time_offset_secs"] for event in content["events"]]
    assert offsets == sorted(offsets)
    assert 0 <= offsets[0] <= offsets[-1] < 10


def test_the_file_is_valid_after_every_event(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path, "node")
    for count in range(5):
        content = json.loads((tmp_path / "inputs-node.json").read_text())
        assert len(content["events"]) == count
        recorder.add(an_input(pa.array([count])))


def test_events_that_test_files_lack_are_omitted(tmp_path: Path) -> None:
    content = recording(
        tmp_path, events.timed_out(1), events.node_failed("cam", "exited with code 3", ["in"])
    )
    assert content["events"] == []
    assert content["recording_status"] == {"state": "clean"}


def test_parameters_are_part_of_the_recording(tmp_path: Path) -> None:
    Recorder(tmp_path, "node", {"gain": 1.5}).add(events.stop(events.MANUAL))
    replayed = load(tmp_path / "inputs-node.json")
    assert replayed.params == {"gain": 1.5}
    assert [timed.event["type"] for timed in replayed.events] == ["STOP"]


def test_an_event_that_cannot_be_written_is_reported_as_missing(tmp_path: Path) -> None:
    interval = pa.array([pa.MonthDayNano([1, 2, 3])])
    content = recording(
        tmp_path,
        an_input(pa.array([1])),
        an_input(interval),
        an_input(pa.array([2])),
        an_input(interval),
    )
    assert [event["data"] for event in content["events"]] == [[1], [2]]
    status = content["recording_status"]
    assert status["state"] == "poisoned"
    assert status["first_failure_event_index"] == 1
    assert "interval" in status["first_failure_error"]
    assert status["additional_failures"] == 1
    with pytest.raises(RuntimeError, match="incomplete from event 1"):
        load(tmp_path / "inputs-node.json")


def test_a_directory_that_cannot_be_made_is_an_error_of_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(RuntimeError, match=r"inputs-node\.json: cannot be written"):
        Recorder(tmp_path / "file" / "sub", "node")


async def test_events_are_recorded_however_they_are_received(tmp_path: Path) -> None:
    timed = [TimedEvent(0, events.input_closed(str(n))) for n in range(5)]
    inner = FileReceiver(timed, 0, 0)
    receiver = CapturingReceiver(inner, Recorder(tmp_path, "node"))
    assert not receiver.is_empty()
    assert receiver.next(None) is not None
    assert receiver.try_recv() is not None
    assert await receiver.recv_async(None) is not None
    assert len(receiver.drain()) == 2
    assert receiver.ended
    assert receiver.next(None) is None
    content = json.loads((tmp_path / "inputs-node.json").read_text())
    assert [event["id"] for event in content["events"]] == ["0", "1", "2", "3", "4"]


DOUBLER = """
    import pyarrow as pa
    from dora import Node

    node = Node()
    for event in node:
        if event["type"] == "INPUT" and event["id"] == "in":
            node.send_output("out", pa.array([2 * event["value"][0].as_py()]))
"""


def test_a_recording_of_a_dataflow_replays_to_the_same_outputs(flow: Flow, tmp_path: Path) -> None:
    flow.node(
        "source",
        """
        import pyarrow as pa
        from dora import Node

        node = Node()
        for number in range(5):
            node.send_output("out", pa.array([number]), {"number": number})
        """,
        outputs=["out"],
    )
    flow.node("doubler", DOUBLER, inputs={"in": "source/out"}, outputs=["out"])
    flow.nodes[-1]["env"]["DORA_WRITE_EVENTS_TO"] = str(tmp_path / "recordings")
    flow.run().expect(0)
    recorded = tmp_path / "recordings" / "inputs-doubler.json"
    content = json.loads(recorded.read_text())
    assert [event["type"] for event in content["events"]] == [
        *["Input"] * 5,
        "InputClosed",
        "AllInputsClosed",
    ]
    assert content["events"][3]["metadata"] == {"number": {"Integer": 3}}
    ran = run_node(DOUBLER, recorded, folder=tmp_path)
    assert [line["data"] for line in ran.outputs] == [[0], [2], [4], [6], [8]], ran.errors


def test_a_recording_survives_a_crash_of_the_node(tmp_path: Path) -> None:
    source = f"""
import os, signal
from pathlib import Path
from dorad.node import events
from dorad.node.offline.capture import Recorder

recorder = Recorder(Path({str(tmp_path)!r}), "node")
for number in range(3):
    recorder.add(events.input_closed(str(number)))
os.kill(os.getpid(), signal.SIGKILL)
"""
    ended = subprocess.run([sys.executable, "-c", source], timeout=30, check=False)
    assert ended.returncode == -signal.SIGKILL
    content = json.loads((tmp_path / "inputs-node.json").read_text())
    assert len(content["events"]) == 3


def test_a_full_disk_ends_the_recording_and_not_the_node(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    recorder = Recorder(tmp_path, "node")

    def full(*_: Any) -> int:
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr("dorad.node.offline.capture.os.pwrite", full)
    recorder.add(events.input_closed("a"))
    recorder.add(events.input_closed("b"))
    (line,) = capsys.readouterr().out.splitlines()
    assert "the recording ends here: No space left on device" in json.loads(line)["message"]

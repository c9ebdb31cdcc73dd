"""`DORA_TEST_WITH_INPUTS`: a node receives from a file, and its outputs go to a file."""

import asyncio
import json
import threading
import time
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from dorad.node import events
from dorad.node.offline.filemode import FileAttachment, FileReceiver, FileSender
from dorad.node.offline.testfile import TimedEvent
from tests.node.bed import run_node

ECHO = """
    from dora import Node

    node = Node()
    for event in node:
        if event["type"] == "INPUT":
            node.send_output("echo_" + event["id"], event["value"], event["metadata"])
        print(event["type"], event["id"])
    print(node.next(), node.next(timeout=0.1), node.try_recv(), node.is_empty())
"""


def at(offset: float, name: str = "in") -> TimedEvent:
    return TimedEvent(offset, events.tick(name, {}))


def receiver(*timed: TimedEvent) -> FileReceiver:
    return FileReceiver(list(timed), time.monotonic(), time.time_ns())


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_node_gets_its_inputs_and_its_outputs_are_written(tmp_path: Path) -> None:
    ran = run_node(
        ECHO,
        [
            {"type": "Input", "id": "tick", "time_offset_secs": 0},
            {
                "type": "Input",
                "id": "n",
                "time_offset_secs": 0.01,
                "data": [1, 2],
                "data_type": "Int8",
                "metadata": {"n": {"Integer": 3}},
            },
            {"type": "InputClosed", "id": "n", "time_offset_secs": 0.02},
            {"type": "AllInputsClosed", "time_offset_secs": 0.03},
            {"type": "Input", "id": "n", "time_offset_secs": 0.04, "data": 5},
        ],
        folder=tmp_path,
    )
    assert ran.code == 0, ran.errors
    assert ran.printed == [
        "INPUT tick",
        "INPUT n",
        "INPUT_CLOSED n",
        "STOP ALL_INPUTS_CLOSED",
        "None None None True",
    ]
    assert ran.outputs == [
        {"id": "echo_tick", "data": [], "data_type": "Null"},
        {"id": "echo_n", "data": [1, 2], "data_type": "Int8"},
    ]


def test_a_node_on_a_file_knows_its_description(tmp_path: Path) -> None:
    inputs = tmp_path / "inputs.json"
    content = {"id": "cam", "name": "Camera", "inputs": {"a": "b/c"}, "outputs": ["o"]}
    inputs.write_text(json.dumps({**content, "events": []}))
    ran = run_node(
        """
        from dora import Node

        node = Node()
        print(node.node_config())
        print(node.dataflow_descriptor())
        print(node.is_restart(), node.restart_count(), len(node.dataflow_id()))
        print(node.timestamp().tzinfo)
        """,
        inputs,
        folder=tmp_path,
    )
    assert ran.printed == [
        "{'inputs': {'a': 'b/c'}, 'outputs': ['o']}",
        f"{{'nodes': [{content}]}}",
        "False 0 36",
        "UTC",
    ], ran.errors


def test_outputs_of_all_send_methods_are_written(tmp_path: Path) -> None:
    ran = run_node(
        """
        import pyarrow as pa
        from dora import Node

        node = Node()
        node.send_output("bytes", b"ab")
        node.send_output("batch", pa.record_batch({"a": [1]}))
        with node.send_output_raw("raw", 2, {"n": 1}) as view:
            view[:] = b"xy"
        array = node.empty((2, 2), "int16")
        array[:] = 7
        node.send_output("allocated", array)
        print(array.flags.writeable)
        node.send_output("path/like-this_1.x", pa.array([1]))
        for bad in ("bad id", "", "ä", "a//b", None):
            try:
                node.send_output(bad, pa.array([1]))
            except (RuntimeError, TypeError) as error:
                print(error)
        """,
        [],
        folder=tmp_path,
    )
    assert ran.outputs[0] == {"id": "bytes", "data": [97, 98], "data_type": "UInt8"}
    assert ran.outputs[1]["data"] == [{"a": 1}]
    assert ran.outputs[2] == {"id": "raw", "data": [120, 121], "data_type": "UInt8"}
    assert ran.outputs[3] == {"id": "allocated", "data": [7] * 4, "data_type": "Int16"}
    assert ran.outputs[4]["id"] == "path/like-this_1.x"
    assert len(ran.outputs) == 5
    assert ran.printed[0] == "False"
    refused = ["invalid output_id 'bad id'", "invalid output_id ''", "invalid output_id 'ä'"]
    refused += ["invalid output_id 'a//b'", "output_id must be a str, got NoneType"]
    assert [line.partition(":")[0] for line in ran.printed[1:]] == refused


def test_by_default_outputs_are_written_beside_the_inputs_with_times(tmp_path: Path) -> None:
    inputs = tmp_path / "inputs.json"
    inputs.write_text('{"id": "node", "events": []}')
    attachment = FileAttachment(inputs, {})
    attachment.sender.send("o", pa.array([1]), None)
    (line,) = lines(tmp_path / "outputs.jsonl")
    assert list(line) == ["id", "time_offset_secs", "data", "data_type"]
    assert 0 <= line["time_offset_secs"] < 10


def test_outputs_of_an_earlier_test_are_replaced(tmp_path: Path) -> None:
    path = tmp_path / "outputs.jsonl"
    path.write_text("old\n")
    FileSender(path, None)
    assert path.read_text() == ""


def test_an_output_file_that_cannot_be_written_is_an_error_of_one_line(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match=r"outputs\.jsonl: cannot be written: No such file"):
        FileSender(tmp_path / "nowhere" / "outputs.jsonl", None)


def test_errors_of_sending_equal_those_in_a_dataflow(tmp_path: Path) -> None:
    sender = FileSender(tmp_path / "outputs.jsonl", None)
    with pytest.raises(RuntimeError, match="invalid data type"):
        sender.send("o", [1, 2], None)
    with pytest.raises(OverflowError):
        sender.send("o", pa.array([1]), {"n": 2**63})
    with pytest.raises(RuntimeError, match=r"output 'o': .*JSON"):
        sender.send("o", pa.array([pa.MonthDayNano([1, 2, 3])]), None)
    assert (tmp_path / "outputs.jsonl").read_text() == ""


def test_an_event_comes_when_it_is_due_and_not_before() -> None:
    received = receiver(at(0), at(0.2))
    assert received.next(None) is not None
    assert received.is_empty()
    assert received.try_recv() is None
    started = time.monotonic()
    assert received.next(None) is not None
    assert time.monotonic() - started > 0.1


def test_a_timeout_is_an_error_event() -> None:
    event = receiver(at(60)).next(0.01)
    assert event is not None
    assert event["error"].startswith("Timeout event stream error")


def test_a_message_has_the_time_at_which_it_was_due() -> None:
    start = time.time_ns()
    event = FileReceiver([at(0.001)], time.monotonic(), start).next(None)
    assert event is not None
    assert abs(event["metadata"]["timestamp"].timestamp() - (start / 1e9 + 0.001)) < 1e-5


def test_a_senders_own_timestamp_is_kept() -> None:
    event = receiver(TimedEvent(0, events.tick("in", {"timestamp": 5}))).next(None)
    assert event is not None
    assert event["metadata"] == {"timestamp": 5}


def test_drain_returns_due_events_and_raises_at_the_end() -> None:
    received = receiver(at(0, "a"), at(0, "b"), at(60))
    assert [event["id"] for event in received.drain()] == ["a", "b"]
    assert received.drain() == []
    ended = receiver()
    with pytest.raises(RuntimeError, match="closed"):
        ended.drain()


def test_nothing_comes_after_a_stop() -> None:
    received = receiver(TimedEvent(0, events.stop(events.MANUAL)), at(0))
    assert received.next(None) == events.stop(events.MANUAL)
    assert received.next(None) is None
    assert received.ended


async def test_receiving_in_a_coroutine_lets_other_tasks_run() -> None:
    received = receiver(at(0.05))
    turns = 0

    async def others() -> None:
        nonlocal turns
        while not received.ended:
            turns += 1
            await asyncio.sleep(0)

    task = asyncio.create_task(others())
    assert await received.recv_async(None) is not None
    assert await received.recv_async(None) is None
    await task
    assert turns > 5
    late = await receiver(at(60)).recv_async(0.01)
    assert late is not None
    assert late["type"] == "ERROR"


def test_several_threads_get_each_event_once() -> None:
    received = receiver(*(at(0, str(n)) for n in range(500)))
    got: list[str] = []

    def take() -> None:
        while (event := received.next(None)) is not None:
            got.append(event["id"])

    threads = [threading.Thread(target=take) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert sorted(got, key=int) == [str(n) for n in range(500)]


def test_a_wrong_file_ends_the_node_with_one_line(tmp_path: Path) -> None:
    ran = run_node("import dora; dora.Node()", [{"type": "Foo"}], folder=tmp_path)
    assert ran.code == 1
    (line,) = ran.errors.splitlines()
    assert "events[0]: " in line

"""`MockNode`, the replacement of `Node` in unit tests."""

import inspect
from datetime import UTC
from typing import Any

import pyarrow as pa
import pytest
from dora import Node
from dora.testing import MockNode

STOPPED = {"type": "STOP", "id": "ALL_INPUTS_CLOSED"}


def test_inputs_become_events_and_a_stop_follows() -> None:
    value = pa.array([0])
    node = MockNode([("tick", value)])
    assert list(node) == [{"type": "INPUT", "id": "tick", "value": value, "metadata": {}}, STOPPED]
    assert node.next() is None


def test_dictionaries_are_passed_on_as_copies() -> None:
    event = {"type": "INPUT_CLOSED", "id": "a"}
    received = MockNode([event]).next()
    assert received == event
    assert received is not event


def test_an_event_has_no_keys_that_were_not_given() -> None:
    pair, dictionary, stop = MockNode([("a", 1), {"type": "INPUT", "id": "b"}], {"n": 1}).drain()
    assert pair == {"type": "INPUT", "id": "a", "value": 1, "metadata": {"n": 1}}
    assert dictionary == {"type": "INPUT", "id": "b"}
    assert stop == STOPPED


def test_no_second_stop_is_added() -> None:
    stop = {"type": "STOP", "id": "MANUAL"}
    assert list(MockNode([stop])) == [stop]


def test_each_input_gets_its_own_copy_of_the_metadata() -> None:
    node = MockNode([("a", 1), ("b", 2)], {"n": 1})
    first, second, _ = node.drain()
    first["metadata"]["n"] = 2
    assert second["metadata"] == {"n": 1}


async def test_no_receiving_method_blocks() -> None:
    node = MockNode([(str(n), n) for n in range(5)])
    received = [node.next(60), next(node), await node.recv_async(60), node.try_recv()]
    assert [event["id"] for event in received if event] == ["0", "1", "2", "3"]
    assert not node.is_empty()
    assert [event.get("id") for event in node.drain()] == ["4", "ALL_INPUTS_CLOSED"]
    assert node.is_empty()
    assert (node.next(), node.try_recv(), await node.recv_async(), node.drain()) == (
        None,
        None,
        None,
        [],
    )
    with pytest.raises(StopIteration):
        next(node)


def test_outputs_are_kept_by_id_without_their_metadata() -> None:
    node = MockNode([])
    node.send_output("a", 1, {"n": 1})
    node.send_output("b", 2)
    node.send_output("a", data=3)
    assert node.outputs == {"a": [1, 3], "b": [2]}


def test_logs_are_kept() -> None:
    node = MockNode([])
    node.log("info", "m", "t", {"k": "v"})
    for level in ("error", "warn", "info", "debug", "trace"):
        getattr(node, f"log_{level}")("x")
    assert node.logs[0] == {"level": "info", "message": "m", "target": "t", "fields": {"k": "v"}}
    assert node.logs[1] == {"level": "error", "message": "x", "target": None, "fields": {}}
    assert [entry["level"] for entry in node.logs[1:]] == [
        "error",
        "warn",
        "info",
        "debug",
        "trace",
    ]


def test_a_reply_comes_before_the_stop_with_the_requests_id() -> None:
    node = MockNode([("a", 1)], service_responses={"ask": ["yes", "no"]})
    first = node.send_service_request("ask", "?", {"n": 1})
    second = node.send_service_request("ask", "??")
    third = node.send_service_request("ask", "???")
    assert len({first, second, third}) == 3
    received = node.drain()
    assert [event["id"] for event in received] == ["a", "ask", "ask", "ALL_INPUTS_CLOSED"]
    assert received[1] == {
        "type": "INPUT",
        "id": "ask",
        "value": "yes",
        "metadata": {"request_id": first},
    }
    assert received[2]["metadata"] == {"request_id": second}
    assert node.service_requests[0] == {
        "output_id": "ask",
        "data": "?",
        "metadata": {"n": 1},
        "request_id": first,
    }


def test_responses_are_kept() -> None:
    node = MockNode([])
    node.send_service_response("answer", 5, {"request_id": "r"})
    node.send_service_response("answer", 6, {})
    assert [sent["request_id"] for sent in node.service_responses_sent] == ["r", None]
    assert node.service_responses_sent[0]["data"] == 5


def test_methods_that_need_a_dataflow_raise_not_implemented() -> None:
    node = MockNode([])
    with pytest.raises(NotImplementedError, match="shared memory"):
        node.send_output_raw("o", 5)
    with pytest.raises(NotImplementedError, match="those of ROS 2 as inputs"):
        node.merge_external_events(None)


def test_a_mock_returns_the_description_it_was_given() -> None:
    node = MockNode(
        [],
        dataflow_descriptor={"nodes": []},
        dataflow_id="id",
        node_config={"inputs": {}},
        is_restart=True,
        restart_count=2,
    )
    assert node.dataflow_descriptor() == {"nodes": []}
    assert node.dataflow_id() == "id"
    assert node.node_config() == {"inputs": {}}
    assert node.is_restart()
    assert node.restart_count() == 2
    assert node.timestamp().tzinfo is UTC


def test_a_mock_without_a_description_returns_empty_values() -> None:
    node = MockNode([])
    found: list[Any] = [node.dataflow_descriptor(), node.dataflow_id(), node.node_config()]
    assert found == [{}, "", {}]
    assert not node.is_restart()
    assert node.restart_count() == 0


def test_an_empty_array_can_be_filled_and_sent() -> None:
    node = MockNode([])
    array = node.empty((2, 3), "float32")
    array[:] = 1
    node.send_output("o", array)
    assert node.outputs["o"][0].sum() == 6


def test_the_mock_has_every_method_of_a_node_with_the_same_parameters() -> None:
    for name, method in inspect.getmembers(Node, inspect.isfunction):
        if not name.startswith("_"):
            expected = list(inspect.signature(method).parameters)
            assert list(inspect.signature(getattr(MockNode, name)).parameters) == expected, name

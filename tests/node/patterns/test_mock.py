"""The helpers in unit tests, with a `MockNode`."""

import asyncio

import pytest

from dorad.node.events import Event
from dorad.node.offline.testing import MockNode
from dorad.node.patterns.errors import NoAnswerError, RemoteError
from dorad.node.patterns.goalserver import ServedGoal


def test_a_call_returns_the_prepared_answers_in_order() -> None:
    node = MockNode([("tick", 1)], service_responses={"ask": [5, ValueError("no"), 7]})
    assert node.call("ask", 1, {"note": "x"})["value"] == 5
    with pytest.raises(RemoteError, match="ValueError: no"):
        node.call("ask", 2)
    assert asyncio.run(node.call_async("ask", 3))["value"] == 7
    with pytest.raises(NoAnswerError, match="no answer left for output `ask`"):
        node.call("ask", 4)
    assert [request["data"] for request in node.service_requests] == [1, 2, 3, 4]
    assert [event["type"] for event in node] == ["INPUT", "STOP"]


def test_handlers_are_served_until_the_stop() -> None:
    request = {"type": "INPUT", "id": "ask", "value": 4, "metadata": {"request_id": "r"}}
    node = MockNode([request, ("ask", 5), ("other", 6), request | {"value": 0}])
    seen: list[Event] = []

    def divide(event: Event) -> float:
        return 8 / event["value"]

    last = node.serve("ask", "answer", divide, others=seen.append)
    assert last is not None
    assert last["type"] == "STOP"
    good, bad = node.service_responses_sent
    assert (good["data"], good["request_id"]) == (2.0, "r")
    assert bad["metadata"]["request_error_type"] == "ZeroDivisionError"
    assert [event["id"] for event in seen] == ["other", "ALL_INPUTS_CLOSED"]
    assert [entry["level"] for entry in node.logs] == ["warn", "error"]


def test_goals_are_prepared_too() -> None:
    node = MockNode([], service_responses={"goal": [[1, 2, 3], [ValueError("no")]]})
    goal = node.send_goal("goal", 9)
    assert [event["value"] for event in goal] == [1, 2]
    assert (goal.result()["value"], goal.status) == (3, "succeeded")
    with pytest.raises(RemoteError, match="ValueError: no"):
        node.send_goal("goal", 9).result()
    with pytest.raises(NoAnswerError):
        node.send_goal("goal", 9).result()
    assert node.outputs == {"goal": [9, 9, 9]}


def test_goal_handlers_are_served() -> None:
    event = {"type": "INPUT", "id": "goal", "value": 2, "metadata": {"goal_id": "g"}}
    node = MockNode([event])

    @node.serve_goals("goal", "result", feedback="feedback")
    def pursue(goal: ServedGoal) -> int:
        goal.feedback(1)
        return int(goal.value) * 10

    node.serve()
    assert node.outputs == {"feedback": [1], "result": [20]}


def test_serving_without_a_handler_is_an_error() -> None:
    with pytest.raises(ValueError, match="nothing to serve"):
        MockNode([]).serve()

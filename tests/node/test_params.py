"""A node's parameters: as declared, as set, as deleted."""

from pathlib import Path
from typing import Any

import pytest

from dorad.node.offline.testing import MockNode
from dorad.node.params import Params
from tests.node.bed import run_node
from tests.node.fakedaemon import FakeDaemon, attached, daemon_of

daemon = daemon_of({"a": 10}, {"params": {"speed": 1.5, "gains": [1, 2]}})


def test_declared_values_are_available_before_the_first_event(daemon: FakeDaemon) -> None:
    with attached(daemon) as node:
        assert node.params.get("speed") == 1.5
        assert node.params.all() == {"speed": 1.5, "gains": [1, 2]}


def test_a_value_is_current_before_its_event_is_received(daemon: FakeDaemon) -> None:
    with attached(daemon) as node:
        daemon.send("param", key="speed", value=2)
        daemon.send("param", key="new", value={"x": None})
        assert node.params.all() == {"speed": 2, "gains": [1, 2], "new": {"x": None}}
        assert [[e["type"], e["id"], e["value"]] for e in node.receiver.drain()] == [
            ["PARAM_UPDATE", "speed", 2],
            ["PARAM_UPDATE", "new", {"x": None}],
        ]


def test_a_deleted_value_is_missing_or_the_default_again(daemon: FakeDaemon) -> None:
    with attached(daemon) as node:
        daemon.send("param_gone", key="gains")
        daemon.send("param_gone", key="speed", value=0.5)
        assert node.params.all() == {"speed": 0.5}
        events = [[e["type"], e["id"], "value" in e] for e in node.receiver.drain()]
        assert events == [["PARAM_DELETED", "gains", False], ["PARAM_DELETED", "speed", False]]


def test_a_returned_value_is_a_copy(daemon: FakeDaemon) -> None:
    with attached(daemon) as node:
        node.params.get("gains").append(3)
        node.params.all()["gains"].append(3)
        daemon.send("param", key="speed", value=[1])
        event = node.receiver.next(None)
        assert event is not None
        event["value"].append(2)
        assert node.params.all() == {"speed": [1], "gains": [1, 2]}


@pytest.mark.parametrize(
    ("known", "text"),
    [
        ({"speed": 1}, "no parameter 'spede'; did you mean 'speed'?"),
        ({"b": 1, "a": 1}, "no parameter 'spede'; the parameters are a, b"),
        ({}, "no parameter 'spede': the dataflow file declares none, and none was set"),
    ],
)
def test_an_unknown_name_gets_the_nearest_suggested(known: dict[str, Any], text: str) -> None:
    with pytest.raises(KeyError) as caught:
        Params(known).get("spede")
    assert caught.value.args == (text,)


def test_a_mock_node_has_the_given_parameters() -> None:
    update = {"type": "PARAM_UPDATE", "id": "speed", "value": 2}
    gone = {"type": "PARAM_DELETED", "id": "speed"}
    node = MockNode([update, gone], params={"speed": 1})
    assert node.param("speed") == 1
    assert node.next() == update
    assert node.params() == {"speed": 2}
    assert node.drain()[0] == gone
    with pytest.raises(KeyError):
        node.param("speed")


def test_a_file_of_test_inputs_may_hold_parameters(tmp_path: Path) -> None:
    inputs = tmp_path / "inputs.json"
    inputs.write_text('{"id": "n", "params": {"speed": 3}, "events": []}')
    ran = run_node(
        """
        from dora import Node

        node = Node()
        print(node.param("speed"), node.params())
        """,
        inputs,
        folder=tmp_path,
    )
    assert ran.printed == ["3 {'speed': 3}"], ran.errors

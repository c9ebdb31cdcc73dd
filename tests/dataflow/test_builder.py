"""Dataflow files made by a program."""

from pathlib import Path

import pytest
import yaml
from dora.builder import DataflowBuilder, Node, Operator, Output

from dorad.dataflow.load import parse


def test_a_built_dataflow_is_one_that_can_be_read(tmp_path: Path) -> None:
    for name in ("camera.py", "viewer.py"):
        (tmp_path / name).touch()
    with DataflowBuilder("demo") as flow:
        image = flow.add_node("camera", path="camera.py").add_output("image")
        viewer = flow.add_node("viewer").path("viewer.py").args("-v").env({"X": 1})
        viewer.add_input("image", image, queue_size=1, queue_policy="backpressure")
        viewer.add_input("tick", "dora/timer/millis/100")
    text = flow.to_yaml()
    assert text is not None
    dataflow = parse(text, path=tmp_path / "dataflow.yml", environ={})
    assert [node.id for node in dataflow.nodes] == ["camera", "viewer"]
    first, second = dataflow.node("viewer").inputs
    assert (first.source.text, first.queue_size, str(first.queue_policy)) == (
        "camera/image",
        1,
        "backpressure",
    )
    assert second.source.text == "dora/timer/millis/100"


def test_the_name_is_not_in_the_file() -> None:
    assert yaml.safe_load(DataflowBuilder("demo").to_yaml() or "") == {"nodes": []}


def test_a_path_is_written_to_and_nothing_returned(tmp_path: Path) -> None:
    flow = DataflowBuilder()
    flow.add_node("a", path="a.py")
    assert flow.to_yaml(tmp_path / "x.yml") is None
    assert flow.to_yaml(str(tmp_path / "y.yml")) is None
    for name in ("x.yml", "y.yml"):
        content = yaml.safe_load((tmp_path / name).read_text())
        assert content == {"nodes": [{"id": "a", "path": "a.py"}]}


def test_setters_return_the_node_and_become_keys() -> None:
    node = Node("a").path("a.py").args("-v").env({"X": 1}).build("pip install x")
    node = node.git("https://example.org/r.git", rev="abc")
    assert node.to_dict() == {
        "id": "a",
        "path": "a.py",
        "args": "-v",
        "env": {"X": 1},
        "build": "pip install x",
        "git": "https://example.org/r.git",
        "rev": "abc",
    }


def test_keyword_arguments_become_keys_as_they_are() -> None:
    assert Node("a", path="a.py", restart_policy="always").to_dict() == {
        "id": "a",
        "path": "a.py",
        "restart_policy": "always",
    }


def test_an_output_is_declared_once_and_reads_as_a_source() -> None:
    node = Node("a")
    first, again = node.add_output("x"), node.add_output("x")
    assert isinstance(first, Output)
    assert (str(first), str(again)) == ("a/x", "a/x")
    assert node.to_dict()["outputs"] == ["x"]


def test_an_input_without_options_is_a_plain_text() -> None:
    node = Node("b").add_input("x", "a/x").add_input("y", Node("a").add_output("y"))
    assert node.to_dict()["inputs"] == {"x": "a/x", "y": "a/y"}


def test_an_input_has_only_the_options_that_were_given() -> None:
    node = Node("b").add_input("x", "a/x", queue_size=5).add_input("y", "a/y", None, "drop_oldest")
    assert node.to_dict()["inputs"] == {
        "x": {"source": "a/x", "queue_size": 5},
        "y": {"source": "a/y", "queue_policy": "drop_oldest"},
    }


@pytest.mark.parametrize("size", [0, -1])
def test_a_queue_without_a_place_is_refused(size: int) -> None:
    with pytest.raises(ValueError, match="queue_size must be at least 1"):
        Node("b").add_input("x", "a/x", queue_size=size)


def test_an_unknown_policy_is_refused_and_the_known_are_named() -> None:
    with pytest.raises(ValueError, match="drop_oldest, backpressure, latest, got 'drop_newest'"):
        Node("b").add_input("x", "a/x", queue_policy="drop_newest")


def test_operators_belong_to_their_node() -> None:
    operator = Operator("op", python="op.py", shared_library="lib", send_stdout_as="out")
    node = Node("a").add_operator(operator).add_operator(Operator("two"))
    assert node.to_dict()["operators"] == [
        {"id": "op", "python": "op.py", "shared-library": "lib", "send_stdout_as": "out"},
        {"id": "two"},
    ]

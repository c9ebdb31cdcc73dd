"""The names of topics."""

import pytest

from dorad.control.errors import ControlError
from dorad.control.wiring import one_topic, topic_named, topics_named
from tests.dataflow.reading import read

_FLOW = """
nodes:
  - {id: plain, path: x, outputs: [o, op/o]}
  - {id: one, operator: {python: x.py, outputs: [o]}}
  - {id: named, operator: {id: detect, python: x.py, outputs: [o, detect/o]}}
  - {id: some, operators: [{id: a, python: x.py, outputs: [o]}]}
"""


@pytest.mark.parametrize(
    ("name", "output"),
    [
        ("plain/o", "o"),
        ("plain/op/o", "op/o"),
        ("plain/x", None),
        ("one/o", "op/o"),
        ("one/op/o", "op/o"),
        ("one/op/x", None),
        ("named/o", "detect/o"),
        ("named/detect/o", "detect/o"),
        ("named/op/o", None),
        ("some/a/o", "a/o"),
        ("some/o", None),
        ("none/o", None),
        ("one", None),
        ("", None),
    ],
)
def test_a_topic_has_the_name_that_inputs_of_the_file_use(name: str, output: str | None) -> None:
    found = topic_named(read(_FLOW), name)
    assert (found and found.output) == output


_TWO = """
nodes:
  - {id: a, path: x, outputs: [x, y]}
  - {id: b, operators: [{id: op, python: x.py, outputs: [z]}]}
  - {id: c, path: x, inputs: {x: a/x}}
"""


@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        ([], ["a/x", "a/y", "b/op/z"]),
        (["a"], ["a/x", "a/y"]),
        (["b"], ["b/op/z"]),
        (["a", "a/x"], ["a/x", "a/y"]),
        (["a/y", "a"], ["a/y", "a/x"]),
    ],
)
def test_the_name_of_a_node_means_all_its_outputs(wanted: list[str], found: list[str]) -> None:
    assert [str(each) for each in topics_named(read(_TWO), wanted)] == found


@pytest.mark.parametrize(
    ("name", "text"),
    [("c", "node 'c' has no outputs"), ("d", "no node or output 'd'"), ("a/z", "no output 'a/z'")],
)
def test_what_is_no_topic_is_named(name: str, text: str) -> None:
    with pytest.raises(ControlError, match=text):
        topics_named(read(_TWO), ["a", name])


def test_a_message_is_sent_to_one_output() -> None:
    assert str(one_topic(read(_TWO), "a/x")) == "a/x"
    with pytest.raises(ControlError, match="name one of its outputs") as caught:
        one_topic(read(_TWO), "a")
    assert caught.value.hint == "its outputs: a/x, a/y"

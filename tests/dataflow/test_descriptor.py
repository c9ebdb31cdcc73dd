"""A descriptor, as it is kept and sent, reads back to the dataflow that it came from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dorad.dataflow.document import MAX_DEPTH
from dorad.dataflow.errors import DataflowError
from dorad.dataflow.load import from_descriptor, load, load_node
from dorad.dataflow.nodes import read_one
from tests.dataflow.reading import FILE, path_node_text, read, unhurried

_EXAMPLES = sorted(
    path
    for folder in ("docs/examples", "tests/hub/cases")
    for path in (Path(__file__).parents[2] / folder).glob("*/*.yml")
    if path.name not in ("bad.yml", "cluster.yml")
)
_HARD = """\
type_rules: [{from: 0x10, to: b}]
env: {QUOTED: '1.10', PLAIN: 1.10, NUMBER: 007, DOLLAR: $$X, NAN: .nan, INF: -.inf, YES: true}
nodes:
- id: 0x10
  path: a.py
  name: 1e3
  args: '$HOME "x y"'
  outputs: [1, 2.50]
  max_log_size: 1MB
  shared_memory_pool_size: '4096'
  output_framing: {1: raw}
  inputs: {tick: dora/timer/hz/30, log: {source: dora/logs, queue_size: 0}}
- {id: ops, operators: [{id: 1, python: {source: x.py, conda_env: 3.10}, outputs: [y]}]}
- {id: one, operator: {wasm: w, inputs: {y: ops/1/y}, outputs: [z]}}
- {id: ros, ros2: {topic: /t, message_type: a/B, direction: publish}, inputs: {a: one/z}}
"""


def _over_the_wire(descriptor: dict[str, Any]) -> dict[str, Any]:
    return msgspec.json.decode(msgspec.json.encode(descriptor), type=dict[str, Any])


@pytest.mark.parametrize("path", _EXAMPLES, ids=lambda path: path.parent.name)
def test_every_example_reads_back(path: Path) -> None:
    first = load(path)
    again = from_descriptor(_over_the_wire(first.descriptor), path=path)
    assert again == first
    assert again.descriptor == first.descriptor


def test_nothing_is_read_differently_the_second_time() -> None:
    first = read(_HARD)
    assert from_descriptor(_over_the_wire(first.descriptor), path=FILE) == first
    assert first.nodes[0].env["QUOTED"] == "1.10"
    assert first.nodes[0].env["DOLLAR"] == "$X"


_TEXTS = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=12)
_SCALARS = st.booleans() | st.integers() | st.floats() | _TEXTS


@unhurried
@given(st.dictionaries(st.sampled_from("ABC"), _SCALARS), _TEXTS)
def test_any_environment_reads_back(env: dict[str, Any], name: str) -> None:
    descriptor = {"env": env, "nodes": [{"id": "a", "path": "x", "env": env, "name": name}]}
    first = from_descriptor(descriptor, path=FILE)
    assert from_descriptor(_over_the_wire(first.descriptor), path=FILE) == first


def test_variables_are_not_expanded_again() -> None:
    first = read(path_node_text("env: {A: $X, B: $$X}"), X="$HOME")
    again = from_descriptor(first.descriptor, path=FILE)
    assert again.nodes[0].env == {"A": "$HOME", "B": "$X"}


def test_the_descriptor_is_a_copy() -> None:
    given_one = {"nodes": [{"id": "a", "path": "x", "outputs": ["o"]}]}
    flow = from_descriptor(given_one, path=FILE)
    given_one["nodes"][0]["id"] = "b"
    assert flow.descriptor["nodes"][0]["id"] == "a"


@pytest.mark.parametrize(
    ("descriptor", "message"),
    [
        ({}, "flow.yml: needs `nodes` (a list of the programs to run)"),
        ({"nodes": 3}, "flow.yml: nodes: must be a list, not 3"),
        ({"nodes": True}, "flow.yml: nodes: must be a list, not true"),
        ({"nodes": [None]}, "nodes[0]: the node is empty"),
        ({"nodes": [{"id": "a", "path": "x", "inputs": {"i": "b/c"}}]}, "nodes[0].inputs.i: there"),
        (
            {"nodes": [{"id": "a", "path": "x"}, {"id": "a", "path": "x"}]},
            "nodes[1].id: two nodes with the id `a`, the first at nodes[0]",
        ),
        ({"nodes": [], "env": {"A": None}}, "env.A: has no value"),
        ({"nodes": [], "env": {"A": "a\0"}}, "env.A: contains a NUL character"),
        ({"nodes": [], "env": {"A": {1}}}, "env.A: a set is not a plain value"),
        ({"nodes": [], 1: 2}, "the key 1 is not text"),
    ],
)
def test_problems_name_keys_and_no_lines(descriptor: dict[str, Any], message: str) -> None:
    with pytest.raises(DataflowError) as caught:
        from_descriptor(descriptor, path=FILE)
    assert message in str(caught.value)
    assert {problem.line for problem in caught.value.problems} == {0}


def test_recursive_and_endless_descriptors_are_refused() -> None:
    deep: list[Any] = []
    for _ in range(MAX_DEPTH + 1):
        deep = [deep]
    with pytest.raises(DataflowError, match="nested more than 32 deep"):
        from_descriptor({"nodes": deep}, path=FILE)
    with pytest.raises(DataflowError, match="more than 200000 values"):
        from_descriptor({"nodes": [1] * 200_001}, path=FILE)


class TestOneNode:
    def test_a_file_gives_the_definition_with_its_environment_expanded(
        self, tmp_path: Path
    ) -> None:
        file = tmp_path / "node.yml"
        file.write_text("id: a\npath: a.py\nenv: {A: $X, B: '1'}\ninputs: {i: b/o}\n")
        definition, warnings = load_node(file, environ={"X": "$Y"})
        assert warnings == ()
        assert definition["env"] == {"A": "$Y", "B": "1"}
        node = read_one(definition)
        assert (node.id, node.env["A"]) == ("a", "$Y")

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("id: a\npat: x\n", "node.yml:2:1: pat: unknown key `pat` (did you mean `path`?)"),
            ("id: a\npath: x\ninputs: {i: b}\n", "node.yml:3:13: inputs.i: `b` is not a source"),
            ("nodes: []\n", "node.yml:1:1: nodes: this is a whole dataflow"),
            ("- id: a\n", "must be the mapping of one node, not a list (leave out the `-`)"),
            ("3", "node.yml:1:1: must be a mapping with `id` and `path`, not 3"),
            ("", "node.yml:1:1: the file is empty"),
            ("id: a\npath: x\nenv: {A: $NONE}\n", "`NONE` is not set"),
        ],
    )
    def test_mistakes_in_the_file_have_their_place(
        self, tmp_path: Path, text: str, message: str
    ) -> None:
        file = tmp_path / "node.yml"
        file.write_text(text)
        with pytest.raises(DataflowError) as caught:
            load_node(file, environ={})
        assert message in str(caught.value)

    def test_a_missing_file(self, tmp_path: Path) -> None:
        with pytest.raises(DataflowError, match=r"no such file .give the path of a YAML file with"):
            load_node(tmp_path / "none.yml")

    def test_mistakes_in_a_definition_have_their_key(self) -> None:
        with pytest.raises(DataflowError, match=r"^new node: max_restarts: must be a whole"):
            read_one({"id": "a", "path": "x", "max_restarts": -1}, name="new node")

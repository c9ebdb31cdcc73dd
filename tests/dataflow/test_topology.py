"""A dataflow changes into another checked one, or the change is refused with its reason."""

from collections.abc import Callable
from typing import Any

import pytest

from dorad.dataflow.load import from_descriptor
from dorad.dataflow.model import Dataflow
from dorad.dataflow.topology import (
    TopologyError,
    add_node,
    changes,
    connect,
    disconnect,
    remove_node,
    replace_node,
)
from tests.dataflow.reading import FILE, read

_FLOW = """\
env: {A: $$HOME}
nodes:
- {id: source, path: s.py, outputs: [number, spare]}
- id: filter
  path: f.py
  inputs: {number: {source: source/number, queue_size: 3}, tick: dora/timer/hz/1}
  outputs: [clean, rest]
- id: sink
  path: dynamic
  inputs: {clean: filter/clean, log: dora/logs/info/filter}
- {id: ops, operator: {python: o.py, inputs: {a: filter/clean}, outputs: [b]}}
- {id: last, path: l.py}
"""
_FILTER: dict[str, Any] = {
    "id": "filter",
    "path": "new.py",
    "inputs": {
        "tick": "dora/timer/secs/1",
        "number": {"source": "source/number", "queue_size": 3, "input_timeout": 2},
    },
    "outputs": ["clean", "more"],
}


@pytest.fixture
def flow() -> Dataflow:
    return read(_FLOW)


def _sources(flow: Dataflow, node_id: str) -> dict[str, str]:
    return {found.id: str(found.source) for found in flow.node(node_id).all_inputs}


def _read_again(flow: Dataflow) -> Dataflow:
    return from_descriptor(flow.descriptor, path=FILE)


class TestAdd:
    def test_the_node_joins_with_its_inputs(self, flow: Dataflow) -> None:
        definition = {"id": "new", "path": "n.py", "inputs": {"x": "ops/b"}, "env": {"B": "$C"}}
        after = add_node(flow, definition)
        assert _sources(after, "new") == {"x": "ops/op/b"}
        assert after.node("new").env == {"A": "$HOME", "B": "$C"}
        assert changes(flow, after) == ["added node new"]
        assert _read_again(after) == after
        assert len(flow.descriptor["nodes"]) == 5

    def test_into_an_empty_dataflow(self) -> None:
        assert add_node(read("nodes: []"), {"id": "a", "path": "x"}).nodes[0].id == "a"

    def test_it_listens_to_its_own_output(self, flow: Dataflow) -> None:
        definition = {"id": "n", "path": "n", "inputs": {"i": "n/o"}, "outputs": ["o"]}
        assert _sources(add_node(flow, definition), "n") == {"i": "n/o"}


class TestRemove:
    def test_the_inputs_that_it_fed_go_with_it(self, flow: Dataflow) -> None:
        after = remove_node(flow, "filter")
        assert [node.id for node in after.nodes] == ["source", "sink", "ops", "last"]
        assert _sources(after, "sink") == _sources(after, "ops") == {}
        assert changes(flow, after) == ["removed node filter"]
        assert _read_again(after) == after

    def test_the_last_node_leaves_an_empty_dataflow(self) -> None:
        after = remove_node(read("nodes: [{id: a, path: x}]"), "a")
        assert after.nodes == ()
        assert _read_again(after) == after


class TestReplace:
    def test_the_definition_changes_and_the_edges_stay(self, flow: Dataflow) -> None:
        after = replace_node(flow, "filter", _FILTER)
        assert after.node("filter").path == "new.py"
        assert _sources(after, "sink") == _sources(flow, "sink")
        assert [node.id for node in after.nodes] == [node.id for node in flow.nodes]
        assert changes(flow, after) == ["replaced node filter"]
        assert _read_again(after) == after

    @pytest.mark.parametrize(
        ("difference", "message"),
        [
            ({"id": "other"}, "the new definition is for `other`, not for `filter`"),
            ({"outputs": ["rest"]}, "has no output `clean`, which `ops/op/a` receives"),
            ({"path": "dynamic"}, "the new definition `filter` is not a program that dorad starts"),
            ({"inputs": {"tick": "dora/timer/hz/1"}}, "lacks the input `number`"),
            ({"inputs": {**_FILTER["inputs"], "x": "dora/logs"}}, "adds the input `x`"),
            (
                {"inputs": {**_FILTER["inputs"], "tick": "source/number"}},
                "has `source/number` for the input `tick`, not `dora/timer/hz/1`",
            ),
            (
                {"inputs": {**_FILTER["inputs"], "number": "source/number"}},
                "has `queue_size: 10` for the input `number`, not 3",
            ),
            (
                {
                    "inputs": {
                        "tick": "dora/timer/hz/1",
                        "number": {
                            "source": "source/number",
                            "queue_size": 3,
                            "queue_policy": "backpressure",
                        },
                    }
                },
                "has `queue_policy: backpressure` for the input `number`, not `drop_oldest`",
            ),
        ],
    )
    def test_a_replacement_may_not_change_edges(
        self, flow: Dataflow, difference: dict[str, Any], message: str
    ) -> None:
        with pytest.raises(TopologyError) as caught:
            replace_node(flow, "filter", {**_FILTER, **difference})
        assert message in str(caught.value)
        assert caught.value.code == "refused"

    def test_a_node_that_is_not_started_cannot_be_replaced(self, flow: Dataflow) -> None:
        with pytest.raises(TopologyError, match="node `sink` is not a program that dorad starts"):
            replace_node(flow, "sink", {"id": "sink", "path": "x"})


class TestConnect:
    @pytest.mark.parametrize(
        ("source", "target"),
        [("source/spare", "last/any"), ("ops/b", "last/b"), ("ops/op/b", "sink/b")],
    )
    def test_the_target_gets_the_input(self, flow: Dataflow, source: str, target: str) -> None:
        after = connect(flow, source, target)
        node, input_id = target.split("/")
        full = source.replace("ops/b", "ops/op/b")
        assert _sources(after, node)[input_id] == full
        assert changes(flow, after) == [f"connected {full} -> {target}"]
        assert _read_again(after) == after

    def test_removing_the_edge_removes_the_input(self, flow: Dataflow) -> None:
        after = disconnect(connect(flow, "ops/b", "last/x"), "ops/b", "last/x")
        assert after.nodes == flow.nodes
        assert changes(flow, after) == []


class TestDisconnect:
    def test_the_input_is_removed(self, flow: Dataflow) -> None:
        after = disconnect(flow, "source/number", "filter/number")
        assert _sources(after, "filter") == {"tick": "dora/timer/secs/1"}
        assert changes(flow, after) == ["disconnected source/number -> filter/number"]
        assert _read_again(after) == after


_Change = Callable[["Dataflow"], "Dataflow"]


@pytest.mark.parametrize(
    ("change", "code", "message"),
    [
        (lambda f: remove_node(f, "sorce"), "not-found", "no node `sorce` (did you mean `source`?"),
        (lambda f: replace_node(f, "x", _FILTER), "not-found", "there is no node `x`"),
        (lambda f: add_node(f, _FILTER), "exists", "there is a node `filter` already"),
        (
            lambda f: add_node(f, {"id": "a", "path": "x", "inputs": {"i": "filter/claen"}}),
            "refused",
            "node a.inputs.i: `filter` has no output `claen`; it has clean, rest (did you mean",
        ),
        (lambda f: add_node(f, {"id": "a"}), "refused", "has no program"),
        (lambda f: add_node(f, {"path": "a"}), "refused", "needs `id`"),
        (lambda f: connect(f, "filter/clean", "sink/clean"), "exists", "to `sink/clean` already"),
        (
            lambda f: connect(f, "source/spare", "sink/clean"),
            "exists",
            "the input `sink/clean` already receives `filter/clean`",
        ),
        (lambda f: connect(f, "x/y", "sink/a"), "not-found", "there is no node `x`"),
        (
            lambda f: connect(f, "source/spar", "sink/a"),
            "not-found",
            "`source` has no output `spar` (did you mean `spare`?)",
        ),
        (lambda f: connect(f, "source/spare", "x/a"), "not-found", "there is no node `x`"),
        (lambda f: connect(f, "source/spare", "last/a b"), "refused", "is not allowed in the id"),
        (lambda f: connect(f, "source/spare", "last"), "refused", "`last` is not an input"),
        (lambda f: connect(f, "source", "last/a"), "refused", "`source` is not a source"),
        (lambda f: connect(f, "dora/logs", "last/a"), "refused", "is not the output of a node"),
        (
            lambda f: connect(f, "source/spare", "ops/op/a"),
            "exists",
            "the input `ops/op/a` already receives `filter/clean`",
        ),
        (
            lambda f: disconnect(f, "filter/clean", "sink/claen"),
            "not-found",
            "`sink` has no input `claen` (did you mean `clean`?)",
        ),
        (
            lambda f: disconnect(f, "filter/rest", "sink/clean"),
            "not-found",
            "the input `sink/clean` receives `filter/clean`, not `filter/rest`",
        ),
    ],
)
def test_invalid_changes_are_refused(
    flow: Dataflow, change: _Change, code: str, message: str
) -> None:
    with pytest.raises(TopologyError) as caught:
        change(flow)
    assert message in str(caught.value)
    assert caught.value.code == code


def test_all_errors_of_a_definition_are_reported(flow: Dataflow) -> None:
    with pytest.raises(TopologyError) as caught:
        add_node(flow, {"id": "a", "path": "x", "max_restarts": -1, "output": ["x"]})
    assert caught.value.message == "the definition has errors"
    assert len(caught.value.problems) == 2
    assert caught.value.problems[0].startswith("node a: max_restarts: must be a whole number")


def test_changes_add_up(flow: Dataflow) -> None:
    after = add_node(remove_node(flow, "last"), {"id": "b", "path": "b"})
    after = connect(replace_node(after, "filter", _FILTER), "filter/more", "b/x")
    after = disconnect(after, "filter/clean", "sink/clean")
    assert changes(flow, after) == [
        "removed node last",
        "added node b",
        "replaced node filter",
        "disconnected filter/clean -> sink/clean",
    ]


@pytest.mark.parametrize("target", ["ops/c", "ops/op/c"])
def test_an_operator_gets_an_input_and_loses_it_again(flow: Dataflow, target: str) -> None:
    with_it = connect(flow, "source/spare", target)
    assert _sources(with_it, "ops") == {"op/a": "filter/clean", "op/c": "source/spare"}
    assert changes(flow, with_it) == ["connected source/spare -> ops/op/c"]
    assert _read_again(with_it) == with_it
    assert _sources(disconnect(with_it, "source/spare", target), "ops") == {"op/a": "filter/clean"}


def test_an_operator_node_is_replaced_by_one_with_its_inputs(flow: Dataflow) -> None:
    body = {"python": "n.py", "inputs": {"a": "filter/clean"}, "outputs": ["b", "c"]}
    after = replace_node(flow, "ops", {"id": "ops", "operator": body})
    assert after.node("ops").operators[0].source == "n.py"
    with pytest.raises(TopologyError, match="lacks the input `op/a`"):
        replace_node(flow, "ops", {"id": "ops", "operator": {"python": "n.py"}})

"""The steps from one dataflow to another: they get there, and touch nothing else."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dorad.dataflow.difference import Add, Connect, Disconnect, Remove, Replace, Step, steps
from dorad.dataflow.load import from_descriptor
from dorad.dataflow.model import LINK, Dataflow, NodeOutput, NodeSpec
from dorad.dataflow.share import share
from tests.dataflow.reading import FILE, unhurried
from tests.dataflow.test_share import MACHINES, placed_flows


def flow(*nodes: dict[str, Any]) -> Dataflow:
    return from_descriptor({"nodes": [{"path": "x.py", **node} for node in nodes]}, path=FILE)


def words(before: Dataflow, after: Dataflow) -> list[str]:
    return [word(step) for step in steps(before, after)]


def word(step: Step) -> str:
    match step:
        case Remove(node):
            return f"remove {node}"
        case Add(node):
            return f"add {node.id}"
        case Replace(node):
            return f"replace {node}"
        case Connect(node, entry):
            return f"connect {entry.source} {node}/{entry.id}"
        case Disconnect(node, input_id):
            return f"disconnect {node}/{input_id}"


SOURCE: dict[str, Any] = {"id": "a", "outputs": ["x"]}
SINK: dict[str, Any] = {"id": "b", "inputs": {"i": "a/x"}}


def test_the_same_dataflow_needs_no_step() -> None:
    assert words(flow(SOURCE, SINK), flow(SINK, SOURCE)) == []


def test_a_node_and_its_edges_come_after_its_source() -> None:
    assert words(flow(), flow(SINK, SOURCE)) == ["add a", "add b"]


def test_a_source_that_goes_takes_the_inputs_of_others_first() -> None:
    assert words(flow(SOURCE, SINK), flow({"id": "b"})) == ["disconnect b/i", "remove a"]


def test_a_program_that_changes_is_replaced() -> None:
    assert words(flow(SOURCE, SINK), flow(SOURCE, {**SINK, "args": "new"})) == ["replace b"]


def test_a_program_that_changes_with_its_inputs_is_started_again() -> None:
    after = flow(SOURCE, {**SINK, "args": "new", "inputs": {"j": "a/x"}})
    assert words(flow(SOURCE, SINK), after) == ["remove b", "add b"]


def test_nodes_that_feed_each_other_are_connected_when_both_are_there() -> None:
    one = {"id": "a", "outputs": ["x"], "inputs": {"i": "b/y"}}
    two = {"id": "b", "outputs": ["y"], "inputs": {"i": "a/x"}}
    assert words(flow(), flow(one, two)) == ["add a", "add b", "connect b/y a/i"]


def test_the_link_comes_before_what_it_feeds_and_goes_after_it() -> None:
    whole = flow(SOURCE, SINK)
    together = share(whole, "m", {"b": "m", "a": "m"})
    apart = share(whole, "m", {"b": "m", "a": "n"})
    assert words(together, apart) == [
        "disconnect b/i",
        "remove a",
        f"add {LINK}",
        f"connect {LINK}/a/x b/i",
    ]
    assert words(apart, together) == [
        "disconnect b/i",
        "add a",
        "connect a/x b/i",
        f"remove {LINK}",
    ]


def described(found: Dataflow) -> dict[str, tuple[Any, ...]]:
    def plain(node: NodeSpec) -> tuple[Any, ...]:
        inputs = {each.id: (each.source, each.queue_size) for each in node.all_inputs}
        return (node.path, node.args, inputs)

    return {node.id: plain(node) for node in found.nodes}


@pytest.mark.long
@unhurried
@given(placed_flows(), placed_flows(), st.sampled_from([m for m in MACHINES if m]))
def test_the_steps_lead_to_the_other_dataflow_and_each_leaves_no_dangling_edge(
    first: tuple[Dataflow, dict[str, str]], second: tuple[Dataflow, dict[str, str]], machine: str
) -> None:
    before, after = share(first[0], machine, first[1]), share(second[0], machine, second[1])
    now = before
    for step in steps(before, after):
        now = step.after
        ids = {node.id for node in now.nodes}
        for node in now.nodes:
            for entry in node.all_inputs:
                assert not isinstance(entry.source, NodeOutput) or entry.source.node in ids
    assert described(now) == described(after)
    assert list(steps(now, after)) == []

"""Checks between nodes: sources, ids, cycles."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dorad.dataflow.errors import DataflowError
from tests.dataflow.reading import problem, problems, read, unhurried


def _chain(*edges: str, ids: str = "abcd") -> str:
    """A dataflow of nodes with output `o`; an edge `a>b` drops, `a=b` has backpressure."""
    lines = ["nodes:"]
    for name in ids:
        lines += [f"  - id: {name}", "    path: x", "    outputs: [o]", "    inputs:"]
        for edge in edges:
            if edge[2] == name:
                policy = "backpressure" if edge[1] == "=" else "drop_oldest"
                lines.append(
                    f"      from_{edge[0]}: {{source: {edge[0]}/o, queue_policy: {policy}}}"
                )
    return "\n".join(lines)


def _sink(source: str, upstream: str) -> str:
    sink = f"  - id: b\n    path: x\n    inputs: {{i: {source}}}"
    return f"nodes:\n  - {{id: cam, {upstream}}}\n{sink}"


@pytest.mark.parametrize(
    ("source", "upstream", "message"),
    [
        ("camera/image", "path: x", "there is no node `camera` (did you mean `cam`?)"),
        ("zzz/image", "path: x", "there is no node `zzz`"),
        ("cam/image", "path: x", "`cam` has no output `image`; it has none"),
        (
            "cam/imag",
            "path: x, outputs: [image, depth]",
            "`cam` has no output `imag`; it has image, depth (did you mean `image`?)",
        ),
        ("cam/zzz", "path: x, outputs: [image]", "`cam` has no output `zzz`; it has image"),
        ("cam/image/x", "path: x, outputs: [image]", "`cam` has no output `image/x`; it has image"),
        (
            "cam/o",
            "operators: [{id: p, python: x, outputs: [o]}]",
            "`cam` has no output `o`; it has p/o (write `cam/p/o`)",
        ),
        (
            "cam/oo",
            "operator: {python: x, outputs: [o]}",
            "`cam` has no output `oo`; it has o (did you mean `o`?)",
        ),
        ("dora/logs/info/camera", "path: x", "there is no node `camera` (did you mean `cam`?)"),
        ("'{source: camera/image}'", "path: x", "is not allowed in the node id"),
    ],
)
def test_a_source_that_does_not_exist(source: str, upstream: str, message: str) -> None:
    found = problem(_sink(source, upstream))
    assert (found.line, found.column) == (5, 17)
    assert message in str(found)


def test_the_place_in_the_long_form_is_the_source() -> None:
    found = problem(_sink("{queue_size: 3, source: nobody/o}", "path: x"))
    assert (found.line, found.column, found.key) == (5, 41, "nodes[1].inputs.i.source")


def test_many_outputs_are_listed_in_part() -> None:
    outputs = ", ".join(f"out{i}" for i in range(20))
    assert "out11 and 8 more" in problem(_sink("cam/x", f"path: x, outputs: [{outputs}]")).message


def test_outputs_that_the_file_cannot_know_are_not_checked() -> None:
    assert read(_sink("cam/x", "hub: x@1")).nodes


def test_a_misspelt_list_of_outputs_is_reported_alone() -> None:
    assert problem(_sink("cam/image", "path: x, output: [image]")).key == "nodes[0].output"


def test_an_operator_input_is_checked_too() -> None:
    found = problem("nodes: [{id: a, operators: [{id: p, python: x, inputs: {i: b/o}}]}]")
    assert found.key == "nodes[0].operators[0].inputs.i"


def test_two_nodes_with_one_id_name_both_lines() -> None:
    found = problem("nodes:\n  - id: a\n    path: x\n  - path: y\n    id: a\n")
    assert (found.line, found.key) == (5, "nodes[1].id")
    assert found.message == "two nodes with the id `a`, the first in line 2"


def test_three_nodes_with_one_id_are_two_problems() -> None:
    assert len(problems("nodes: [{id: a, path: x}, {id: a, path: x}, {id: a, path: x}]")) == 2


@pytest.mark.parametrize(
    "edges",
    [("a>b", "b>a"), ("a=b", "b>a"), ("a>a",), ("a=b", "b=c", "c>a"), ("a=b", "a=c", "b=d", "c=d")],
)
def test_cycles_that_cannot_block_are_legal(edges: tuple[str, ...]) -> None:
    assert len(read(_chain(*edges)).nodes) == 4


@pytest.mark.parametrize(
    ("edges", "circle"),
    [
        (("a=a",), "a -> a"),
        (("a=b", "b=a"), "a -> b -> a"),
        (("a=b", "b=c", "c=d", "d=b", "d>a"), "b -> c -> d -> b"),
    ],
)
def test_a_cycle_of_backpressure_is_named(edges: tuple[str, ...], circle: str) -> None:
    found = problem(_chain(*edges))
    assert found.hint == "use `queue_policy: drop_oldest` for one of them"
    named = found.message.removeprefix("every input on the cycle ").partition(" has ")[0]
    around, wanted = named.split(" -> "), circle.split(" -> ")
    assert around[0] == around[-1]
    assert "->".join(around[:-1] * 2).find("->".join(wanted[:-1])) >= 0
    assert len(around) == len(wanted)


def test_each_cycle_is_a_problem() -> None:
    assert len(problems(_chain("a=b", "b=a", "c=d", "d=c"))) == 2


@unhurried
@given(st.sets(st.tuples(st.sampled_from("abcd"), st.sampled_from("abcd"))))
def test_backpressure_is_refused_exactly_in_cycles(edges: set[tuple[str, str]]) -> None:
    reached = {start: {end for begin, end in edges if begin == start} for start in "abcd"}
    for middle in "abcd":
        for start in "abcd":
            if middle in reached[start]:
                reached[start] |= reached[middle]
    goes_round = any(name in reached[name] for name in "abcd")
    text = _chain(*(f"{start}={end}" for start, end in edges))
    try:
        read(text)
    except DataflowError:
        assert goes_round
    else:
        assert not goes_round


def test_a_long_chain_is_checked_without_recursion() -> None:
    lines = ["nodes:", "  - {id: n0, path: x, outputs: [o]}"]
    for i in range(1, 1200):
        source = f"{{source: n{i - 1}/o, queue_policy: backpressure}}"
        lines.append(f"  - {{id: n{i}, path: x, outputs: [o], inputs: {{i: {source}}}}}")
    assert len(read("\n".join(lines)).nodes) == 1200

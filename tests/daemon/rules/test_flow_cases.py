"""The open inputs of a dataflow while it changes: with operators, timers, and other machines."""

import pytest

from dorad.daemon.rules.finish import (
    Closing,
    Flow,
    data_inputs,
    feeds_of,
    flow_of,
    merged,
    units_of,
)
from dorad.dataflow.model import LINK
from tests.daemon.flows import dataflow, node
from tests.dataflow.reading import read

OPERATORS = """
nodes:
  - {id: cam, path: c.py, outputs: [o]}
  - id: n
    operators:
      - {id: x, python: x.py, inputs: {t: dora/timer/secs/1, i: cam/o}, outputs: [o]}
      - {id: y, python: y.py, inputs: {i: n/x/o}, outputs: [o]}
      - {id: z, python: z.py, inputs: {t: dora/timer/secs/1}, outputs: [o]}
  - {id: sink, path: s.py, inputs: {a: n/y/o, b: n/z/o}}
"""
TIMER = "dora/timer/millis/100"


def flow(*nodes: object, exit_when_nodes_finish: bool = False) -> Flow:
    return flow_of(dataflow(*nodes), exit_when_nodes_finish=exit_when_nodes_finish)


def plain(each: Flow) -> dict[str, dict[str, str]]:
    return {unit: dict(inputs) for unit, inputs in each.open_inputs.items()}


def test_a_node_has_drained_when_each_of_its_operators_has_drained_or_ended() -> None:
    start = flow_of(read(OPERATORS), exit_when_nodes_finish=True)
    assert not start.has_drained("n")
    only_y = start.close_source("cam")[0].close_source("n/x")[0]
    assert only_y.drained == {"n/x", "n/y"}
    # The third operator has only a timer: it ends by itself.
    assert not only_y.has_drained("n")
    assert only_y.operator_ended("n/z").has_drained("n")
    assert not only_y.has_drained("sink")
    assert not only_y.has_drained("unknown")


def test_a_node_without_operators_has_drained_when_its_inputs_have_closed() -> None:
    start = flow(node("a"), node("b", "a"))
    assert not start.has_drained("b")
    assert start.close_source("a")[0].has_drained("b")
    assert not start.close_source("a")[0].has_drained("a")


def test_a_node_is_endless_while_an_operator_with_a_timer_runs() -> None:
    start = flow_of(read(OPERATORS), exit_when_nodes_finish=False)
    assert [start.is_endless(each) for each in ("cam", "n", "sink")] == [False, True, False]
    half = start.operator_ended("n/x")
    assert half.is_endless("n")
    ended = half.operator_ended("n/z")
    assert not ended.is_endless("n")
    # An operator without a timer says nothing about it.
    assert half.operator_ended("n/y").is_endless("n")
    # A new process runs all of them again, and those of other nodes stay ended.
    assert ended.restarted("n").is_endless("n")
    assert ended.restarted("cam").ended == {"n/x", "n/z"}


def test_an_ended_node_has_no_open_inputs_and_its_operators_neither() -> None:
    start = flow_of(read(OPERATORS), exit_when_nodes_finish=False)
    assert start.open_of("n") == {"x/i": "cam", "y/i": "n/x"}
    assert start.open_of("sink") == {"a": "n/y", "b": "n/z"}
    without = start.without("n")
    assert plain(without) == {"cam": {}, "sink": {"a": "n/y", "b": "n/z"}}
    assert without.open_of("n") == {}


def test_what_sends_is_alive_and_has_not_ended() -> None:
    start = flow_of(read(OPERATORS), exit_when_nodes_finish=False).operator_ended("n/x")
    assert start.sends("cam", {"cam", "n"})
    assert start.sends("n/y", {"cam", "n"})
    assert not start.sends("n/x", {"cam", "n"})
    assert not start.sends("n/y", {"cam"})


@pytest.mark.parametrize("exits", [True, False])
def test_the_next_daemon_goes_on_with_the_same_flow(exits: bool) -> None:
    start = flow_of(read(OPERATORS), exit_when_nodes_finish=exits)
    ended = start.close_source("cam")[0].operator_ended("n/z")
    assert Flow.from_json(ended.to_json()) == ended
    # A daemon of an earlier version has stored no ended operators.
    older = {name: value for name, value in ended.to_json().items() if name != "ended"}
    assert Flow.from_json(older) == start.close_source("cam")[0]


def rewired(start: Flow, before: object, after: object, *alive: str) -> tuple[Flow, object]:
    return start.rewired(before, after, set(alive), exit_when_nodes_finish=False)


def test_a_new_input_is_open_if_its_source_runs_and_closes_at_once_if_not() -> None:
    before = dataflow(node("a"), node("b"), node("c", x="a"))
    after = dataflow(node("a"), node("b"), node("c", x="a", y="b"))
    start = flow_of(before, exit_when_nodes_finish=False)
    flow_, closings = rewired(start, before, after, "a", "b", "c")
    assert plain(flow_) == {"a": {}, "b": {}, "c": {"x": "a", "y": "b"}}
    assert closings == ()
    flow_, closings = rewired(start, before, after, "a", "c")
    assert plain(flow_)["c"] == {"x": "a"}
    assert closings == (Closing("c", ("y",), drained=False),)
    assert flow_.drained == set()


def test_a_change_drains_a_node_whose_only_input_has_no_source_any_more_but_only_once() -> None:
    before = dataflow(node("a"), node("c"))
    after = dataflow(node("a"), node("c", x="a"))
    start = flow_of(before, exit_when_nodes_finish=False)
    flow_, closings = rewired(start, before, after, "c")
    assert closings == (Closing("c", ("x",), drained=True),)
    assert flow_.drained == {"c"}
    more = dataflow(node("a"), node("c", x="a", y="a"))
    again, closings = rewired(flow_, after, more, "c")
    assert closings == (Closing("c", ("y",), drained=False),)
    assert again.drained == {"c"}
    # With a timer it has more to do.
    timed = dataflow(node("a"), node("c", x="a", t=TIMER))
    flow_, closings = rewired(start, before, timed, "c")
    assert closings == (Closing("c", ("x",), drained=False),)
    assert flow_.drained == set()
    assert flow_.endless == {"c"}


def test_an_input_keeps_its_state_through_a_change_unless_it_gets_another_source() -> None:
    before = dataflow(node("a"), node("b"), node("c", x="a", y="b"))
    half = flow_of(before, exit_when_nodes_finish=False).close_source("a")[0]
    same = dataflow(node("a"), node("b"), node("c", x="a", y="b"), node("d"))
    flow_, closings = rewired(half, before, same, "a", "b", "c", "d")
    assert plain(flow_)["c"] == {"y": "b"}
    assert closings == ()
    other = dataflow(node("a"), node("b"), node("c", x="b", y="b"))
    flow_, closings = rewired(half, before, other, "a", "b", "c")
    assert plain(flow_)["c"] == {"x": "b", "y": "b"}
    assert closings == ()
    # Removing an edge closes nothing: another may follow.
    fewer = dataflow(node("a"), node("b"), node("c"))
    flow_, closings = rewired(half, before, fewer, "a", "b", "c")
    assert plain(flow_)["c"] == {}
    assert closings == ()
    assert flow_.drained == set()


def test_a_change_brings_no_ended_node_back() -> None:
    before = dataflow(node("a"), node("c", x="a"))
    start = flow_of(before, exit_when_nodes_finish=False).without("c")
    after = dataflow(node("a"), node("c", x="a", y="a"), node("d", x="a"))
    flow_, closings = rewired(start, before, after, "a", "d")
    assert plain(flow_) == {"a": {}, "d": {"x": "a"}}
    assert closings == ()


def test_a_change_forgets_ended_operators_of_removed_nodes_and_no_others() -> None:
    before = read(OPERATORS)
    start = flow_of(before, exit_when_nodes_finish=False)
    start = start.operator_ended("n/x").operator_ended(f"{LINK}/far/o")
    flow_, _ = rewired(start, before, before, "cam", "n", "sink")
    assert flow_.ended == {"n/x", f"{LINK}/far/o"}
    without = dataflow(node("cam"), node("sink"))
    flow_, _ = rewired(start, before, without, "cam", "sink")
    assert flow_.ended == {f"{LINK}/far/o"}


def test_a_node_that_starts_again_feeds_again_and_gets_what_still_comes() -> None:
    text = dataflow(node("a"), node("b"), node("n", x="a", y="b"), node("c", x="n", y="b"))
    start = flow_of(text, exit_when_nodes_finish=False)
    ended = start.without("n").close_source("n")[0].close_source("b")[0]
    assert ended.drained == {"c"}
    flow_, closings = ended.started_again("n", text, {"a", "n", "c"})
    assert plain(flow_) == {"a": {}, "b": {}, "n": {"x": "a"}, "c": {"x": "n"}}
    assert closings == (Closing("n", ("y",), drained=False),)
    # What it feeds was asked to end already, and ends.
    assert flow_.drained == {"c"}
    flow_, closings = ended.started_again("n", text, {"n", "c"})
    assert closings == (Closing("n", ("x", "y"), drained=True),)
    assert flow_.drained == {"c", "n"}
    again, closings = flow_.started_again("n", text, {"a", "b", "n", "c"})
    assert (again.drained, closings) == ({"c"}, ())


def test_a_node_with_a_timer_that_starts_again_has_work_without_its_sources() -> None:
    text = dataflow(node("a"), node("n", x="a", t=TIMER))
    ended = flow_of(text, exit_when_nodes_finish=False).without("a").without("n")
    flow_, closings = ended.started_again("n", text, {"n"})
    assert closings == (Closing("n", ("x",), drained=False),)
    assert flow_.drained == set()


def test_an_output_that_sends_again_opens_what_it_feeds_and_nothing_else() -> None:
    text = dataflow(
        node("a"), node("b"), node("c", x="a", y="b"), node("d", x="a"), node("e", x="a")
    )
    start = flow_of(text, exit_when_nodes_finish=False).without("e")
    ended = start.close_source("a")[0].close_source("b")[0].operator_ended("a").operator_ended("b")
    # `c` and `d` have drained: they end.
    assert plain(ended.reopened("a", text)) == {"a": {}, "b": {}, "c": {}, "d": {}}
    half = start.close_source("a")[0].operator_ended("a").operator_ended("b")
    again = half.reopened("a", text)
    assert plain(again)["c"] == {"x": "a", "y": "b"}
    assert plain(again)["d"] == {}
    assert "e" not in plain(again)
    assert again.ended == {"b"}
    closed = start.close_source("b")[0].reopened("a", text)
    assert plain(closed)["c"] == {"x": "a"}


def test_the_flow_of_operators_is_that_of_their_inputs_and_outputs() -> None:
    text = read(OPERATORS)
    assert data_inputs(text) == {
        "cam": {},
        "n/x": {"x/i": "cam"},
        "n/y": {"y/i": "n/x"},
        "n/z": {},
        "sink": {"a": "n/y", "b": "n/z"},
    }
    assert [units_of(each) for each in text.nodes] == [("cam",), ("n/x", "n/y", "n/z"), ("sink",)]
    assert feeds_of(text) == {
        "cam": {"n": {"n/x": ("x/i",)}},
        "n": {"n": {"n/y": ("y/i",)}, "sink": {"sink": ("a", "b")}},
    }
    assert flow_of(text, exit_when_nodes_finish=False).endless == {"n/x", "n/z"}
    # With data, data decides; without any, an operator is a source.
    assert flow_of(text, exit_when_nodes_finish=True).endless == {"n/z"}


def test_the_closings_of_several_sources_are_one_for_each_consumer() -> None:
    found = merged(
        [
            Closing("c", ("x",), drained=False),
            Closing("d", ("x",), drained=True),
            Closing("c", ("y", "z"), drained=True),
            Closing("d", ("y",), drained=False),
        ]
    )
    assert found == {
        "c": Closing("c", ("x", "y", "z"), drained=True),
        "d": Closing("d", ("x", "y"), drained=True),
    }

"""The end of a dataflow as a function of data."""

import math
import time

import pytest

from dorad.daemon.rules.finish import Closing, Flow, flow_of
from tests.daemon.flows import chain, dataflow, node, open_of


def flow(*nodes: object, exit_when_nodes_finish: bool = False) -> Flow:
    return flow_of(dataflow(*nodes), exit_when_nodes_finish=exit_when_nodes_finish)


def test_the_end_of_a_source_closes_the_inputs_it_fed() -> None:
    after, closings = flow(node("a"), node("b"), node("c", x="a", y="b")).close_source("a")
    assert closings == (Closing("c", ("x",), drained=False),)
    assert open_of(after.open_inputs)["c"] == {"y"}


def test_a_node_is_drained_when_its_last_input_closes() -> None:
    start = flow(node("a"), node("b"), node("c", x="a", y="b"))
    after, closings = start.close_source("a")[0].close_source("b")
    assert closings == (Closing("c", ("y",), drained=True),)
    assert after.drained == {"c"}


def test_two_inputs_from_one_source_close_together() -> None:
    (closing,) = flow(node("a"), node("b", x="a/1", y="a/2")).close_source("a")[1]
    assert closing == Closing("b", ("x", "y"), drained=True)


def test_only_direct_consumers_are_notified() -> None:
    closings = flow_of(chain("a", "b", "c"), exit_when_nodes_finish=False).close_source("a")[1]
    assert [closing.unit for closing in closings] == ["b"]


def test_closing_a_source_again_changes_nothing() -> None:
    once = flow(node("a"), node("b", "a")).close_source("a")[0]
    assert once.close_source("a") == (once, ())


def test_an_ended_consumer_is_not_notified() -> None:
    assert flow(node("a"), node("b", "a")).without("b").close_source("a")[1] == ()


@pytest.mark.parametrize("other", ["dora/timer/millis/100", "dora/logs"])
def test_a_timer_or_log_input_keeps_a_node_running(other: str) -> None:
    assert not flow(node("a"), node("b", "a", t=other)).close_source("a")[1][0].drained


@pytest.mark.parametrize("other", ["dora/timer/millis/100", "dora/logs"])
def test_exit_when_nodes_finish_makes_data_inputs_decide(other: str) -> None:
    start = flow(node("a"), node("b", "a", t=other), exit_when_nodes_finish=True)
    assert start.close_source("a")[1][0].drained


def test_a_node_fed_by_a_timer_alone_stays_a_source() -> None:
    start = flow(node("a", t="dora/timer/millis/100"), exit_when_nodes_finish=True)
    assert start.endless == {"a"}


def test_a_loop_does_not_drain_itself() -> None:
    start = flow(node("s"), node("a", x="s", y="b"), node("b", x="a"))
    after, closings = start.close_source("s")
    assert closings == (Closing("a", ("x",), drained=False),)
    assert after.drained == frozenset()


def test_checking_every_node_takes_linear_time() -> None:
    def seconds(count: int) -> float:
        after = (node(f"n{number}", x=f"n{number - 1}") for number in range(1, count))
        found = flow(node("n0"), *after)
        best = math.inf
        for _ in range(3):
            begun = time.process_time()
            for number in range(count):
                found.open_of(f"n{number}")
                found.has_drained(f"n{number}")
                found.is_endless(f"n{number}")
            best = min(best, time.process_time() - begun)
        return best

    # Four times as many nodes take four times as long, not sixteen times.
    assert seconds(1600) < 9 * seconds(400)

"""The life of one machine's share: what comes from and goes to other machines."""

import json

from dorad.daemon.rules.actions import (
    AbortStart,
    Action,
    CloseInput,
    Finish,
    OpenBarrier,
    SendNodeFailed,
    SendNodeRestarted,
    Stop,
    StopAll,
    StopReason,
)
from dorad.daemon.rules.exits import Outcome, Result
from dorad.daemon.rules.lifecycle import Lifecycle
from dorad.dataflow.model import LINK, Dataflow
from dorad.dataflow.share import share
from dorad.launch.model import Exit
from tests.daemon.flows import dataflow, node

DRAINED = StopReason.ALL_INPUTS_CLOSED


def ended(name: str, code: int = 0) -> Result:
    outcome = Outcome.FAILED if code else Outcome.OK
    return Result(name, outcome, Exit(code=code), f"exited with code {code}")


def receiving() -> Dataflow:
    """Machine `m` with `b` and `c`, which receive from `a` and `d` on another machine."""
    whole = dataflow(node("a"), node("d"), node("b", x="a/out"), node("c", x="a/out", y="d/out"))
    return share(whole, "m", {"a": "n", "d": "n", "b": "m", "c": "m"})


def sending() -> Dataflow:
    """Machine `n` with `a`, which sends to another machine."""
    return share(dataflow(node("a"), node("b", x="a/out")), "n", {"a": "n", "b": "m"})


def started(flow: Dataflow, *, held: bool = False) -> Lifecycle:
    life = Lifecycle(flow, held=held)
    for name in sorted(life.running):
        life.connected(name)
    return life


def test_the_end_of_a_source_elsewhere_closes_what_it_fed() -> None:
    life = started(receiving())
    assert life.foreign_closed("a/out") == [
        CloseInput("b", "x"),
        Stop("b", DRAINED),
        CloseInput("c", "x"),
    ]
    assert life.foreign_closed("d/out") == [CloseInput("c", "y"), Stop("c", DRAINED)]


def test_what_a_source_elsewhere_fed_is_open_again_once_it_runs_again() -> None:
    life = started(receiving())
    life.foreign_closed("a/out")
    assert life.foreign_restarted("a/out") == [SendNodeRestarted("c", "a")], "b is ending"
    assert not life.flow.has_ended_elsewhere("a/out")
    assert life.foreign_closed("d/out") == [CloseInput("c", "y")], "c still receives from a"
    assert life.foreign_closed("a/out") == [CloseInput("c", "x"), Stop("c", DRAINED)]


def test_an_output_of_another_machine_that_has_ended_is_known() -> None:
    life = started(receiving())
    life.foreign_closed("a/out")
    assert [life.flow.has_ended_elsewhere(each) for each in ("a/out", "d/out")] == [True, False]


def test_an_end_that_is_reported_twice_has_no_second_effect() -> None:
    life = started(receiving())
    life.foreign_closed("a/out")
    assert life.foreign_closed("a/out") == []


def test_a_failure_elsewhere_follows_the_closed_inputs_as_on_one_machine() -> None:
    life = started(receiving())
    assert life.foreign_failed("a/out", "exited with code 3") == []
    assert life.foreign_closed("a/out") == [
        CloseInput("b", "x"),
        SendNodeFailed("b", "a", "exited with code 3", ("x",)),
        Stop("b", DRAINED),
        CloseInput("c", "x"),
        SendNodeFailed("c", "a", "exited with code 3", ("x",)),
    ]


def test_a_failure_after_the_end_is_reported_at_once() -> None:
    life = started(receiving())
    life.foreign_closed("a/out")
    failed = life.foreign_failed("a/out", "was killed")
    assert failed == [SendNodeFailed("c", "a", "was killed", ("x",))], "b has drained"


def test_a_failure_is_forgotten_when_the_node_runs_again_and_when_it_was_reported() -> None:
    life = started(receiving())
    life.foreign_failed("a/out", "was killed")
    life.foreign_restarted("a/out")
    assert not any(isinstance(each, SendNodeFailed) for each in life.foreign_closed("a/out"))
    life = started(receiving())
    life.foreign_failed("a/out", "was killed")
    life.foreign_closed("a/out")
    life.foreign_restarted("a/out")
    assert not any(isinstance(each, SendNodeFailed) for each in life.foreign_closed("a/out"))


def test_a_failure_that_is_not_reported_yet_survives_a_daemon() -> None:
    life = started(receiving())
    life.foreign_failed("a/out", "was killed")
    later = Lifecycle(receiving())
    later.restore(json.loads(json.dumps(life.snapshot())))
    assert SendNodeFailed("b", "a", "was killed", ("x",)) in later.foreign_closed("a/out")


def test_a_restart_elsewhere_is_reported_once_to_each_consumer() -> None:
    whole = dataflow(node("a"), node("b", x="a/out", y="a/out"), node("c", z="a/out"))
    life = started(share(whole, "m", {"a": "n", "b": "m", "c": "m"}))
    assert life.foreign_restarted("a/out") == [
        SendNodeRestarted("b", "a"),
        SendNodeRestarted("c", "a"),
    ]


def test_of_several_outputs_of_a_node_that_restarts_the_first_notifies_each_consumer() -> None:
    whole = dataflow(node("a"), node("b", x="a/1", y="a/2"), node("c", z="a/2"))
    life = started(share(whole, "m", {"a": "n", "b": "m", "c": "m"}))
    assert life.foreign_restarted("a/1") == [SendNodeRestarted("b", "a")]
    assert life.foreign_restarted("a/2") == [SendNodeRestarted("c", "a")]
    # Each source is notified of by itself.
    assert started(receiving()).foreign_restarted("d/out") == [SendNodeRestarted("c", "d")]


def test_a_new_input_from_an_output_that_has_ended_closes_at_once() -> None:
    life = started(receiving())
    life.foreign_closed("a/out")
    whole = dataflow(
        node("a"), node("d"), node("b", x="a/out"), node("c", x="a/out", y="d/out", z="a/out")
    )
    after = share(whole, "m", {"a": "n", "d": "n", "b": "m", "c": "m"})
    assert life.changed(after) == [CloseInput("c", "z")]


def test_the_restart_of_the_link_is_reported_to_no_node() -> None:
    life = started(receiving())
    life.foreign_closed("a/out")
    assert life.after_run(LINK) == []
    # What has ended on other machines has still ended.
    assert life.flow.has_ended_elsewhere("a/out")


def test_the_end_of_the_link_closes_every_input_that_it_fed() -> None:
    life = started(receiving())
    assert life.after_exit(ended(LINK, 3)) == [
        CloseInput("b", "x"),
        SendNodeFailed("b", LINK, "exited with code 3", ("x",)),
        Stop("b", DRAINED),
        CloseInput("c", "x"),
        SendNodeFailed("c", LINK, "exited with code 3", ("x",)),
        CloseInput("c", "y"),
        SendNodeFailed("c", LINK, "exited with code 3", ("y",)),
        Stop("c", DRAINED),
    ]


def test_the_link_ends_after_all_other_nodes() -> None:
    life = started(sending())
    assert life.after_exit(ended("a")) == [CloseInput(LINK, "m/a/out"), Stop(LINK, DRAINED)]
    assert not life.may_restart(LINK)
    assert life.after_exit(ended(LINK)) == [Finish()]


def test_the_link_hears_of_a_failure_before_the_end() -> None:
    life = started(sending())
    actions: list[Action] = life.after_exit(ended("a", 3))
    assert actions[:2] == [
        SendNodeFailed(LINK, "a", "exited with code 3", ("m/a/out",)),
        CloseInput(LINK, "m/a/out"),
    ]


def test_the_link_is_restarted_while_others_run_even_when_all_it_sends_has_ended() -> None:
    whole = dataflow(node("a"), node("b", x="a/out"), node("c", x="b/out"), node("t", "dora/timer"))
    life = started(share(whole, "n", {"a": "n", "b": "m", "c": "n", "t": "n"}))
    life.after_exit(ended("a"))
    assert life.may_restart(LINK)


def test_a_held_start_opens_when_it_is_released() -> None:
    life = started(sending(), held=True)
    assert life.barrier.complete
    assert life.release() == [OpenBarrier()]
    assert life.release() == []


def test_a_held_start_that_runs_out_stops_everything() -> None:
    life = started(sending(), held=True)
    assert life.expire("too late") == [AbortStart("too late"), StopAll()]
    assert life.expire("again") == []
    assert life.after_exit(ended("a", 1)) == []
    assert life.after_exit(ended(LINK, 1)) == [Finish()]


def test_the_whole_dataflow_may_be_stopped_while_the_link_ends() -> None:
    life = started(sending())
    life.after_exit(ended("a"))
    assert life.stop() == [StopAll()]
    assert life.after_exit(ended(LINK)) == [Finish()]


def test_no_node_is_told_of_anything_that_happens_after_its_stop() -> None:
    whole = dataflow(
        node("a"), node("d"), node("e"), node("b", x="a/out", y="e/out"), node("c", z="d/out")
    )
    here = share(whole, "m", {"a": "n", "d": "n", "b": "m", "c": "m", "e": "m"})
    life = started(here)
    life.after_exit(ended("c"))
    life.foreign_closed("d/out")
    assert life.stop() == [StopAll()]
    assert life.foreign_failed("a/out", "was killed") == []
    assert life.foreign_closed("a/out") == []
    assert life.foreign_failed("a/out", "was killed") == [], "after its end as well"
    assert life.foreign_restarted("a/out") == []
    assert life.operator_ended("e", "x") == []
    assert life.after_run("e") == []
    assert life.outputs_done("e") == []
    more = dataflow(*whole.nodes, node("f", x="c/out"))
    placed = {"a": "n", "d": "n", "b": "m", "c": "m", "e": "m", "f": "m"}
    assert life.changed(share(more, "m", placed)) == []
    assert life.started_again("c") == []

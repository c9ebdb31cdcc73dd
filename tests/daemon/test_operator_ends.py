"""The effects of the end of an operator or its node on consumers. Decisions only."""

from dorad.daemon.rules.actions import (
    CloseInput,
    Finish,
    SendNodeFailed,
    SendNodeRestarted,
    Stop,
    StopReason,
)
from dorad.daemon.rules.exits import Outcome, Result
from dorad.daemon.rules.finish import Flow
from dorad.daemon.rules.lifecycle import Lifecycle
from tests.dataflow.reading import read

DRAINED = StopReason.ALL_INPUTS_CLOSED

FLOW = """
nodes:
  - id: n
    operators:
      - {id: x, python: x.py, inputs: {t: dora/timer/secs/1}, outputs: [o, p]}
      - {id: y, python: y.py, inputs: {i: n/x/o, j: other/o}, outputs: [o, lines]}
      - {id: z, python: z.py, inputs: {i: n/y/o}, send_stdout_as: l, outputs: [l]}
  - {id: other, path: o.py, outputs: [o]}
  - {id: sink, path: s.py, inputs: {a: n/x/p, b: n/y/o}}
  - {id: printed, path: p.py, inputs: {l: n/z/l}}
"""


def begun() -> Lifecycle:
    life = Lifecycle(read(FLOW))
    for node in ("n", "other", "sink", "printed"):
        life.connected(node)
    return life


def ended(node: str, *, ok: bool = True) -> Result:
    return Result(node, Outcome.OK if ok else Outcome.FAILED, None, "exited with code 1")


def test_the_end_of_an_operator_closes_inputs_within_its_node_and_outside() -> None:
    assert begun().operator_ended("n", "x") == [CloseInput("n", "y/i"), CloseInput("sink", "a")]


def test_an_operator_without_open_inputs_is_stopped_alone() -> None:
    life = begun()
    life.operator_ended("n", "x")
    assert life.after_exit(ended("other")) == [CloseInput("n", "y/j"), Stop("n", DRAINED, "y")]
    assert life.may_restart("n")  # the last one still waits for it
    assert life.operator_ended("n", "y") == [
        CloseInput("n", "z/i"),
        Stop("n", DRAINED, "z"),
        CloseInput("sink", "b"),
        Stop("sink", DRAINED),
    ]
    assert life.flow.has_drained("n")
    assert not life.may_restart("n")


def test_outputs_of_printed_lines_close_with_the_process() -> None:
    life = begun()
    assert life.operator_ended("n", "z") == []
    closed = life.after_exit(ended("n"))
    assert CloseInput("printed", "l") in closed
    assert Stop("printed", DRAINED) in closed


def test_the_end_of_the_node_closes_inputs_fed_by_all_its_operators() -> None:
    life = begun()
    life.operator_ended("n", "x")
    assert life.after_exit(ended("n", ok=False)) == [
        CloseInput("sink", "b"),
        SendNodeFailed("sink", "n", "exited with code 1", ("a", "b")),
        Stop("sink", DRAINED),
        CloseInput("printed", "l"),
        SendNodeFailed("printed", "n", "exited with code 1", ("l",)),
        Stop("printed", DRAINED),
    ]


def test_consumers_are_notified_of_a_restart_once_and_the_node_itself_not() -> None:
    life = begun()
    assert life.after_run("n") == [
        SendNodeRestarted("sink", "n"),
        SendNodeRestarted("printed", "n"),
    ]


def test_after_a_restart_all_operators_run_again() -> None:
    life = begun()
    life.operator_ended("n", "x")
    assert life.flow.ended == {"n/x"}
    life.after_run("n")
    assert life.flow.ended == set()


def test_no_input_closes_during_a_stop() -> None:
    life = begun()
    life.stop()
    assert life.operator_ended("n", "x") == []
    for node in ("n", "other", "sink"):
        assert life.after_exit(ended(node)) == []
    assert life.after_exit(ended("printed")) == [Finish()]


def test_the_next_daemon_restores_which_operators_have_ended() -> None:
    life = begun()
    life.operator_ended("n", "x")
    assert Flow.from_json(life.flow.to_json()) == life.flow


def test_a_timer_keeps_only_its_own_operator_running() -> None:
    life = begun()
    assert life.flow.endless == {"n/x"}
    assert life.flow.is_endless("n")
    life.operator_ended("n", "x")
    assert not life.flow.is_endless("n")

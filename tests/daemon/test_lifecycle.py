from dorad.daemon.actions import (
    Action,
    CloseInput,
    Finish,
    OpenBarrier,
    Poison,
    Stop,
    StopAll,
    StopReason,
    TellFailed,
)
from dorad.daemon.exits import Outcome, Result
from dorad.daemon.lifecycle import Lifecycle
from dorad.dataflow.model import Dataflow
from dorad.launch.model import Exit
from tests.daemon.flows import chain, dataflow, node

DRAINED = StopReason.ALL_INPUTS_CLOSED


def ok(name: str) -> Result:
    return Result(name, Outcome.OK, Exit(code=0), "exited with code 0")


def failed(name: str) -> Result:
    return Result(name, Outcome.FAILED, Exit(code=1), "exited with code 1")


def started(flow: Dataflow) -> Lifecycle:
    life = Lifecycle(flow)
    for name in sorted(life.running):
        life.connected(name)
    return life


def test_the_barrier_opens_with_the_last_node() -> None:
    life = Lifecycle(chain("a", "b"))
    assert [life.begin(), life.connected("a"), life.connected("b")] == [[], [], [OpenBarrier()]]


def test_dynamic_nodes_are_not_waited_for() -> None:
    life = Lifecycle(dataflow(node("a", "d"), node("d", dynamic=True)))
    assert life.connected("a") == [OpenBarrier()]


def test_dynamic_nodes_alone_start_at_once_and_run_until_a_stop() -> None:
    life = Lifecycle(dataflow(node("d", dynamic=True)))
    assert life.begin() == [OpenBarrier()]
    assert life.stop() == [StopAll(), Finish()]


def test_a_dataflow_without_nodes_ends_at_once() -> None:
    assert Lifecycle(dataflow()).begin() == [OpenBarrier(), Finish()]


def test_a_source_that_ends_drains_its_consumer() -> None:
    assert started(chain("a", "b")).after_exit(ok("a")) == [
        CloseInput("b", "a"),
        Stop("b", DRAINED),
    ]


def test_a_failed_source_is_told_between_close_and_stop() -> None:
    assert started(chain("a", "b")).after_exit(failed("a")) == [
        CloseInput("b", "a"),
        TellFailed("b", "a", "exited with code 1", ("a",)),
        Stop("b", DRAINED),
    ]


def test_a_failure_after_the_outputs_were_done_is_still_told() -> None:
    life = started(dataflow(node("a"), node("b", "a", t="dora/timer/secs/1")))
    assert life.outputs_done("a") == [CloseInput("b", "a")]
    assert life.after_exit(failed("a")) == [TellFailed("b", "a", "exited with code 1", ("a",))]


def test_nothing_is_told_after_a_stop_event() -> None:
    life = started(chain("a", "b"))
    life.outputs_done("a")
    assert life.after_exit(failed("a")) == []


def test_nothing_is_told_to_a_node_that_ended() -> None:
    life = started(chain("a", "b"))
    life.after_exit(ok("b"))
    assert life.after_exit(failed("a")) == [Finish()]


def test_the_dataflow_ends_with_its_last_spawned_node() -> None:
    life = started(dataflow(node("a"), node("d", "a", dynamic=True)))
    assert life.after_exit(ok("a")) == [CloseInput("d", "a"), Stop("d", DRAINED), Finish()]


def test_a_dynamic_node_that_leaves_closes_what_it_fed() -> None:
    life = started(dataflow(node("d", dynamic=True), node("b", "d")))
    assert life.outputs_done("d") == [CloseInput("b", "d"), Stop("b", DRAINED)]


def test_a_node_that_fails_before_it_connects_poisons_and_stops_all() -> None:
    life = Lifecycle(chain("a", "b", "c"))
    life.connected("a")
    poison, stop = life.after_exit(failed("b"))
    assert isinstance(poison, Poison)
    assert "node b ended before it called Node()" in poison.reason
    assert stop == StopAll()


def test_a_node_that_ends_well_before_it_connects_poisons_but_lets_the_others_run() -> None:
    life = Lifecycle(chain("a", "b"))
    (poison,) = life.after_exit(ok("b"))
    assert isinstance(poison, Poison)


def test_after_a_poisoned_start_no_events_are_sent() -> None:
    life = Lifecycle(chain("a", "b", "c"))
    life.after_exit(ok("b"))
    actions: list[Action] = life.after_exit(failed("a")) + life.after_exit(failed("c"))
    assert actions == [Finish()]


def test_one_node_that_never_connects_is_fine() -> None:
    assert Lifecycle(dataflow(node("a"))).after_exit(ok("a")) == [OpenBarrier(), Finish()]


def test_a_stop_before_the_barrier_opened_lets_the_nodes_see_it() -> None:
    life = Lifecycle(chain("a", "b"))
    assert life.stop() == [StopAll(), OpenBarrier()]


def test_a_second_stop_does_nothing() -> None:
    life = started(chain("a", "b"))
    assert [life.stop(), life.stop()] == [[StopAll()], []]


def test_during_a_stop_inputs_stay_as_they_are() -> None:
    life = started(chain("a", "b"))
    life.stop()
    assert [life.after_exit(ok("a")), life.after_exit(ok("b"))] == [[], [Finish()]]

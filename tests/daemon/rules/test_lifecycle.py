"""The life cycle of nodes as a function of data."""

import json

from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

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
from dorad.dataflow.model import RECORDER, Dataflow
from dorad.launch.model import Exit
from tests.daemon.flows import chain, dataflow, node, open_of
from tests.dataflow.reading import read

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


def test_a_failed_source_is_reported_between_close_and_stop() -> None:
    assert started(chain("a", "b")).after_exit(failed("a")) == [
        CloseInput("b", "a"),
        SendNodeFailed("b", "a", "exited with code 1", ("a",)),
        Stop("b", DRAINED),
    ]


def test_a_failure_after_the_outputs_were_done_is_still_reported() -> None:
    life = started(dataflow(node("a"), node("b", "a", t="dora/timer/secs/1")))
    assert life.outputs_done("a") == [CloseInput("b", "a")]
    assert life.after_exit(failed("a")) == [SendNodeFailed("b", "a", "exited with code 1", ("a",))]


def test_no_events_follow_a_stop_event() -> None:
    life = started(chain("a", "b"))
    life.outputs_done("a")
    assert life.after_exit(failed("a")) == []


def test_an_ended_node_gets_no_events() -> None:
    life = started(chain("a", "b"))
    life.after_exit(ok("b"))
    assert life.after_exit(failed("a")) == [Finish()]


def test_the_dataflow_ends_with_its_last_spawned_node() -> None:
    life = started(dataflow(node("a"), node("d", "a", dynamic=True)))
    assert life.after_exit(ok("a")) == [CloseInput("d", "a"), Stop("d", DRAINED), Finish()]


def test_a_dynamic_node_that_leaves_closes_the_inputs_it_fed() -> None:
    life = started(dataflow(node("d", dynamic=True), node("b", "d")))
    assert life.outputs_done("d") == [CloseInput("b", "d"), Stop("b", DRAINED)]


def test_a_node_that_fails_before_it_connects_aborts_and_stops_all() -> None:
    life = Lifecycle(chain("a", "b", "c"))
    life.connected("a")
    abort_start, stop = life.after_exit(failed("b"))
    assert isinstance(abort_start, AbortStart)
    assert "node b ended before it called Node()" in abort_start.reason
    assert stop == StopAll()


def test_a_node_that_ends_well_before_it_connects_aborts_but_lets_the_others_run() -> None:
    life = Lifecycle(chain("a", "b"))
    (abort_start,) = life.after_exit(ok("b"))
    assert isinstance(abort_start, AbortStart)


def test_after_an_aborted_start_no_events_are_sent() -> None:
    life = Lifecycle(chain("a", "b", "c"))
    life.after_exit(ok("b"))
    actions: list[Action] = life.after_exit(failed("a")) + life.after_exit(failed("c"))
    assert actions == [Finish()]


def test_a_lone_node_that_never_connects_may_end_well() -> None:
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


def test_a_restart_is_reported_to_consumers_and_closes_nothing() -> None:
    life = started(dataflow(node("a"), node("b", "a"), node("c", "a"), node("s")))
    life.after_exit(ok("c"))
    assert life.after_run("a") == [SendNodeRestarted("b", "a")]
    life.stop()
    assert life.after_run("a") == []


def test_which_nodes_may_be_restarted() -> None:
    life = started(dataflow(node("a"), node("b", "a"), node("c", "b")))
    assert [life.may_restart(name) for name in "abc"] == [True, True, True]
    life.after_exit(ok("a"))
    assert [life.may_restart(name) for name in "bc"] == [False, True]
    life.stop()
    assert not life.may_restart("c")


def test_after_an_aborted_start_no_node_is_restarted() -> None:
    life = Lifecycle(chain("a", "b"))
    life.after_exit(ok("b"))
    assert not life.may_restart("a")


def test_an_added_node_is_not_waited_for_and_keeps_the_dataflow_alive() -> None:
    flow = chain("a", "b")
    life = started(flow)
    assert life.changed(dataflow(*flow.nodes, node("c", "a"))) == []
    assert life.connected("c") == []
    life.after_exit(ok("b"))
    assert life.after_exit(ok("a")) == [CloseInput("c", "a"), Stop("c", DRAINED)]
    assert life.after_exit(ok("c")) == [Finish()]


def test_the_input_of_an_added_node_from_one_that_has_ended_is_closed() -> None:
    flow = dataflow(node("a"), node("b"))
    life = started(flow)
    life.after_exit(ok("a"))
    after = dataflow(*flow.nodes, node("c", x="a", y="b"))
    assert life.changed(after) == [CloseInput("c", "x")]


def test_a_kept_edge_stays_open_or_closed() -> None:
    life = started(dataflow(node("a"), node("b"), node("c", x="a", y="b")))
    life.outputs_done("a")
    assert life.changed(dataflow(node("a"), node("b"), node("c", x="a", y="b", z="b"))) == []
    assert open_of(life.flow.open_inputs)["c"] == {"y", "z"}


def test_a_removed_edge_closes_nothing_and_its_node_keeps_running_without_inputs() -> None:
    life = started(chain("a", "b"))
    assert life.changed(dataflow(node("a"), node("b"))) == []
    assert life.after_exit(ok("a")) == []


def test_the_removal_of_the_last_node_does_not_end_the_dataflow() -> None:
    life = started(chain("a"))
    assert life.after_exit(ok("a"), removed=True) == []
    assert life.changed(dataflow()) == []
    assert life.stop() == [StopAll(), Finish()]


def test_an_ended_node_is_notified_of_no_change() -> None:
    life = started(dataflow(node("a"), node("b"), node("c", "a")))
    life.after_exit(ok("b"))
    life.after_exit(ok("c"))
    assert life.changed(dataflow(node("a"), node("b"), node("c", "a", "b"))) == []


FLOW = dataflow(
    node("s"),
    node("a", x="s", t="dora/timer/secs/1"),
    node("b", x="s", y="a"),
    node("c", x="b", y="d"),
    node("d", x="a", dynamic=True),
)
STEPS = st.lists(
    st.tuples(
        st.sampled_from(["connected", "done", "ok", "failed", "restarted", "stop", "grown"]),
        st.sampled_from("sabcd"),
    ),
    max_size=12,
)


def step(life: Lifecycle, what: str, name: str) -> list[Action]:
    """Apply an event to a node if it is possible."""
    match what:
        case "connected":
            return life.connected(name)
        case "done":
            return life.outputs_done(name)
        case "ok" | "failed" if name in life.running:
            return life.after_exit(ok(name) if what == "ok" else failed(name))
        case "restarted" if name in life.running and life.may_restart(name):
            return life.after_run(name)
        case "stop":
            return life.stop()
        case "grown" if len(life.dataflow.nodes) == len(FLOW.nodes):
            return life.changed(dataflow(*FLOW.nodes, node("e", x=name, y="b")))
    return []


@given(STEPS, STEPS)
def test_a_restored_lifecycle_decides_like_the_original(
    before: list[tuple[str, str]], after: list[tuple[str, str]]
) -> None:
    life = Lifecycle(FLOW)
    life.begin()
    for each in before:
        step(life, *each)
    restored = Lifecycle(life.dataflow)
    restored.restore(json.loads(json.dumps(life.snapshot())))
    for each in after:
        assert step(restored, *each) == step(life, *each)
        assert restored.snapshot() == life.snapshot()


def test_a_node_that_has_ended_may_start_again_if_another_one_sends_or_none_feeds_it() -> None:
    life = started(dataflow(node("a", "a"), node("b", "a"), node("c")))
    for name in "abc":
        life.after_exit(ok(name))
    assert [life.may_start_again(name) for name in "abc"] == [True, False, True]


def test_during_a_stop_only_recorders_hear_of_ended_nodes() -> None:
    recorder = replace(node("r", "a"), path=RECORDER)
    life = started(dataflow(node("a"), node("b", "a"), recorder))
    life.stop()
    assert life.after_exit(ok("a")) == [CloseInput("r", "a")]


def test_a_dynamic_node_counts_as_one_that_sends_and_one_added_later_too() -> None:
    flow = dataflow(node("d", dynamic=True), node("a", "d"))
    life = Lifecycle(flow)
    life.connected("a")
    life.after_exit(ok("a"))
    assert life.may_start_again("a")
    more = dataflow(*flow.nodes, node("e", dynamic=True), node("f", "e"))
    assert life.changed(more) == []
    assert life.flow.open_of("f") == {"e": "e"}


def test_a_node_with_operators_may_start_again_if_one_of_them_has_work() -> None:
    text = """
    nodes:
      - {id: s, path: s.py, outputs: [o]}
      - id: n
        operators:
          - {id: x, python: x.py, inputs: {t: dora/timer/secs/1}, outputs: [o]}
          - {id: y, python: y.py, inputs: {i: s/o}, outputs: [o]}
      - {id: other, path: o.py, inputs: {a: dora/timer/secs/1}}
    """
    life = Lifecycle(read(text))
    for name in ("s", "n", "other"):
        life.connected(name)
    life.after_exit(ok("s"))
    life.after_exit(ok("n"))
    assert life.may_start_again("n")


def test_a_restart_is_reported_to_a_node_of_which_one_operator_still_receives() -> None:
    text = """
    nodes:
      - {id: s, path: s.py, outputs: [o]}
      - id: n
        operators:
          - {id: x, python: x.py, inputs: {i: s/o}, outputs: [o]}
          - {id: y, python: y.py, inputs: {i: s/o, t: dora/timer/secs/1}, outputs: [o]}
          - {id: z, python: z.py, inputs: {t: dora/timer/secs/1}, outputs: [o]}
    """
    life = Lifecycle(read(text))
    for name in ("s", "n"):
        life.connected(name)
    life.outputs_done("s")
    assert life.flow.drained == {"n/x"}
    assert life.after_run("s") == [SendNodeRestarted("n", "s")]


def test_what_a_node_feeds_is_open_after_it_has_started_again() -> None:
    life = started(dataflow(node("a"), node("b", "a", "c"), node("c"), node("d", "b"), node("e")))
    for name in "abcd":
        life.after_exit(ok(name))
    assert life.started_again("b") == [
        CloseInput("b", "a"),
        CloseInput("b", "c"),
        Stop("b", DRAINED),
    ]
    life.after_exit(ok("b"))
    assert life.started_again("a") == []
    assert life.may_start_again("b")
    assert life.started_again("b") == [CloseInput("b", "c")]
    assert life.started_again("d") == []
    assert life.flow.open_of("b") == {"a": "a"}
    assert life.after_exit(ok("b")) == [CloseInput("d", "b"), Stop("d", DRAINED)]
    assert life.started_again("b") == [CloseInput("b", "c")]
    assert life.flow.open_of("d") == {"b": "b"}
    assert not life.may_restart("d"), "it has got its STOP"


def test_the_state_of_a_daemon_that_knew_no_links_is_restored() -> None:
    life = started(chain("a", "b"))
    known = life.snapshot()
    del known["link_ends"], known["failures"]
    other = Lifecycle(chain("a", "b"))
    other.restore(known)
    assert (other.link_ends, other.snapshot()) == (False, life.snapshot())


def test_a_stop_during_the_start_names_the_nodes_that_it_waited_for() -> None:
    life = Lifecycle(chain("a", "b", "c"))
    life.connected("b")
    assert not life.was_stopped_early("a")
    life.stop()
    assert [life.was_stopped_early(name) for name in "abc"] == [True, False, True]


def test_a_start_waits_for_the_nodes_that_have_not_called_it_until_it_is_over() -> None:
    life = Lifecycle(chain("a", "b", "c"))
    assert sorted(life.awaited) == ["a", "b", "c"]
    life.connected("b")
    assert sorted(life.awaited) == ["a", "c"]
    life.connected("a")
    life.connected("c")
    assert life.awaited == []
    stopped = Lifecycle(chain("a", "b"))
    stopped.stop()
    assert stopped.awaited == []
    # A program without inputs and outputs need not call it, unless others wait for that.
    beside = Lifecycle(dataflow(replace(node("a"), outputs=()), node("b")))
    assert beside.awaited == ["b"]
    beside.connected("b")
    assert beside.awaited == ["a"]


def test_a_complete_start_has_no_late_nodes_when_it_is_stopped() -> None:
    life = started(chain("a", "b"))
    life.stop()
    assert not any(map(life.was_stopped_early, "ab"))


def test_a_program_without_ports_is_awaited_only_by_other_nodes() -> None:
    plain = replace(node("a"), outputs=())
    alone, beside = Lifecycle(dataflow(plain)), Lifecycle(dataflow(plain, node("b")))
    beside.connected("b")
    for life in (alone, beside):
        life.stop()
    assert not alone.was_stopped_early("a")
    assert beside.was_stopped_early("a")


def test_an_aborted_start_is_explained_by_its_cause_alone() -> None:
    life = Lifecycle(chain("a", "b", "c"))
    life.after_exit(failed("a"))
    assert life.stopping
    assert not any(map(life.was_stopped_early, "bc"))


def test_a_node_that_was_removed_meanwhile_feeds_nothing() -> None:
    life = started(chain("a", "b"))
    before = life.snapshot()
    assert life.outputs_done("gone") == []
    assert life.snapshot() == before

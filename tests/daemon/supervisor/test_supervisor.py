"""The supervisor: start, stop and failure of nodes."""

import asyncio
import signal
from collections.abc import Callable
from typing import Any

import pytest

from dorad.daemon.rules.exits import Outcome
from dorad.daemon.supervisor import startdeadlines
from dorad.daemon.supervisor import supervisor as module
from dorad.daemon.supervisor.idlewatch import IdleWatch
from dorad.dataflow.model import Channel, Link, NodeOutput
from dorad.launch.model import Exit
from dorad.link.reports import PeerStatus, Status
from tests.daemon.fakes import DEADLINE_S, Edge, FakeProcess, Stage, running
from tests.daemon.flows import chain, dataflow, node
from tests.harness.waiting import until


async def test_all_nodes_are_started_and_the_barrier_opens_with_the_last() -> None:
    stage = Stage(chain("a", "b"))
    async with running(stage):
        stage.connect("a")
        assert ("open_barrier",) not in stage.broker.calls
        stage.connect("b")
        assert ("open_barrier",) in stage.broker.calls
        for process in stage.processes.values():
            process.end(Exit(code=0))


async def test_results_come_in_the_order_of_the_ends() -> None:
    stage = Stage(chain("a", "b"))
    async with running(stage) as task:
        stage.connect("a", "b")
        stage.processes["b"].end(Exit(code=0))
        await stage.called("detach", "b")
        stage.processes["a"].end(Exit(code=3))
    assert [(r.node, r.outcome) for r in task.result()] == [
        ("b", Outcome.OK),
        ("a", Outcome.FAILED),
    ]


async def test_a_failed_source_is_detached_its_inputs_close_and_consumers_are_notified() -> None:
    stage = Stage(chain("a", "b"))
    async with running(stage):
        stage.connect("a", "b")
        stage.processes["a"].end(Exit(code=1))
        await stage.called("stop", "b", "ALL_INPUTS_CLOSED")
        stage.processes["b"].end(Exit(code=0))
    assert stage.broker.calls[1:5] == [
        ("detach", "a"),
        ("close_input", "b", "a"),
        ("node_failed", "b", "a", "exited with code 1", "a"),
        ("stop", "b", "ALL_INPUTS_CLOSED"),
    ]


async def test_a_failure_is_reported_when_it_happens() -> None:
    stage = Stage(chain("a", "b"))
    async with running(stage):
        stage.connect("a", "b")
        stage.processes["a"].end(Exit(code=1))
        await until(lambda: ("error", "a", "exited with code 1") in stage.reports)
        stage.processes["b"].end(Exit(code=0))


async def test_a_process_that_drops_its_node_and_exits_closes_inputs_after_its_exit() -> None:
    stage = Stage(chain("a", "b"))
    async with running(stage):
        stage.connect("a", "b")
        stage.supervisor.on_outputs_done("a")
        assert ("close_input", "b", "a") not in stage.broker.calls
        stage.processes["a"].end(Exit(code=1))
        await stage.called("node_failed", "b", "a", "exited with code 1", "a")
        stage.processes["b"].end(Exit(code=0))


async def test_a_process_that_drops_its_node_and_keeps_running_closes_inputs_soon() -> None:
    stage = Stage(chain("a", "b"))
    async with running(stage):
        stage.connect("a", "b")
        stage.supervisor.on_outputs_done("a")
        await stage.called("stop", "b", "ALL_INPUTS_CLOSED")
        for process in stage.processes.values():
            process.end(Exit(code=0))


async def test_a_second_node_object_in_the_process_keeps_the_inputs_open(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "DRAIN_S", 0.01)
    stage = Stage(chain("a", "b"))
    async with running(stage):
        stage.connect("a", "b")
        stage.supervisor.on_outputs_done("a")
        stage.connect("a")
        await asyncio.sleep(0.03)  # nothing may happen
        assert ("close_input", "b", "a") not in stage.broker.calls
        for process in stage.processes.values():
            process.end(Exit(code=0))


async def test_a_node_that_cannot_be_started_aborts_the_start_and_stops_the_rest() -> None:
    stage = Stage(chain("a", "b"), broken=frozenset({"b"}), grace=0.0)
    async with running(stage) as task:
        await until(lambda: any(call[0] == "abort_start" for call in stage.broker.calls))
    results = {result.node: result for result in task.result()}
    assert results["b"].reason == "could not be started: no such file: b.py"
    assert not results["b"].ok


async def test_a_node_that_raises_because_of_an_aborted_start_is_cascading() -> None:
    stage = Stage(chain("a", "b"))
    async with running(stage) as task:
        stage.connect("a")
        stage.processes["b"].end(Exit(code=2))
        await until(lambda: any(call[0] == "abort_start" for call in stage.broker.calls))
        stage.broker.refused.add("a")
        stage.processes["a"].end(Exit(code=1))
    assert ("error", None, "the dataflow cannot start: node b ended before it called Node()") in (
        stage.reports
    )
    outcomes = {result.node: (result.outcome, result.root_cause) for result in task.result()}
    assert outcomes == {"b": (Outcome.FAILED, None), "a": (Outcome.CASCADING, "b")}


async def test_a_stop_sends_the_event_to_all_and_waits() -> None:
    stage = Stage(dataflow(node("a"), node("b", "a"), node("d", "a", dynamic=True)))
    async with running(stage) as task:
        stage.connect("a", "b")
        stage.supervisor.stop()
        for name in ("a", "b", "d"):
            assert ("stop", name, "MANUAL") in stage.broker.calls
        assert stage.processes["a"].signals == []
        for process in stage.processes.values():
            process.end(Exit(code=0))
    assert all(result.ok for result in task.result())


async def test_no_node_gets_a_stop_before_the_next_daemon_would_stop_all() -> None:
    """A daemon that was killed after the first of three left the others running."""
    stage = Stage(chain("a", "b"))
    stored: list[bool] = []
    async with running(stage):
        stage.connect("a", "b")
        stage.changes.on_change = lambda: stored.append(True)
        waiting = stage.changes.waiting = list[Callable[[], None]]()
        stage.supervisor.stop()
        assert stored
        assert ("stop", "a", "MANUAL") not in stage.broker.calls
        waiting.pop()()
        for name in "ab":
            await stage.called("stop", name, "MANUAL")
            stage.processes[name].end(Exit(code=0))


async def test_a_stop_may_ask_for_more_grace_than_usual() -> None:
    stage = Stage(chain("a"), grace=0.0)
    async with running(stage):
        stage.connect("a")
        stage.supervisor.stop(grace=600)
        for _ in range(20):
            await asyncio.sleep(0)
        assert stage.processes["a"].signals == []
        stage.supervisor.stop(grace=0)
    assert signal.SIGTERM in stage.processes["a"].signals


async def test_sigterm_after_the_grace_is_a_good_end() -> None:
    # A busy machine may be late by the half of it after which SIGKILL follows.
    stage = Stage(chain("a"), grace=0.6)
    async with running(stage) as task:
        stage.connect("a")
        stage.supervisor.stop()
        await stage.processes["a"].wait()
    assert stage.processes["a"].signals == [signal.SIGTERM]
    assert task.result()[0].ok


async def test_a_node_that_ignores_everything_is_killed_and_has_failed() -> None:
    stage = Stage(chain("a"), grace=0.05, ignores=frozenset({signal.SIGTERM}))
    async with running(stage) as task:
        stage.connect("a")
        stage.supervisor.stop()
    assert stage.processes["a"].signals == [signal.SIGTERM, signal.SIGKILL]
    (result,) = task.result()
    assert result.outcome is Outcome.GRACE
    assert result.reason.startswith("was killed because it did not end within 0.075 s")


async def test_a_kill_skips_the_stop_ladder() -> None:
    stage = Stage(chain("a", "b"), ignores=frozenset({signal.SIGTERM}))
    async with running(stage) as task:
        stage.connect("a", "b")
        stage.supervisor.kill("was killed on request")
    assert {result.reason for result in task.result()} == {"was killed on request"}


async def test_a_stop_before_the_start_lets_every_node_through_to_its_stop_event() -> None:
    stage = Stage(chain("a", "b"))
    async with running(stage):
        stage.connect("a")
        stage.supervisor.stop()
        calls = stage.broker.calls
        assert calls.index(("stop", "a", "MANUAL")) < calls.index(("open_barrier",))
        for process in stage.processes.values():
            process.end(Exit(code=0))


async def test_a_stop_does_not_wait_for_a_node_that_is_still_being_started() -> None:
    stage = Stage(chain("a"), slow=frozenset({"a"}))
    async with running(stage) as task:
        await asyncio.sleep(0)
        stage.supervisor.stop()
    (result,) = task.result()
    assert (result.ok, result.reason) == (False, "was not started before the dataflow was stopped")


async def test_dynamic_nodes_alone_run_until_a_stop() -> None:
    stage = Stage(dataflow(node("d", dynamic=True)))
    async with running(stage) as task:
        await stage.called("open_barrier")
        stage.supervisor.stop()
    assert task.result() == ()


async def test_a_dynamic_node_is_stopped_with_the_last_of_the_others() -> None:
    stage = Stage(dataflow(node("a"), node("d", dynamic=True, x="a", t="dora/timer/secs/1")))
    async with running(stage):
        stage.connect("a", "d")
        stage.processes["a"].end(Exit(code=0))
    assert stage.broker.calls[-1] == ("stop", "d", "MANUAL")


async def test_nodes_that_are_killed_get_no_stop_but_dynamic_ones_do() -> None:
    stage = Stage(dataflow(node("a"), node("d", dynamic=True, x="a")))
    async with running(stage) as task:
        stage.connect("a", "d")
        stage.supervisor.kill("was killed because of a test")
        assert stage.processes["a"].signals == [signal.SIGKILL]
        stops = [call for call in stage.broker.calls if call[0] == "stop"]
        assert stops == [("stop", "d", "MANUAL")]
    assert task.result()[0].outcome is not Outcome.OK


async def test_a_drained_node_that_does_not_end_is_stopped_after_its_grace() -> None:
    stage = Stage(chain("a", "b"), finish_grace=0.05)
    async with running(stage):
        stage.connect("a", "b")
        stage.processes["a"].end(Exit(code=0))
        await stage.called("stop", "b", "MANUAL")
        stage.processes["b"].end(Exit(code=0))
    assert any("after all its inputs closed; stopping it" in text for *_, text in stage.reports)


async def test_a_straggler_that_has_to_be_terminated_has_failed() -> None:
    stage = Stage(chain("a", "b"), finish_grace=0.05, grace=0.5)
    async with running(stage) as task:
        stage.connect("a", "b")
        stage.processes["a"].end(Exit(code=0))
    assert stage.processes["b"].signals == [signal.SIGTERM]
    result = task.result()[1]
    assert result.outcome is Outcome.GRACE
    assert result.reason.startswith("was stopped by force: still runs")


async def test_a_drained_node_is_idle_since_it_took_its_last_message() -> None:
    stage = Stage(chain("a", "b"))
    edge = Edge("a", "out", "b", "a", sent=99, queued=99)
    stage.broker.edges.append(edge)
    async with running(stage):
        stage.connect("a", "b")
        stage.processes["a"].end(Exit(code=0))
        await stage.called("stop", "b", "ALL_INPUTS_CLOSED")
        watch = IdleWatch(stage.supervisor._state, 0.1)
        for now in range(10):
            edge.received += 1
            edge.queued -= 1
            (remaining,) = watch.measure(float(now))
            assert (remaining.node, remaining.idle_since) == ("b", now)
        (remaining,) = watch.measure(20.0)
        assert remaining.idle_since == 9.0
        stage.processes["b"].end(Exit(code=0))


async def test_a_running_source_keeps_silent_nodes_alive() -> None:
    stage = Stage(chain("a", "b"), finish_grace=0.02)
    async with running(stage):
        stage.connect("a", "b")
        await asyncio.sleep(0.1)  # five times the grace: nothing may happen
        assert ("stop", "b", "MANUAL") not in stage.broker.calls
        for process in stage.processes.values():
            process.end(Exit(code=0))


async def test_a_silent_loop_is_stopped_after_its_source_has_ended() -> None:
    loop = dataflow(node("s"), node("a", x="s", y="b"), node("b", x="a"))
    stage = Stage(loop, finish_grace=0.05, grace=0.0)
    async with running(stage):
        stage.connect("s", "a", "b")
        stage.processes["s"].end(Exit(code=0))
        await stage.called("stop", "a", "MANUAL")


async def test_a_broken_start_cancels_everything() -> None:
    stage = Stage(chain("a", "b"))

    async def fail(*_: object) -> None:
        raise OSError("out of descriptors")

    before = asyncio.all_tasks()
    with pytest.raises(ExceptionGroup, match="unhandled"):
        await stage.supervisor.run(fail)
    assert asyncio.all_tasks() == before


async def test_a_long_wait_for_a_node_or_a_link_is_reported(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(startdeadlines, "START_WARNING_S", 0.5)
    stage = Stage(chain("a", "b"))
    stage.supervisor.links.expect(Link((Channel(NodeOutput("a", "out"), "beta"),), ()))
    stage.supervisor.on_link(Status({"beta": PeerStatus("absent", "it is off")}, [], []))
    async with running(stage):
        stage.connect("a")
        await until(lambda: bool(stage.reports))
        assert stage.reports == [
            (
                "warn",
                None,
                (
                    "the start still waits for Node() in: b "
                    "(every node must call it; `startup_timeout` ends one that hangs before)"
                ),
            ),
            ("warn", None, "the start still waits: the link to beta is not up: it is off"),
        ]
        for process in stage.processes.values():
            process.end(Exit(code=0))


async def test_events_before_a_start_is_confirmed_are_not_lost() -> None:
    stage = Stage(chain("a"))
    loop = asyncio.get_running_loop()

    async def start(*arguments: Any) -> FakeProcess:
        process = await stage.start(*arguments)
        stage.connect("a")
        loop.call_soon(stage.supervisor.kill, "was killed on request")
        return process

    async with asyncio.timeout(DEADLINE_S):
        (result,) = await stage.supervisor.run(start)
    assert result.reason == "was killed on request"


async def test_a_node_that_calls_node_before_its_start_is_known_is_connected() -> None:
    stage = Stage(chain("a"))

    async def start(*arguments: Any) -> FakeProcess:
        process = await stage.start(*arguments)
        stage.connect("a")
        return process

    task = asyncio.create_task(stage.supervisor.run(start))
    await until(lambda: stage.status("a") == "running")
    stage.processes["a"].end(Exit(code=0))
    async with asyncio.timeout(DEADLINE_S):
        await task

"""Watchdogs: health checks, startup timeouts, circuit breakers."""

import asyncio
import os
import signal
import subprocess
import sys
import time
from typing import Any

import pytest

from dorad.daemon.rules.exits import Outcome, Result
from dorad.daemon.rules.lifecycle import Lifecycle
from dorad.daemon.supervisor.noderun import NodeRun
from dorad.daemon.supervisor.state import SupervisorState
from dorad.daemon.supervisor.watchdogs import ADOPTION_S, SAMPLE_S, Watchdogs
from dorad.dataflow.model import NodeSpec
from dorad.procinfo import is_sigstopped
from tests.daemon.fakes import Edge, FakeBroker, FakeProcess, Stage, Vitals
from tests.daemon.flows import dataflow, node
from tests.harness.waiting import until, wait_until

BUSY = Vitals(asleep=False)


class Scene:
    """Watchdogs of nodes that run since time 0, with a clock that the test controls."""

    def __init__(self, *nodes: NodeSpec, connected: bool = True) -> None:
        flow = dataflow(*nodes)
        self.broker = FakeBroker()
        stage = Stage(flow)
        self.reports = stage.reports
        self.events = stage.events
        self.runs = {each.id: NodeRun(each) for each in nodes}
        self.state = SupervisorState(
            Lifecycle(flow),
            self.broker,
            stage,
            stage.changes,
            self.runs,
            lambda _: None,
        )
        self.sigstopped: set[int] = set()
        self.watchdogs = Watchdogs(self.state, is_sigstopped=self.sigstopped.__contains__)
        self.processes = {name: FakeProcess(frozenset()) for name in self.runs}
        for name, run in self.runs.items():
            run.process_started(self.processes[name], 0.0, 0.0)
            if connected:
                self.connect(name)

    def connect(self, name: str) -> None:
        self.runs[name].connected = True
        self.runs[name].api_pid = 42
        self.state.lifecycle.connected(name)

    def killed(self, name: str) -> bool:
        return self.processes[name].signals == [signal.SIGKILL]

    def look(self, *times: float) -> float | None:
        """Check at these times; return the seconds until the next check."""
        wait = None
        for now in times:
            wait = self.watchdogs.check(now)
        return wait


def checked(**options: Any) -> NodeSpec:
    return node("a", options=options)


async def test_without_running_nodes_no_check_is_scheduled() -> None:
    assert Scene(node("a"), node("b", "a"), connected=False).look(0) is None


async def test_a_node_that_does_not_call_node_in_time_is_killed() -> None:
    scene = Scene(checked(startup_timeout=2.0), connected=False)
    assert scene.look(0.5) == 1.5
    assert not scene.killed("a")
    scene.look(2.0)
    assert scene.killed("a")
    assert (
        scene.runs["a"].watchdog_reason == "was killed because it had not called Node() within 2 s"
    )


async def test_a_node_that_called_node_has_started() -> None:
    scene = Scene(checked(startup_timeout=2.0))
    scene.look(2.0, 3.0)
    assert not scene.killed("a")


async def test_every_process_has_its_own_startup_timeout() -> None:
    scene = Scene(checked(startup_timeout=2.0), connected=False)
    scene.look(1.0)
    scene.runs["a"].process_exited("exited with code 1")
    scene.runs["a"].process_started(scene.processes["a"], 1.5, 0.0)
    assert scene.look(2.5) == 1.0
    assert not scene.killed("a")


@pytest.mark.parametrize("has_called", [True, False])
async def test_a_new_daemon_first_learns_which_nodes_have_called_node(
    has_called: bool,
) -> None:
    scene = Scene(checked(startup_timeout=2.0), connected=False)
    watching = asyncio.create_task(scene.watchdogs.run())
    await asyncio.sleep(0)
    watching.cancel()
    assert not scene.killed("a")
    if has_called:
        scene.connect("a")
    scene.look(asyncio.get_running_loop().time() + ADOPTION_S)
    assert scene.killed("a") is not has_called


async def test_a_node_that_does_not_return_to_dora_is_killed_once() -> None:
    scene = Scene(checked(health_check_timeout=1.0))
    scene.broker.nodes["a"] = BUSY
    assert scene.look(0, 0.5) == pytest.approx(SAMPLE_S)
    assert not scene.killed("a")
    scene.look(1.0, 1.1)
    assert scene.killed("a")
    assert scene.runs["a"].watchdog_reason == "was killed because it had not called dora for 1 s"


async def test_the_check_is_due_exactly_at_the_timeout() -> None:
    scene = Scene(checked(health_check_timeout=1.0))
    scene.broker.nodes["a"] = BUSY
    assert scene.look(0, 0.98) == pytest.approx(0.02)


async def test_a_busy_node_that_returns_to_dora_is_not_killed() -> None:
    scene = Scene(checked(health_check_timeout=1.0))
    for pulse in range(10):
        scene.broker.nodes["a"] = Vitals(asleep=False, pulse=pulse)
        scene.look(pulse * 0.9)
    assert not scene.killed("a")


async def test_a_waiting_node_is_pinged_twice_within_its_timeout_and_not_killed_if_it_answers() -> (
    None
):
    scene = Scene(checked(health_check_timeout=1.0))
    scene.look(0, 0.4, 0.5, 0.9, 1.0, 1.4)
    assert scene.broker.calls == [("ping", "a")] * 3
    assert not scene.killed("a")


async def test_a_waiting_node_that_is_sigstopped_is_killed_in_time() -> None:
    scene = Scene(checked(health_check_timeout=1.0))
    scene.look(0, 0.3)
    scene.sigstopped.add(42)
    scene.look(0.35, 1.29)
    assert not scene.killed("a")
    scene.look(1.3)
    assert scene.killed("a")


async def test_a_waiting_node_that_does_not_answer_is_killed() -> None:
    scene = Scene(checked(health_check_timeout=1.0))
    scene.look(0)
    scene.broker.nodes["a"].unread = True
    scene.look(0.5)
    assert not scene.killed("a")
    scene.look(1.0)
    assert scene.killed("a")


async def test_a_process_that_outlives_its_node_for_too_long_is_killed() -> None:
    scene = Scene(checked(health_check_timeout=1.0))
    scene.look(0, 0.5)
    scene.broker.nodes["a"] = Vitals(connected=False)
    assert scene.look(0.55, 1.49) == pytest.approx(0.01)
    assert not scene.killed("a")
    scene.look(1.5)
    assert scene.killed("a")
    assert scene.runs["a"].watchdog_reason == (
        "was killed because it had not ended 1 s after it dropped its Node"
    )
    assert scene.broker.calls == [("ping", "a")] * 2


async def test_health_is_not_checked_before_the_barrier_opens() -> None:
    scene = Scene(checked(health_check_timeout=1.0), node("late"), connected=False)
    scene.connect("a")
    scene.broker.nodes["a"] = BUSY
    assert scene.look(0, 100) is None
    scene.connect("late")
    scene.look(100.5)
    assert not scene.killed("a")


async def test_a_node_that_is_being_stopped_is_not_checked() -> None:
    scene = Scene(checked(health_check_timeout=1.0))
    scene.broker.nodes["a"] = BUSY
    scene.look(0)
    scene.runs["a"].stop_requested = True
    assert scene.look(2) is None
    assert not scene.killed("a")


def fed() -> Scene:
    scene = Scene(node("a"), node("b", "a", timeout=1.0))
    scene.broker.edges.append(Edge("a", "out", "b", "a"))
    return scene


async def test_a_silent_input_breaks_and_recovers_with_the_next_message() -> None:
    scene = fed()
    (edge,) = scene.broker.edges
    scene.look(0, 100)
    edge.sent = 1
    scene.look(100.1, 101.0)
    assert scene.broker.calls == []
    scene.look(101.1)
    assert scene.broker.calls == [("input_broken", "b", "a")]
    assert scene.runs["b"].status == "degraded"
    edge.sent = 2
    scene.look(105)
    assert scene.broker.calls[1:] == [("input_recovered", "b", "a")]
    assert scene.runs["b"].status == "running"
    assert scene.events == [("input-broken", "b"), ("input-recovered", "b")]


async def test_an_input_whose_source_has_ended_does_not_break() -> None:
    scene = fed()
    scene.broker.edges[0].sent = 1
    scene.look(0)
    scene.state.lifecycle.outputs_done("a")
    scene.look(5, 6)
    assert scene.events == []
    assert scene.broker.calls == []


async def test_a_broken_input_whose_source_ends_is_closed() -> None:
    scene = fed()
    scene.broker.edges[0].sent = 1
    scene.look(0, 1)
    scene.state.lifecycle.outputs_done("a")
    scene.look(2)
    assert scene.runs["b"].broken == {}


async def test_an_input_of_a_node_that_is_started_again_waits_for_its_first_message() -> None:
    scene = fed()
    (edge,), run = scene.broker.edges, scene.runs["b"]
    edge.sent = 5
    scene.look(0, 1)
    run.result = Result("b", Outcome.OK, None, "was stopped")
    scene.look(2)
    run.begin_again()
    edge.sent = 0
    del scene.broker.calls[:]
    scene.look(3, 100)
    assert scene.broker.calls == []
    edge.sent = 1
    scene.look(101, 102)
    assert scene.broker.calls == [("input_broken", "b", "a")]


async def test_an_input_found_broken_by_an_earlier_daemon_recovers_with_a_message() -> None:
    scene = fed()
    scene.broker.edges[0].sent = 7
    scene.runs["b"].broken = {"a": 7}
    scene.look(0, 5)
    assert scene.broker.calls == []
    scene.broker.edges[0].sent = 8
    scene.look(6)
    assert scene.broker.calls == [("input_recovered", "b", "a")]


async def test_nothing_is_checked_during_a_stop() -> None:
    scene = fed()
    scene.state.lifecycle.stop()
    assert scene.look(0) is None


async def test_time_in_which_the_daemon_was_stopped_counts_for_no_node() -> None:
    scene = Scene(checked(health_check_timeout=2.0))
    scene.broker.nodes["a"] = BUSY
    loop = asyncio.get_running_loop()
    task = asyncio.create_task(scene.watchdogs.run())
    await asyncio.sleep(0.1)
    begun = loop.time()
    time.sleep(2.5)  # noqa: ASYNC251 - as if the daemon had been stopped by a signal
    await until(lambda: scene.killed("a"))
    assert loop.time() - begun >= 4.0
    task.cancel()


def test_a_process_is_stopped_from_a_sigstop_to_a_sigcont() -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        assert not is_sigstopped(process.pid)
        for number, sigstopped in ((signal.SIGSTOP, True), (signal.SIGCONT, False)):
            process.send_signal(number)
            wait_until(lambda: is_sigstopped(process.pid), lambda seen, s=sigstopped: seen is s)
        process.kill()
    assert not is_sigstopped(process.pid)


def test_this_process_is_not_stopped() -> None:
    assert not is_sigstopped(os.getpid())

"""The supervisor restarts nodes as their policies say."""

import asyncio
import itertools
from typing import Any

import pytest

from dorad.daemon.rules.exits import Outcome
from dorad.daemon.supervisor import noderunner
from dorad.daemon.supervisor import supervisor as module
from dorad.launch.model import Exit, RefusedError, SpawnerExitedError
from tests.daemon.fakes import DEADLINE_S, FakeProcess, Stage, connected, running
from tests.daemon.flows import dataflow, node, restarted
from tests.harness.waiting import until

FAILED, FINE = Exit(code=1), Exit(code=0)


def pair(policy: str = "always", **keys: float) -> Stage:
    """A source with a restart policy, and a sink."""
    return Stage(dataflow(node("a", options=restarted(policy, **keys)), node("b", "a")))


async def test_a_failed_node_is_restarted_with_the_next_restart_count() -> None:
    stage = pair("on-failure")
    async with running(stage) as task:
        stage.connect("a", "b")
        stage.processes["a"].end(FAILED)
        (await stage.until_started("a", 2)).end(FINE)
        await stage.called("detach", "a")
        stage.processes["b"].end(FINE)
    assert [each[:2] for each in stage.started if each[0] == "a"] == [("a", 0), ("a", 1)]
    assert [(r.node, r.outcome) for r in task.result()] == [("a", Outcome.OK), ("b", Outcome.OK)]


async def test_consumers_are_notified_of_a_restart_and_their_inputs_stay_open() -> None:
    async with connected(pair(), "a", "b") as stage:
        stage.processes["a"].end(FAILED)
        await stage.until_started("a", 2)
        assert stage.broker.calls[1:] == [
            ("released", "a"),
            ("node_restarted", "b", "a"),
            ("restarting", "a", "1"),
        ]
        stage.supervisor.kill("was killed")


async def test_consumers_are_notified_of_a_restart_before_the_delay() -> None:
    async with connected(pair(delay=60), "a", "b") as stage:
        stage.processes["a"].end(FAILED)
        await stage.called("node_restarted", "b", "a")
        assert stage.status("a") == "restarting"
        stage.supervisor.kill("was killed")


async def test_restart_delays_grow() -> None:
    async with connected(pair(delay=0.05, max_delay=0.15), "a", "b") as stage:
        for life in range(1, 5):
            (await stage.until_started("a", life)).end(FAILED)
        await stage.until_started("a", 5)
        stage.supervisor.kill("was killed")
    times = [at for name, _, at in stage.started if name == "a"]
    first, second, third, fourth = (b - a for a, b in itertools.pairwise(times))
    assert first >= 0.05
    assert second >= 0.1
    assert third >= 0.15
    assert fourth >= 0.15


async def test_a_node_that_exits_at_once_is_restarted_after_a_minimum_delay() -> None:
    async with connected(pair(), "a", "b") as stage:
        for life in range(1, 4):
            (await stage.until_started("a", life)).end(FAILED)
        await stage.until_started("a", 4)
        stage.supervisor.kill("was killed")
    times = [at for name, _, at in stage.started if name == "a"]
    assert all(b - a >= 0.09 for a, b in itertools.pairwise(times))


async def test_giving_up_reports_the_number_of_restarts() -> None:
    stage = pair(max_restarts=2)
    async with running(stage) as task:
        stage.connect("a", "b")
        for life in range(1, 4):
            (await stage.until_started("a", life)).end(FAILED)
        await stage.called("stop", "b", "ALL_INPUTS_CLOSED")
        assert stage.status("a") == "failed"
        stage.processes["b"].end(FINE)
    (result,) = (each for each in task.result() if not each.ok)
    assert result.reason == "exited with code 1; gave up after 2 restarts"


async def test_giving_up_after_an_exit_with_0_is_not_a_failure() -> None:
    stage = pair(max_restarts=1)
    async with running(stage) as task:
        stage.connect("a", "b")
        for life in range(1, 3):
            (await stage.until_started("a", life)).end(FINE)
        await stage.called("stop", "b", "ALL_INPUTS_CLOSED")
        assert stage.status("a") == "stopped"
        stage.processes["b"].end(FINE)
    result = task.result()[0]
    assert (result.outcome, result.reason) == (
        Outcome.OK,
        "exited with code 0; gave up after 1 restart",
    )


async def test_a_drained_node_is_not_restarted() -> None:
    stage = Stage(dataflow(node("a"), node("b", "a", options=restarted())))
    async with running(stage) as task:
        stage.connect("a", "b")
        stage.processes["a"].end(FINE)
        await stage.called("stop", "b", "ALL_INPUTS_CLOSED")
        stage.processes["b"].end(FAILED)
    assert [(r.node, r.ok) for r in task.result()] == [("a", True), ("b", False)]


async def test_a_node_drained_during_its_restart_delay_keeps_its_last_result() -> None:
    stage = Stage(dataflow(node("a"), node("b", "a", options=restarted(delay=60))))
    async with running(stage) as task:
        stage.connect("a", "b")
        stage.processes["b"].end(FAILED)
        await until(lambda: stage.status("b") == "restarting")
        stage.processes["a"].end(FINE)
    assert task.result()[1].reason == "exited with code 1"


async def test_a_stop_ends_a_restart_delay() -> None:
    stage = pair(delay=60)
    async with running(stage) as task:
        stage.connect("a", "b")
        stage.processes["a"].end(FAILED)
        await until(lambda: stage.status("a") == "restarting")
        stage.supervisor.stop()
        stage.processes["b"].end(FINE)
    assert {(r.node, r.ok) for r in task.result()} == {("a", False), ("b", True)}


async def test_a_stop_during_a_restart_keeps_the_result_of_the_last_process() -> None:
    stage = pair()
    async with running(stage) as task:
        stage.connect("a", "b")
        stage.slow = frozenset({"a"})
        stage.processes["a"].end(FAILED)
        await stage.called("restarting", "a", "1")
        await asyncio.sleep(0)
        stage.supervisor.stop()
        stage.processes["b"].end(FINE)
    assert {(r.node, r.reason) for r in task.result()} == {
        ("a", "exited with code 1"),
        ("b", "exited with code 0"),
    }


async def test_nothing_is_restarted_during_a_stop() -> None:
    stage = pair()
    async with running(stage) as task:
        stage.connect("a", "b")
        stage.supervisor.stop()
        for process in stage.processes.values():
            process.end(FINE)
    assert len(stage.started) == 2
    assert all(result.ok for result in task.result())


async def test_a_restartable_node_that_drops_its_node_keeps_its_consumers(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "DRAIN_S", 0.0)
    async with connected(pair("on-failure"), "a", "b") as stage:
        stage.supervisor.on_outputs_done("a")
        stage.processes["b"].end(FINE)
        await stage.called("detach", "b")
        assert ("close_input", "b", "a") not in stage.broker.calls
        stage.processes["a"].end(FINE)


async def test_a_node_that_ends_before_node_and_is_restarted_does_not_abort_the_start() -> None:
    async with connected(pair("on-failure"), "b") as stage:
        stage.processes["a"].end(FAILED)
        await stage.until_started("a", 2)
        stage.connect("a")
        await stage.called("open_barrier")
        assert not any(call[0] == "abort_start" for call in stage.broker.calls)
        stage.supervisor.kill("was killed")


async def test_a_node_that_gives_up_before_node_aborts_the_start() -> None:
    stage = pair("on-failure", max_restarts=1)
    async with running(stage):
        for life in (1, 2):
            (await stage.until_started("a", life)).end(FAILED)
        await until(lambda: any(call[0] == "abort_start" for call in stage.broker.calls))
        stage.processes["b"].end(FAILED)


async def test_a_restart_whose_process_cannot_be_started_counts_and_is_retried(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(noderunner, "RETRY_S", 0.01)
    async with connected(pair("on-failure"), "a", "b") as stage:
        stage.broken = frozenset({"a"})
        stage.processes["a"].end(FAILED)
        await until(lambda: any("could not be started" in text for *_, text in stage.reports))
        stage.broken = frozenset()
        await stage.until_started("a", 2)
        assert stage.started[-1][1] >= 2
        stage.supervisor.kill("was killed")


async def test_no_restart_is_retried_once_no_process_can_be_started() -> None:
    stage = pair("always")
    starts = 0

    async def start(*arguments: Any) -> FakeProcess:
        nonlocal starts
        starts += 1
        if starts > 2:
            raise SpawnerExitedError("the process holder has exited")
        return await stage.start(*arguments)

    task = asyncio.create_task(stage.supervisor.run(start))
    await stage.spawned()
    stage.connect("a", "b")
    for process in stage.processes.values():
        process.end(FAILED)
    async with asyncio.timeout(DEADLINE_S):
        results = {result.node: result.reason for result in await task}
    assert results == {
        "a": "could not be started: the process holder has exited",
        "b": "exited with code 1",
    }


async def test_a_first_start_that_fails_is_final_whatever_the_policy() -> None:
    stage = pair()
    stage.broken = frozenset({"a"})
    async with running(stage) as task:
        await until(lambda: any(call[0] == "abort_start" for call in stage.broker.calls))
        stage.supervisor.kill("was killed")
    assert task.result()[0].reason == "could not be started: no such file: a.py"


async def test_a_first_start_that_is_refused_temporarily_is_retried_by_the_policy(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(noderunner, "RETRY_S", 0.01)
    stage = pair("on-failure")
    refusals = ["systemd has no time", "no pipe can be made"]

    async def start(node: Any, *arguments: Any) -> FakeProcess:
        if node.id == "a" and refusals:
            raise RefusedError(refusals.pop(0))
        return await stage.start(node, *arguments)

    task = asyncio.create_task(stage.supervisor.run(start))
    await stage.until_started("a", 1)
    stage.connect("a", "b")
    assert stage.supervisor.statuses()["a"].restarts == 2
    assert not [call for call in stage.broker.calls if call[0] == "abort_start"]
    assert [text for *_, text in stage.reports if "could not be started: no pipe" in text]
    for process in stage.processes.values():
        process.end(Exit(code=0))
    async with asyncio.timeout(DEADLINE_S):
        assert all(result.ok for result in await task)


async def test_refused_starts_end_at_the_limit_of_the_policy(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(noderunner, "RETRY_S", 0.01)
    stage = pair("always", max_restarts=3)
    tries = 0

    async def start(node: Any, *arguments: Any) -> FakeProcess:
        nonlocal tries
        if node.id == "a":
            tries += 1
            raise RefusedError("systemd has no time")
        return await stage.start(node, *arguments)

    task = asyncio.create_task(stage.supervisor.run(start))
    await until(lambda: any(call[0] == "abort_start" for call in stage.broker.calls))
    stage.supervisor.kill("was killed")
    for process in stage.processes.values():
        process.end(Exit(signal=9))
    async with asyncio.timeout(DEADLINE_S):
        results = {result.node: result.reason for result in await task}
    assert tries == 4
    assert results["a"] == ("could not be started: systemd has no time; gave up after 3 restarts")


async def test_node_events_are_published_to_clients() -> None:
    async with connected(pair(max_restarts=1), "a", "b") as stage:
        for life in (1, 2):
            (await stage.until_started("a", life)).end(FAILED)
        await stage.called("stop", "b", "ALL_INPUTS_CLOSED")
        stage.processes["b"].end(FINE)
    assert [what for what, name in stage.events if name == "a"] == [
        "node-started",
        "node-exited",
        "node-restarting",
        "node-started",
        "node-exited",
        "node-failed",
    ]


async def test_the_status_of_a_node_follows_its_life() -> None:
    stage = pair(delay=60)
    async with running(stage):
        assert stage.status("a") == "starting"
        stage.connect("a", "b")
        view = stage.supervisor.statuses()["a"]
        assert (view.status, view.pid, view.restarts) == ("running", 1, 0)
        stage.processes["a"].end(FAILED)
        await until(lambda: stage.status("a") == "restarting")
        view = stage.supervisor.statuses()["a"]
        assert (view.pid, view.last_exit) == (None, "exited with code 1")
        stage.supervisor.kill("was killed")
    assert stage.status("a") == "failed"


async def test_the_status_of_a_failed_node_has_the_error_that_it_wrote() -> None:
    async with connected(pair(delay=60), "a", "b") as stage:
        process = stage.processes["a"]
        process.stderr = (
            "Traceback (most recent call last):",
            '  File "/srv/a.py", line 1, in <module>',
            "    import cv2",
            "ModuleNotFoundError: No module named 'cv2'",
        )
        process.end(FAILED)
        await until(lambda: stage.status("a") == "restarting")
        view = stage.supervisor.statuses()["a"]
        assert view.last_error == "ModuleNotFoundError: No module named 'cv2'"
        run = stage.supervisor.snapshot()["nodes"]["a"]
        assert run["last_error"] == view.last_error
        stage.supervisor.kill("was killed")

"""The supervisor adopts nodes of a previous daemon."""

import asyncio
import json
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from dorad.daemon.rules.exits import Outcome
from dorad.dataflow.model import Dataflow
from dorad.launch.model import Exit
from tests.daemon.fakes import FakeProcess, Stage, running
from tests.daemon.flows import chain, dataflow, node, restarted
from tests.harness.waiting import until

FINE, FAILED = Exit(code=0), Exit(code=1)


@asynccontextmanager
async def lost(stage: Stage) -> AsyncIterator[Stage]:
    """Run a supervisor, kill its daemon, and yield the one that adopts its snapshot."""
    after = Stage(stage.dataflow, grace=stage.grace)
    task = asyncio.create_task(stage.supervisor.run(stage.start))
    try:
        await stage.spawned()
        yield after
        after.restored = json.loads(json.dumps(stage.supervisor.snapshot()))
        after.__post_init__()
        after.processes = stage.processes
    finally:
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task


def kept(stage: Stage, *names: str) -> dict[str, FakeProcess | Exit]:
    """Return the processes that keep running."""
    return {name: stage.processes[name] for name in names}


async def test_running_nodes_continue_without_a_new_barrier() -> None:
    before = Stage(chain("a", "b"))
    async with lost(before) as stage:
        before.connect("a", "b")
    async with running(stage, kept(stage, "a", "b")) as task:
        await until(lambda: stage.supervisor.statuses()["b"].pid is not None)
        assert [stage.status(name) for name in "ab"] == ["running", "running"]
        assert stage.started == []
        stage.processes["a"].end(FINE)
        await stage.called("stop", "b", "ALL_INPUTS_CLOSED")
        stage.processes["b"].end(FINE)
    assert ("open_barrier",) not in stage.broker.calls
    assert all(result.ok for result in task.result())


async def test_a_start_that_waits_at_the_barrier_keeps_waiting() -> None:
    before = Stage(chain("a", "b"))
    async with lost(before) as stage:
        before.connect("a")
    stage.broker.nodes["b"] = stage.broker.stats.vitals("b")
    stage.broker.nodes["b"].connected = False
    async with running(stage, kept(stage, "a", "b")):
        await until(lambda: stage.supervisor.statuses()["b"].pid is not None)
        stage.connect("b")
        await stage.called("open_barrier")
        stage.supervisor.kill("was killed")


async def test_a_node_that_ended_meanwhile_has_its_real_exit() -> None:
    before = Stage(chain("a", "b"))
    async with lost(before) as stage:
        before.connect("a", "b")
    async with running(stage, {**kept(stage, "b"), "a": FAILED}) as task:
        await stage.called("node_failed", "b", "a", "exited with code 1", "a")
        stage.processes["b"].end(FINE)
    assert task.result()[0].reason == "exited with code 1"


async def test_a_node_without_a_process_or_exit_has_failed() -> None:
    before = Stage(chain("a", "b"))
    async with lost(before) as stage:
        before.connect("a", "b")
    async with running(stage, kept(stage, "b")) as task:
        await stage.called("stop", "b", "ALL_INPUTS_CLOSED")
        stage.processes["b"].end(FINE)
    assert task.result()[0].reason == "ended while no daemon was running"


async def test_the_restart_count_continues() -> None:
    keys = restarted("on-failure", max_restarts=2)
    before = Stage(dataflow(node("a", options=keys), node("b", "a")))
    async with lost(before) as stage:
        before.connect("a", "b")
        before.processes["a"].end(FAILED)
        await before.until_started("a", 2)
    async with running(stage, {**kept(stage, "b"), "a": FAILED}) as task:
        process = await stage.until_started("a", 1)
        assert stage.started[0][:2] == ("a", 2)
        process.end(FAILED)
        await stage.called("stop", "b", "ALL_INPUTS_CLOSED")
        stage.processes["b"].end(FINE)
    assert task.result()[0].reason == "exited with code 1; gave up after 2 restarts"


async def test_a_restart_delay_continues() -> None:
    before = Stage(dataflow(node("a", options=restarted(delay=0.3)), node("b", "a")))
    loop = asyncio.get_running_loop()
    async with lost(before) as stage:
        before.connect("a", "b")
        before.processes["a"].end(FAILED)
        ended = loop.time()
        await until(lambda: before.status("a") == "restarting")
    async with running(stage, kept(stage, "b")):
        assert stage.status("a") == "restarting"
        await stage.until_started("a", 1)
        assert stage.started[0][2] - ended >= 0.3
        assert stage.started[0][:2] == ("a", 1)
        stage.supervisor.kill("was killed")


async def test_a_process_started_without_being_recorded_is_counted() -> None:
    before = Stage(dataflow(node("a", options=restarted(delay=60))))
    async with lost(before) as stage:
        before.connect("a")
        before.processes["a"].end(FAILED)
        await until(lambda: before.status("a") == "restarting")
    stage.processes["a"] = FakeProcess(frozenset(), pid=77)
    async with running(stage, kept(stage, "a")):
        await until(lambda: stage.supervisor.statuses()["a"].pid == 77)
        assert stage.supervisor.statuses()["a"].restarts == 1
        stage.supervisor.kill("was killed")


async def test_a_stop_in_progress_continues_with_a_new_ladder_of_the_same_grace() -> None:
    before = Stage(chain("a", "b"), grace=600)
    async with lost(before) as stage:
        before.connect("a", "b")
        before.supervisor.stop(grace=1.0)
    async with running(stage, kept(stage, "a", "b")) as task:
        await stage.called("stop", "a", "MANUAL")
    assert stage.processes["a"].signals == [signal.SIGTERM]
    assert all(result.ok for result in task.result())


async def test_results_so_far_are_kept() -> None:
    before = Stage(chain("a", "b"))
    async with lost(before) as stage:
        before.connect("a", "b")
        before.processes["a"].stderr = ("first", "last")
        before.processes["a"].end(FAILED)
        await before.called("stop", "b", "ALL_INPUTS_CLOSED")
    async with running(stage, kept(stage, "b")) as task:
        stage.processes["b"].end(FINE)
    first, second = task.result()
    assert (first.node, first.outcome, first.stderr) == ("a", Outcome.FAILED, ("first", "last"))
    assert second.ok


async def test_a_dataflow_whose_last_node_ended_meanwhile_ends() -> None:
    before = Stage(chain("a"))
    async with lost(before) as stage:
        before.connect("a")
    async with running(stage, {"a": FINE}) as task:
        pass
    assert task.result()[0].ok


async def test_every_change_of_the_snapshot_is_announced() -> None:
    changes: list[None] = []
    stage = Stage(dataflow(node("a", options=restarted()), node("b", "a")))
    stage.changes.on_change = lambda: changes.append(None)
    seen = stage.supervisor.snapshot()
    reported = 0

    def changed() -> bool:
        """Return True if the snapshot changed; fail if that was not reported."""
        nonlocal seen, reported
        differs = stage.supervisor.snapshot() != seen
        assert not differs or len(changes) > reported
        seen, reported = stage.supervisor.snapshot(), len(changes)
        return differs

    async with running(stage):
        assert changed()
        stage.connect("a")
        assert changed()
        stage.connect("b")
        assert changed()
        stage.processes["a"].end(FAILED)
        await stage.until_started("a", 2)
        await until(changed)
        stage.supervisor.kill("was killed")
        assert changed()
    assert changed()


async def test_a_node_that_was_just_being_stopped_is_stopped() -> None:
    before = Stage(chain("a", "b"))
    async with lost(before) as stage:
        before.connect("a", "b")
        command = asyncio.create_task(before.supervisor.commands.stop("a"))
        await before.called("stop", "a", "MANUAL")
        command.cancel()
    async with running(stage, kept(stage, "a", "b")):
        await stage.called("stop", "a", "MANUAL")
        stage.processes["a"].end(FINE)
        await stage.called("stop", "b", "ALL_INPUTS_CLOSED")
        stage.processes["b"].end(FINE)


async def test_a_node_that_was_just_being_restarted_is_restarted() -> None:
    before = Stage(chain("a", "b"))
    async with lost(before) as stage:
        before.connect("a", "b")
        command = asyncio.create_task(before.supervisor.commands.restart("a"))
        await before.called("stop", "a", "MANUAL")
        command.cancel()
    async with running(stage, kept(stage, "a", "b")):
        await stage.called("stop", "a", "MANUAL")
        stage.processes["a"].end(FINE)
        await stage.until_started("a", 1)
        assert stage.started[0][:2] == ("a", 1)
        stage.supervisor.kill("was killed")


async def test_a_restart_whose_old_process_has_ended_already_starts_only_one() -> None:
    before = Stage(chain("a", "b"))
    async with lost(before) as stage:
        before.connect("a", "b")
        before.gate = asyncio.Event()
        command = asyncio.create_task(before.supervisor.commands.restart("a"))
        await before.called("stop", "a", "MANUAL")
        before.processes["a"].end(FINE)
        await until(lambda: before.waiting == ["a"])
        command.cancel()
    async with running(stage, kept(stage, "b")):
        await stage.until_started("a", 1)
        await until(lambda: stage.supervisor.statuses()["a"].pid is not None)
        stage.connect("a")
        stage.processes["a"].end(FINE)
        await stage.called("stop", "b", "ALL_INPUTS_CLOSED")
        stage.processes["b"].end(FINE)
    assert ("stop", "a", "MANUAL") not in stage.broker.calls


async def test_every_state_that_is_stored_can_be_stopped() -> None:
    """A daemon may be killed after any of them, and every process may end before the next one."""
    before = Stage(dataflow(node("a", options=restarted(delay=0.01)), node("b", "a")))
    loop = asyncio.get_running_loop()
    stored: dict[str, Dataflow] = {}

    def store() -> None:
        stored[json.dumps(before.supervisor.snapshot())] = before.supervisor.dataflow

    before.changes.on_change = lambda: loop.call_soon(store) and None
    commands = before.supervisor.commands
    async with running(before):
        before.connect("a", "b")
        before.processes["a"].end(FAILED)
        await before.until_started("a", 2)
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(commands.restart("b"))
            await before.called("stop", "b", "MANUAL")
            before.processes["b"].end(FINE)
        extra = node("c", "a")
        await commands.add(extra, dataflow(*before.dataflow.nodes, extra))
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(commands.remove("c", before.dataflow))
            await before.called("stop", "c", "MANUAL")
            before.processes["c"].end(FINE)
        before.supervisor.kill("was killed")
    assert len(stored) > 10
    for text, flow in stored.items():
        snapshot = json.loads(text)
        stage = Stage(flow, restored=snapshot)
        exits = {n: FINE for n, each in snapshot["nodes"].items() if each["spawned_at"]}
        async with running(stage, dict[str, FakeProcess | Exit](exits)):
            await asyncio.sleep(0)
            stage.supervisor.stop(grace=0)


async def test_an_unrecorded_change_does_not_stop_the_adoption() -> None:
    before = Stage(chain("a", "b"))
    async with lost(before) as stage:
        before.connect("a", "b")
        new = node("c", "a")
        flow = dataflow(*before.dataflow.nodes, new)
        adding = asyncio.create_task(before.supervisor.commands.add(new, flow))
        await until(lambda: "c" in before.processes)
        adding.cancel()
    assert list(stage.supervisor.statuses()) == ["a", "b"]
    async with running(stage, kept(stage, "a", "b")):
        stage.processes["a"].end(FINE)
        await stage.called("stop", "b", "ALL_INPUTS_CLOSED")
        stage.processes["b"].end(FINE)


async def test_a_restart_whose_new_process_was_not_recorded_is_done() -> None:
    before = Stage(chain("a", "b"))
    async with lost(before) as stage:
        before.connect("a", "b")
    assert stage.restored is not None
    stage.restored["nodes"]["a"] |= {"spawned_at": None, "restart_requested": True}
    stage.__post_init__()
    async with running(stage, kept(stage, "a", "b")):
        await until(lambda: stage.supervisor.statuses()["b"].pid is not None)
        assert stage.supervisor.statuses()["a"].pid is not None
        await asyncio.sleep(0)
        assert ("stop", "a", "MANUAL") not in stage.broker.calls
        stage.supervisor.kill("was killed")


def with_dynamic() -> Stage:
    """A stage with a dynamic node between two others."""
    return Stage(dataflow(node("a"), node("d", "a", dynamic=True), node("b", "d")))


async def test_a_dynamic_node_that_joined_unrecorded_runs_for_the_next_daemon() -> None:
    before = with_dynamic()
    async with lost(before) as stage:
        before.connect("a", "b")
    stage.broker.pids["d"] = 44
    async with running(stage, kept(stage, "a", "b")):
        await until(lambda: stage.status("d") == "running")
        assert stage.supervisor.statuses()["d"].pid == 44
        stage.supervisor.kill("was killed")


async def test_a_dynamic_node_keeps_its_pid_under_the_next_daemon() -> None:
    before = with_dynamic()
    async with lost(before) as stage:
        before.connect("a", "b", "d")
    stage.broker.pids["d"] = 1
    async with running(stage, kept(stage, "a", "b")):
        await until(lambda: stage.supervisor.statuses()["d"].pid == 1)
        stage.supervisor.on_disconnected("d")
        assert stage.status("d") == "stopped"
        stage.supervisor.kill("was killed")


async def test_a_dynamic_node_that_left_unrecorded_has_left_for_the_next_daemon() -> None:
    before = with_dynamic()
    async with lost(before) as stage:
        before.connect("a", "b", "d")
    async with running(stage, kept(stage, "a", "b")):
        await stage.called("close_input", "b", "d")
        assert stage.status("d") == "stopped"
        stage.supervisor.kill("was killed")


async def test_a_stop_of_a_dynamic_node_continues_under_the_next_daemon() -> None:
    before = with_dynamic()
    async with lost(before) as stage:
        before.connect("a", "b", "d")
        stopping = asyncio.create_task(before.supervisor.commands.stop("d", grace=0.05))
        await before.called("stop", "d", "MANUAL")
        stopping.cancel()
    stage.broker.pids["d"] = 1
    async with running(stage, kept(stage, "a", "b")):
        await stage.called("stop", "d", "MANUAL")
        # It does not leave, and its consumers do not wait for it.
        await stage.called("close_input", "b", "d")
        stage.supervisor.kill("was killed")

"""Commands that stop, restart and replace single nodes."""

import asyncio
import signal
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from msgspec.structs import replace

from dorad.control.errors import ControlError
from dorad.dataflow.model import Dataflow, NodeSpec
from dorad.launch.model import Exit
from tests.daemon.fakes import DEADLINE_S, Stage, connected, running
from tests.daemon.flows import chain, dataflow, node, restarted
from tests.harness.waiting import until

FINE, FAILED = Exit(code=0), Exit(code=1)
TERMINATED = Exit(signal=signal.SIGTERM)


async def within(command: Coroutine[Any, Any, None]) -> None:
    """Await a command with a deadline."""
    async with asyncio.timeout(DEADLINE_S):
        await command


async def ends(stage: Stage, name: str, exit_: Exit = FINE) -> None:
    """Let a node exit when it is asked to."""
    await stage.called("stop", name, "MANUAL")
    stage.processes[name].end(exit_)


@contextmanager
def refused(code: str, words: str) -> Iterator[None]:
    """Expect a command to be refused."""
    with pytest.raises(ControlError, match=words) as caught:
        yield
    assert caught.value.code == code


def with_(flow: Dataflow, *nodes: NodeSpec) -> Dataflow:
    return replace(flow, nodes=(*flow.nodes, *nodes))


@pytest.mark.parametrize("command", ["restart", "stop", "remove"])
async def test_a_node_is_asked_to_end_only_once_the_next_daemon_would_know_why(
    command: str,
) -> None:
    flow = chain("a", "b")
    async with connected(Stage(flow), "a", "b") as stage:
        commands = stage.supervisor.commands
        waiting = stage.changes.waiting = list[Callable[[], None]]()
        after = (replace(flow, nodes=flow.nodes[1:]),) if command == "remove" else ()
        task = asyncio.create_task(getattr(commands, command)("a", *after))
        await until(lambda: waiting)
        assert ("stop", "a", "MANUAL") not in stage.broker.calls
        waiting.pop()()
        await ends(stage, "a")
        await within(task)
        stage.supervisor.kill("was killed")


# -- restart -----------------------------------------------------------------------------------


async def test_a_restart_stops_the_process_and_starts_the_next_regardless_of_the_policy() -> None:
    async with connected(Stage(chain("a", "b")), "a", "b") as stage:
        asked = asyncio.create_task(ends(stage, "a"))
        await within(stage.supervisor.commands.restart("a"))
        await asked
        assert [each[:2] for each in stage.started] == [("a", 0), ("b", 0), ("a", 1)]
        calls = stage.broker.calls
        assert ("node_restarted", "b", "a") in calls
        assert ("reopen", "a") in calls
        assert ("close_input", "b", "a") not in calls
        assert stage.supervisor.statuses()["a"].last_exit == "was restarted by a command"
        stage.supervisor.kill("was killed")


async def test_a_restart_follows_the_stop_ladder() -> None:
    async with connected(Stage(chain("a"), ignores=frozenset({signal.SIGTERM})), "a") as stage:
        first = stage.processes["a"]
        await within(stage.supervisor.commands.restart("a", grace=0.02))
        assert first.signals == [signal.SIGTERM, signal.SIGKILL]
        stage.supervisor.kill("was killed")


async def test_a_restart_does_not_count_against_the_limit() -> None:
    keys = restarted("on-failure", max_restarts=1)
    async with connected(Stage(dataflow(node("a", options=keys))), "a") as stage:
        for _ in range(3):
            await within(stage.supervisor.commands.restart("a", grace=0))
        stage.processes["a"].end(FAILED)
        await stage.until_started("a", 5)
        stage.supervisor.kill("was killed")


async def test_a_restart_ends_a_restart_delay() -> None:
    async with connected(Stage(dataflow(node("a", options=restarted(delay=60)))), "a") as stage:
        stage.processes["a"].end(FAILED)
        await until(lambda: stage.status("a") == "restarting")
        await within(stage.supervisor.commands.restart("a"))
        await stage.until_started("a", 2)
        stage.supervisor.kill("was killed")


async def test_a_drained_node_cannot_be_restarted_manually() -> None:
    async with connected(Stage(chain("a", "b")), "a", "b") as stage:
        stage.processes["a"].end(FINE)
        await stage.called("stop", "b", "ALL_INPUTS_CLOSED")
        with refused("refused", "node b is not restarted: all its inputs have closed"):
            await stage.supervisor.commands.restart("b")
        stage.processes["b"].end(FINE)


async def test_two_commands_on_one_node_do_not_mix() -> None:
    async with connected(Stage(chain("a")), "a") as stage:
        first = asyncio.create_task(stage.supervisor.commands.restart("a"))
        await stage.called("stop", "a", "MANUAL")
        with refused("busy", "node a is being restarted already"):
            await stage.supervisor.commands.stop("a")
        stage.processes["a"].end(FINE)
        await within(first)
        stage.supervisor.kill("was killed")


async def test_a_stop_of_the_dataflow_overtakes_a_restart() -> None:
    async with connected(Stage(chain("a")), "a") as stage:
        restart = asyncio.create_task(stage.supervisor.commands.restart("a"))
        await stage.called("stop", "a", "MANUAL")
        stage.supervisor.stop()
        stage.processes["a"].end(FINE)
        with refused("refused", "node a was not restarted: it exited with code 0"):
            await restart


async def test_an_impossible_command_is_refused_with_the_reason() -> None:
    stage = Stage(dataflow(node("a"), node("b"), node("d", dynamic=True)))
    async with running(stage):
        stage.connect("a", "b")
        with refused("not-found", "the dataflow has no node x"):
            await stage.supervisor.commands.restart("x")
        with refused("refused", "node d is dynamic"):
            await stage.supervisor.commands.restart("d")
        stage.processes["b"].end(FAILED)
        await stage.called("detach", "b")
        with refused("refused", "node b has ended already"):
            await stage.supervisor.commands.stop("b")
        stage.supervisor.stop()
        with refused("refused", "the dataflow is being stopped"):
            await stage.supervisor.commands.stop("a")
        stage.processes["a"].end(FINE)
    with refused("refused", "the dataflow does not run"):
        await stage.supervisor.commands.stop("a")


# -- stop and remove ---------------------------------------------------------------------------


async def test_a_stopped_node_is_not_restarted_and_its_consumers_are_notified() -> None:
    stage = Stage(dataflow(node("a", options=restarted()), node("b", "a")))
    async with running(stage) as task:
        stage.connect("a", "b")
        asked = asyncio.create_task(ends(stage, "a", TERMINATED))
        await within(stage.supervisor.commands.stop("a"))
        await asked
        assert stage.status("a") == "stopped"
        assert ("stop", "b", "ALL_INPUTS_CLOSED") in stage.broker.calls
        stage.processes["b"].end(FINE)
    assert all(result.ok for result in task.result())


async def test_a_node_that_waits_for_its_restart_is_stopped_at_once() -> None:
    stage = Stage(dataflow(node("a", options=restarted(delay=60))))
    async with running(stage) as task:
        stage.connect("a")
        stage.processes["a"].end(FAILED)
        await until(lambda: stage.status("a") == "restarting")
        await within(stage.supervisor.commands.stop("a"))
        assert stage.status("a") == "stopped"
    assert task.result()[0].ok


async def test_a_removed_node_no_longer_exists_and_its_consumers_are_notified() -> None:
    flow = dataflow(node("a"), node("b", "a", t="dora/timer/secs/1"))
    stage = Stage(flow)
    async with running(stage) as task:
        stage.connect("a", "b")
        after = dataflow(node("b", t="dora/timer/secs/1"))
        asked = asyncio.create_task(ends(stage, "a"))
        await within(stage.supervisor.commands.remove("a", after))
        await asked
        assert ("close_input", "b", "a") in stage.broker.calls
        assert ("remove_node", "a") in stage.broker.calls
        assert list(stage.supervisor.statuses()) == ["b"]
        assert stage.supervisor.dataflow == after
        stage.processes["b"].end(FINE)
    assert [result.node for result in task.result()] == ["b"]


async def test_a_dataflow_without_nodes_runs_until_it_is_stopped() -> None:
    stage = Stage(chain("a"))
    async with running(stage) as task:
        stage.connect("a")
        asked = asyncio.create_task(ends(stage, "a"))
        await within(stage.supervisor.commands.remove("a", dataflow()))
        await asked
        await asyncio.sleep(0.02)  # nothing may happen
        assert not task.done()
        stage.supervisor.stop()


# -- add ---------------------------------------------------------------------------------------


async def test_an_added_node_is_started_and_supervised_like_the_others() -> None:
    flow = chain("a", "b")
    stage = Stage(flow)
    async with running(stage) as task:
        stage.connect("a", "b")
        new = node("c", "a", options=restarted("on-failure"))
        await within(stage.supervisor.commands.add(new, with_(flow, new)))
        assert ("add_node", "c") in stage.broker.calls
        stage.connect("c")
        stage.processes["c"].end(FAILED)
        await stage.until_started("c", 2)
        stage.processes["a"].end(FINE)
        await stage.called("stop", "c", "ALL_INPUTS_CLOSED")
        stage.processes["b"].end(FINE)
        stage.processes["c"].end(FINE)
    assert [result.node for result in task.result()] == ["a", "b", "c"]


async def test_a_node_that_cannot_be_started_is_not_added() -> None:
    flow = chain("a")
    stage = Stage(flow, broken=frozenset({"c"}))
    async with running(stage) as task:
        stage.connect("a")
        new = node("c", "a")
        with refused("refused", r"node c could not be started: no such file: c\.py"):
            await stage.supervisor.commands.add(new, with_(flow, new))
        assert list(stage.supervisor.statuses()) == ["a"]
        assert stage.supervisor.dataflow == flow
        stage.processes["a"].end(FINE)
    assert [result.node for result in task.result()] == ["a"]


async def test_a_name_is_not_added_twice() -> None:
    flow = chain("a")
    async with connected(Stage(flow), "a") as stage:
        with refused("exists", "the dataflow has a node a already"):
            await stage.supervisor.commands.add(node("a"), flow)
        stage.processes["a"].end(FINE)


async def test_an_added_node_whose_sources_have_ended_is_notified() -> None:
    flow = dataflow(node("a"), node("b"))
    async with connected(Stage(flow), "a", "b") as stage:
        stage.processes["a"].end(FINE)
        await stage.called("detach", "a")
        new = node("c", "a")
        await within(stage.supervisor.commands.add(new, with_(flow, new)))
        assert stage.broker.calls[-2:] == [
            ("close_input", "c", "a"),
            ("stop", "c", "ALL_INPUTS_CLOSED"),
        ]
        stage.processes["c"].end(FINE)
        stage.processes["b"].end(FINE)


# -- replace -----------------------------------------------------------------------------------


async def replaced(stage: Stage, new: NodeSpec) -> asyncio.Task[None]:
    """Begin to replace a node, and wait until its successor has been started."""
    flow = stage.dataflow
    nodes = tuple(new if each.id == new.id else each for each in flow.nodes)
    command = stage.supervisor.commands.replace(new.id, replace(flow, nodes=nodes))
    task = asyncio.create_task(command)
    await stage.until_started(new.id, 2)
    return task


async def test_a_replacement_is_started_first_and_takes_over_when_the_old_one_has_ended() -> None:
    async with connected(Stage(chain("a", "b")), "a", "b") as stage:
        old = stage.processes["a"]
        task = await replaced(stage, node("a"))
        assert ("stop", "a", "MANUAL") not in stage.broker.calls
        stage.supervisor.on_waiting("a", 2)
        await stage.called("stop", "a", "MANUAL")
        stage.connect("a")
        old.end(FINE)
        await within(task)
        assert stage.broker.calls[-2:] == [("end_handover", "a"), ("update",)]
        view = stage.supervisor.statuses()["a"]
        assert (view.pid, view.last_exit) == (stage.processes["a"].pid, "was replaced by a command")
        assert stage.status("a") == "running"
        stage.supervisor.kill("was killed")
    assert stage.processes["a"].signals == [signal.SIGKILL]


async def test_a_node_is_not_replaced_while_the_handover_of_an_earlier_daemon_continues(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with connected(Stage(chain("a")), "a") as stage:

        def taken(node_id: str, replacement: NodeSpec, dataflow: Dataflow) -> None:
            raise ValueError(f"node {node_id!r} is being replaced already")

        monkeypatch.setattr(stage.broker, "begin", taken)
        with refused("busy", "node 'a' is being replaced already"):
            await stage.supervisor.commands.replace("a", stage.dataflow)
        assert stage.status("a") == "running"
        stage.supervisor.kill("was killed")


async def test_a_replacement_that_ends_early_leaves_the_old_process_running() -> None:
    async with connected(Stage(chain("a")), "a") as stage:
        old = stage.processes["a"]
        task = await replaced(stage, node("a"))
        stage.processes["a"].end(FAILED)
        with refused(
            "refused", r"exited with code 1 before it called Node\(\); node a keeps its old process"
        ):
            await within(task)
        assert stage.broker.calls[-1] == ("end_handover", "a")
        assert (stage.status("a"), old.signals) == ("running", [])
        old.end(FINE)


async def test_a_replacement_that_takes_too_long_is_killed() -> None:
    async with connected(Stage(chain("a")), "a") as stage:
        old = stage.processes["a"]
        task = await replaced(stage, node("a", options={"startup_timeout": 0.05}))
        with refused("refused", r"the new a did not call Node\(\) within 0.05 s"):
            await within(task)
        assert stage.processes["a"].signals == [signal.SIGKILL]
        assert stage.status("a") == "running"
        old.end(FINE)


async def test_a_replacement_takes_over_if_the_old_process_exits_meanwhile() -> None:
    async with connected(Stage(chain("a")), "a") as stage:
        old = stage.processes["a"]
        task = await replaced(stage, node("a"))
        old.end(FAILED)
        await stage.called("end_handover", "a")
        stage.connect("a")
        await within(task)
        assert stage.status("a") == "running"
        stage.processes["a"].end(FINE)


async def test_the_hello_of_a_replacement_may_come_before_its_start_is_known() -> None:
    async with connected(Stage(chain("a")), "a") as stage:
        old = stage.processes["a"]
        stage.gate = asyncio.Event()
        task = asyncio.create_task(stage.supervisor.commands.replace("a", stage.dataflow))
        await until(lambda: stage.waiting == ["a"])
        stage.supervisor.on_waiting("a", 2)
        stage.gate.set()
        await stage.called("stop", "a", "MANUAL")
        stage.connect("a")
        old.end(FINE)
        await within(task)
        stage.processes["a"].end(FINE)


async def test_a_node_that_exits_before_its_replacement_is_started_is_not_replaced() -> None:
    flow = dataflow(node("a", options=restarted(delay=0.01)))
    async with connected(Stage(flow), "a") as stage:
        stage.gate = asyncio.Event()
        old = stage.processes["a"]
        task = asyncio.create_task(stage.supervisor.commands.replace("a", flow))
        await until(lambda: stage.waiting == ["a"])
        old.end(FAILED)
        await until(lambda: stage.waiting == ["a", "a"])
        stage.gate.set()
        with refused("refused", "node a has exited meanwhile"):
            await within(task)
        assert stage.broker.calls[-1] == ("end_handover", "a")
        stage.supervisor.kill("was killed")


async def test_a_process_of_the_former_node_that_is_being_started_is_ended() -> None:
    flow = dataflow(node("a", options=restarted(delay=0.01)))
    async with connected(Stage(flow), "a") as stage:
        stage.gate = asyncio.Event()
        stage.processes["a"].end(FAILED)
        await until(lambda: stage.waiting == ["a"])
        after = dataflow(node("a"))
        task = asyncio.create_task(stage.supervisor.commands.restart_as("a", after))
        stage.gate.set()
        former = await stage.until_started("a", 2)
        await within(task)
        assert former.signals, "it runs on as the new node"
        assert stage.processes["a"] is not former
        stage.processes["a"].end(FINE)


async def test_nothing_is_replaced_before_the_dataflow_has_started() -> None:
    flow = chain("a", "b")
    async with connected(Stage(flow), "a") as stage:
        with refused("busy", "the dataflow is still starting"):
            await stage.supervisor.commands.replace("a", flow)
        stage.supervisor.kill("was killed")


# -- edges -------------------------------------------------------------------------------------


async def test_an_edge_that_is_added_closes_with_its_source() -> None:
    stage = Stage(dataflow(node("a"), node("b", t="dora/timer/secs/1")))
    async with running(stage):
        stage.connect("a", "b")
        after = node("b", "a", t="dora/timer/secs/1")
        stage.supervisor.commands.connect("b", after.inputs[0], dataflow(node("a"), after))
        assert ("add_edge", "b", "a") in stage.broker.calls
        stage.processes["a"].end(FINE)
        await stage.called("close_input", "b", "a")
        stage.processes["b"].end(FINE)


async def test_removing_an_edge_closes_no_input_and_drains_no_node() -> None:
    async with connected(Stage(chain("a", "b")), "a", "b") as stage:
        stage.supervisor.commands.disconnect("b", "a", dataflow(node("a"), node("b")))
        stage.processes["a"].end(FINE)
        await stage.called("detach", "a")
        assert not any(call[:2] == ("stop", "b") for call in stage.broker.calls)
        assert ("close_input", "b", "a") not in stage.broker.calls
        stage.processes["b"].end(FINE)


async def test_a_command_is_carried_out_even_if_its_caller_disconnects() -> None:
    stage = Stage(chain("a", "b"), ignores=frozenset({signal.SIGTERM}))
    async with running(stage):
        stage.connect("a", "b")
        asker = asyncio.create_task(stage.supervisor.commands.stop("a", grace=0.1))
        await stage.called("stop", "a", "MANUAL")
        asker.cancel()
        await stage.called("detach", "a")
        assert stage.processes["a"].signals == [signal.SIGTERM, signal.SIGKILL]
        stage.processes["b"].end(FINE)

"""`dora stop` and `dora restart`: the selected dataflow, the grace, and the report of its end."""

import asyncio
import os
import pty
import signal
import subprocess
import threading

import pytest

from dorad.control import messages as m
from dorad.control.errors import ControlError
from dorad.control.limits import Limits
from tests.cli.dora import DORA
from tests.cli.fakedaemon import OTHER, UUID, dataflow


def ended(uuid=UUID, status="finished", **values):
    return m.DataflowState(uuid=uuid, name="demo", status=status, **values)


FAILED = ended(
    status="failed", failures=[m.Failure(headline="node arm exited with code 3", lines=["boom"])]
)


@pytest.fixture
def stopping(daemon):
    daemon.answers["dataflow.stop"] = lambda params: ended(params.dataflow)
    return daemon


def test_the_only_dataflow_is_stopped_silently(stopping):
    result = stopping.dora("stop")
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")
    assert stopping.asked("dataflow.stop") == [m.Stop(dataflow=UUID)]


@pytest.mark.parametrize("words", [["demo"], ["-n", "demo"], ["demo", "--name", "demo"]])
def test_a_name_is_resolved_by_the_daemon(stopping, words):
    assert stopping.dora("stop", *words).returncode == 0
    assert stopping.asked("dataflow.stop") == [m.Stop(dataflow="demo")]
    assert stopping.asked("dataflow.list") == []


def test_grace_and_force_are_passed_on(stopping):
    assert stopping.dora("stop", "demo", "--grace-duration", "500ms", "-f").returncode == 0
    assert stopping.asked("dataflow.stop") == [m.Stop(dataflow="demo", grace=0.5, force=True)]


def test_a_node_that_failed_is_reported_and_makes_it_exit_with_1(stopping):
    stopping.answers["dataflow.stop"] = FAILED
    result = stopping.dora("stop", "demo")
    assert result.returncode == 1
    assert result.stderr == "error: node arm exited with code 3\n    boom\n"


def test_with_nothing_to_stop_it_prints_a_note_and_exits_with_0(stopping):
    stopping.answers["dataflow.list"] = m.DataflowList(dataflows=[dataflow(status="finished")])
    for words in (["stop"], ["stop", "--all"]):
        result = stopping.dora(*words)
        assert (result.returncode, result.stdout) == (0, "no dataflow is running\n")


def test_all_stops_every_dataflow_that_runs(stopping):
    flows = [dataflow(), dataflow("arm", "starting", uuid=OTHER), dataflow("x", "failed", uuid="3")]
    stopping.answers["dataflow.list"] = m.DataflowList(dataflows=flows)
    assert stopping.dora("stop", "--all").stdout == "stopped 2 dataflows\n"
    assert {params.dataflow for params in stopping.asked("dataflow.stop")} == {UUID, OTHER}


def many(count):
    return [dataflow(f"flow-{n}", uuid=f"{n:08}{UUID[8:]}") for n in range(count)]


def test_all_stops_more_dataflows_at_once_than_a_daemon_lets_one_client_call(stopping):
    """The first one ends only after the request for the last, so all graces run at once."""
    count = 2 * Limits().calls + 3
    stopping.answers["dataflow.list"] = m.DataflowList(dataflows=many(count))
    asked, all_asked = set(), asyncio.Event()

    async def stop(params):
        asked.add(params.dataflow)
        if len(asked) == count:
            all_asked.set()
        await all_asked.wait()
        return ended(params.dataflow)

    stopping.answers["dataflow.stop"] = stop
    result = stopping.dora("stop", "--all")
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout == f"stopped {count} dataflows\n"


def test_all_names_those_that_stopped_and_those_that_did_not(stopping):
    first, second, third = many(3)
    stopping.answers["dataflow.list"] = m.DataflowList(dataflows=[first, second, third])

    def stop(params):
        if params.dataflow == second.uuid:
            return ControlError("deadline", "dataflow flow-1 does not end", "use --force")
        return FAILED if params.dataflow == third.uuid else ended(params.dataflow)

    stopping.answers["dataflow.stop"] = stop
    result = stopping.dora("stop", "--all")
    assert result.returncode == 1
    assert result.stdout == "stopped 2 of 3 dataflows: flow-0, flow-2\n"
    assert result.stderr.splitlines() == [
        "error: dataflow flow-1 was not stopped: dataflow flow-1 does not end (use --force)",
        "error: node arm exited with code 3",
        "    boom",
    ]


def test_all_and_a_name_contradict_each_other(stopping):
    assert stopping.dora("stop", "demo", "--all").returncode == 2


def test_of_several_dataflows_one_has_to_be_named(stopping):
    flows = [dataflow(), dataflow(None, uuid=OTHER)]
    stopping.answers["dataflow.list"] = m.DataflowList(dataflows=flows)
    result = stopping.dora("stop")
    assert result.returncode == 1
    assert result.stderr == f"error: 2 dataflows are running; name one: demo, {OTHER}\n"
    assert stopping.asked("dataflow.stop") == []


def test_of_several_dataflows_a_user_at_a_terminal_chooses(stopping):
    flows = [dataflow(), dataflow("arm", uuid=OTHER)]
    stopping.answers["dataflow.list"] = m.DataflowList(dataflows=flows)
    ours, theirs = pty.openpty()
    env = {**os.environ, "DORA_SOCKET": str(stopping.socket)}
    with subprocess.Popen(
        [*DORA, "stop"], stdin=theirs, stderr=theirs, stdout=theirs, env=env
    ) as process:
        os.close(theirs)
        shown = b""
        while b"which dataflow" not in shown:
            shown += os.read(ours, 4096)
        os.write(ours, b"2\n")
        assert process.wait(30) == 0
    os.close(ours)
    assert b"arm" in shown
    assert stopping.asked("dataflow.stop") == [m.Stop(dataflow=OTHER)]


@pytest.mark.parametrize("words", [["stop", "demo"], ["stop", "--all"]])
def test_control_c_does_not_wait_for_the_end(daemon, words):
    asked = threading.Event()

    async def never(_):
        asked.set()
        await asyncio.Event().wait()

    daemon.answers["dataflow.stop"] = never
    env = {**os.environ, "DORA_SOCKET": str(daemon.socket)}
    with subprocess.Popen([*DORA, *words], env=env, stderr=subprocess.PIPE) as process:
        assert asked.wait(30)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=30)
    assert (process.returncode, errors.strip()) == (130, b"")


def test_restart_shows_both_uuids_and_the_difference_to_the_file(daemon):
    daemon.answers["dataflow.restart"] = m.Restarted(old=UUID, new=OTHER, changes=["added node x"])
    daemon.answers["dataflow.wait"] = m.DataflowState(uuid=OTHER, name=None, status="running")
    result = daemon.dora("restart", "demo", "--grace-duration", "2s")
    assert result.stdout == f"dataflow restarted: {UUID} -> {OTHER}\n"
    assert result.stderr == "note: differs from its file: added node x\n"
    assert daemon.asked("dataflow.restart") == [m.Stop(dataflow="demo", grace=2.0)]


def test_restart_shows_what_it_waits_for_and_fails_with_the_new_start(daemon):
    why = "`arm1`: without a link to `arm2`"
    failed = m.DataflowState(
        uuid=OTHER,
        name=None,
        status="failed",
        failures=[m.Failure(headline="arm1 is not ready after 120 s")],
    )
    states = iter([ControlError("deadline", "it is starting", problems=[why]), failed])
    daemon.answers["dataflow.restart"] = m.Restarted(old=UUID, new=OTHER)
    daemon.answers["dataflow.wait"] = lambda _: next(states)
    result = daemon.dora("restart", "demo")
    assert (result.returncode, result.stdout) == (1, "")
    assert f"note: the start waits for {why}\n" in result.stderr
    assert "arm1 is not ready after 120 s" in result.stderr

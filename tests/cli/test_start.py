"""`dora start`: its requests to the daemon, and its output, attached or not."""

import asyncio
import contextlib
import os
import pty
import signal
import subprocess

import pytest

from dorad.commandline.startprogress import LOOK_S
from dorad.control import messages as m
from dorad.control.errors import ControlError
from tests.cli.dora import DORA, dora
from tests.cli.fakedaemon import UUID, no_daemon
from tests.harness.commands import fails

FLOW = """\
env:
  SPEED: ${SPEED:-3}
nodes:
  - id: camera
    path: dynamic
    outputs: [image]
"""


def state(status="running", **values):
    return m.DataflowState(uuid=UUID, name=None, status=status, **values)


def lines(*texts):
    made = [
        m.LogRecord(timestamp=1.0, level="stdout", node="camera", message=text) for text in texts
    ]
    return m.LogLines(dataflow=UUID, lines=made)


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "flow.yml").write_text(FLOW)
    return tmp_path


@pytest.fixture
def starting(daemon):
    daemon.answers["dataflow.start"] = m.Started(uuid=UUID)
    daemon.answers["dataflow.wait"] = state()
    return daemon


def test_without_a_terminal_it_waits_until_the_nodes_are_spawned(starting, folder):
    result = starting.dora("start", "flow.yml", cwd=folder)
    assert result.stdout.splitlines() == [
        f"dataflow start triggered: {UUID}",
        f"dataflow started: {UUID}",
    ]
    assert result.returncode == 0
    assert starting.asked("dataflow.wait") == [
        m.Wait(dataflow=UUID, until="spawned", timeout=LOOK_S)
    ]


def test_the_daemon_gets_the_expanded_file_its_path_and_the_options(starting, folder):
    result = starting.dora(
        *("start", "flow.yml", "-n", "demo", "--env", "A=1", "--uv", "--debug"),
        *("--allow-shell-nodes", "--exit-when-nodes-finish=false"),
        cwd=folder,
        env={"SPEED": "9"},
    )
    assert result.returncode == 0, result.stderr
    (asked,) = starting.asked("dataflow.start")
    assert asked.descriptor["env"] == {"SPEED": "9"}
    assert asked.path == str(folder / "flow.yml")
    assert (asked.name, asked.env) == ("demo", {"A": "1"})
    assert (asked.uv, asked.allow_shell, asked.exit_when_nodes_finish) == (True, True, False)


def test_a_node_that_cannot_be_spawned_is_reported(starting, folder):
    failure = m.Failure(headline="node camera cannot be started: no such file")
    starting.answers["dataflow.wait"] = state("failed", failures=[failure])
    result = starting.dora("start", "flow.yml", "--detach", cwd=folder)
    assert result.returncode == 1
    assert result.stderr == "error: node camera cannot be started: no such file\n"
    assert "dataflow started" not in result.stdout


def test_the_daemons_problems_are_one_line_each(starting, folder):
    problems = ["flow.yml:4:5: nodes[0]: a", "flow.yml:5:5: nodes[0].path: b"]
    starting.answers["dataflow.start"] = ControlError("refused", "not in order", None, problems)
    result = starting.dora("start", "flow.yml", cwd=folder)
    assert result.returncode == 1
    assert result.stderr.splitlines() == [f"error: {problem}" for problem in problems]


def test_mistakes_in_the_file_are_found_without_a_daemon(tmp_path):
    (tmp_path / "bad.yml").write_text("nodes:\n  - id: a\n    inptus: {}\n")
    fails(dora("start", "bad.yml", cwd=tmp_path, env=no_daemon(tmp_path)), 1, "error: bad.yml:3:")


def test_unsupported_keys_are_refused(starting, tmp_path):
    (tmp_path / "flow.yml").write_text("nodes:\n  - id: a\n    hub: x@1\n")
    fails(starting.dora("start", "flow.yml", cwd=tmp_path), 1, "`hub` is not supported yet")
    assert starting.asked("dataflow.start") == []


def test_build_commands_run_here_before_the_start(starting, tmp_path):
    (tmp_path / "flow.yml").write_text(
        "nodes:\n  - id: a\n    path: dynamic\n    build: touch built\n"
    )
    assert starting.dora("start", "flow.yml", cwd=tmp_path).returncode == 0
    assert (tmp_path / "built").exists()


def test_without_a_daemon_nothing_is_built(tmp_path):
    (tmp_path / "flow.yml").write_text(
        "nodes:\n  - id: a\n    path: dynamic\n    build: touch built\n"
    )
    fails(dora("start", "flow.yml", cwd=tmp_path, env=no_daemon(tmp_path)), 1, "`dora up`")
    assert not (tmp_path / "built").exists()


def test_attached_it_shows_the_log_and_exits_as_the_dataflow_does(starting, folder):
    failure = m.Failure(headline="node camera exited with code 3", lines=["boom"])
    starting.answers["dataflow.wait"] = state("failed", failures=[failure])
    starting.answers["logs.read"] = [lines("one", "two"), lines("three")]
    result = starting.dora("start", "flow.yml", "--attach", cwd=folder)
    assert result.returncode == 1
    first, *shown = result.stdout.splitlines()
    assert first == f"dataflow start triggered: {UUID}"
    assert [line.rpartition(" ")[2] for line in shown] == ["one", "two", "three"]
    assert result.stderr == "error: node camera exited with code 3\n    boom\n"
    (asked,) = starting.asked("logs.read")
    assert (asked.dataflow, asked.follow) == (UUID, True)


def test_on_a_terminal_it_attaches(starting, folder):
    starting.answers["logs.read"] = [lines("one")]
    ours, theirs = pty.openpty()
    env = {**os.environ, "DORA_SOCKET": str(starting.socket)}
    with subprocess.Popen(
        [*DORA, "start", "flow.yml"], cwd=folder, env=env, stdout=theirs
    ) as process:
        os.close(theirs)
        shown = b""
        with contextlib.suppress(OSError):  # the end of a terminal is an error
            while more := os.read(ours, 4096):
                shown += more
    os.close(ours)
    assert process.returncode == 0
    assert b"one" in shown
    assert m.Wait(dataflow=UUID, until="ended") in starting.asked("dataflow.wait")


class Stoppable:
    """A dataflow that ends when it is stopped; with `stubborn` only by force."""

    def __init__(self, daemon, stubborn):
        self.stops = []
        self.stubborn = stubborn
        self.over = asyncio.Event()
        daemon.answers["dataflow.wait"] = self.wait
        daemon.answers["dataflow.stop"] = self.stop
        daemon.answers["logs.read"] = [lines("ready"), self.over]

    async def wait(self, params):
        del params
        await self.over.wait()
        return state("finished")

    async def stop(self, params):
        self.stops.append(params)
        if params.force or not self.stubborn:
            self.over.set()
        return await self.wait(params)


@pytest.mark.parametrize(("interrupts", "code"), [(1, 0), (2, 1)])
def test_control_c_stops_it_and_a_second_one_kills_it(starting, folder, interrupts, code):
    flow = Stoppable(starting, stubborn=interrupts == 2)
    env = {**os.environ, "DORA_SOCKET": str(starting.socket), "NO_COLOR": "1"}
    with subprocess.Popen(
        [*DORA, "start", "flow.yml", "--attach"],
        cwd=folder,
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        while "ready" not in process.stdout.readline():
            pass
        for _ in range(interrupts):
            process.send_signal(signal.SIGINT)
            assert process.stderr.readline().startswith("dora: ")
        assert process.wait(30) == code
    assert [stop.force for stop in flow.stops] == [False, True][:interrupts]

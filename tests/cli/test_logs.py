"""`dora logs`, from the daemon and from files."""

import json
import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from dorad.control import messages as m
from dorad.control.errors import ControlError
from dorad.logs import about
from tests.cli.dora import DORA, dora
from tests.cli.fakedaemon import UUID, FakeDaemon, fake_daemon, no_daemon
from tests.harness.commands import fails
from tests.harness.waiting import DEADLINE_S
from tests.logs.written import WHEN, append, record

FIRST = "11111111-0000-4000-8000-000000000000"
SECOND = "22222222-0000-4000-8000-000000000000"


def finished(folder: Path, uuid: str, name: str | None, started: float, *texts: str) -> Path:
    made = folder / "out" / uuid
    known = about.About(
        uuid=uuid,
        name=name,
        path="/d.yml",
        nodes=("cam", "arm"),
        started_at=started,
        ended_at=started + 1,
        status="finished",
    )
    about.write(made, known)
    append(made / "log_cam.jsonl", *(record("cam", at, text) for at, text in enumerate(texts)))
    return made


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with two runs of the dataflow `robot`."""
    finished(tmp_path, FIRST, "robot", 1000.0, "old")
    second = finished(tmp_path, SECOND, "robot", 2000.0, "one", "two", "three")
    append(second / "log_arm.jsonl", record("arm", 0.5, "stuck", "warn"))
    append(second / "log_dora.jsonl", record(None, 9, "the end", "info"))
    return tmp_path


def local(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return dora("logs", *arguments, cwd=folder, env={**no_daemon(folder), "TZ": "UTC"})


def messages(text: str) -> list[str]:
    return [line.partition(": ")[2] for line in text.splitlines()]


def test_machines_are_those_of_a_coordinator(folder: Path) -> None:
    for arguments in (["robot", "--machine", "arm1"], ["--machine", "arm1"]):
        result = local(folder, *arguments)
        assert (result.returncode, result.stdout) == (1, "")
        assert "no dorad is running" in result.stderr
    fails(local(folder, "--local", "--machine", "arm1"), 2, "--machine needs a coordinator")


@pytest.mark.parametrize(
    ("arguments", "found"),
    [
        (["robot"], ["one", "stuck", "two", "three", "the end"]),
        (["--local"], ["one", "stuck", "two", "three", "the end"]),
        ([FIRST], ["old"]),
        ([FIRST[:6]], ["old"]),
        (["robot", "-n", "arm"], ["stuck"]),
        (["robot", "-n", "arm", "-n", "cam"], ["one", "stuck", "two", "three"]),
        (["robot", "-n", "dora"], ["the end"]),
        (["robot", "--all-nodes", "--tail", "2"], ["three", "the end"]),
        (["robot", "--level", "warn"], ["stuck"]),
        (["robot", "--log-filter", "cam=warn"], ["stuck", "the end"]),
        (["robot", "--grep", "T"], ["stuck", "two", "three", "the end"]),
        (["robot", "--follow", "--tail", "1"], ["the end"]),
    ],
)
def test_files_are_read_where_no_daemon_runs(
    folder: Path, arguments: list[str], found: list[str]
) -> None:
    result = local(folder, *arguments)
    assert (result.returncode, messages(result.stdout)) == (0, found), result.stderr


def test_the_shown_run_is_named_unless_it_was_selected(folder: Path) -> None:
    output = local(folder, "robot").stderr
    assert output.startswith(f"logs of: robot ({SECOND}), ended 1970-01-01 00:33:21; 1 older")
    assert local(folder, SECOND).stderr == ""


def test_since_and_until_count_from_now(folder: Path) -> None:
    for minutes, text in ((30, "long ago"), (10, "before"), (0, "now")):
        at = time.time() - WHEN - 60 * minutes
        append(folder / "out" / SECOND / "log_cam.jsonl", record("cam", at, text))
    assert messages(local(folder, "robot", "--since", "15m").stdout) == ["before", "now"]
    window = local(folder, "robot", "--since", "40m", "--until", "5m").stdout
    assert messages(window) == ["long ago", "before"]


def test_json_lines_are_log_messages(folder: Path) -> None:
    (line,) = local(folder, "robot", "-n", "arm", "--log-format", "json").stdout.splitlines()
    found = json.loads(line)
    assert (found["dataflow_id"], found["node_id"], found["level"]) == (SECOND, "arm", "WARN")


def test_lines_look_like_those_of_dora_run(folder: Path) -> None:
    assert local(folder, "robot", "-n", "arm").stdout == "00:29:38 WARN   arm: stuck\n"
    compact = local(folder, "robot", "-n", "arm", "--log-format", "compact").stdout
    assert compact == "00:29:38 WARN arm: stuck\n"


@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [
        (["nosuch", "--local"], 1, "there are: robot"),
        (["nosuch"], 1, "no dorad is running"),
        (["robot", "-n", "nosuch"], 1, "its nodes: cam, arm"),
        (["robot", "--level", "loud"], 2, "log level"),
        (["robot", "--log-filter", "cam"], 2, "node=level"),
        (["robot", "-n", "cam", "--all-nodes"], 2, "--all-nodes"),
        (["robot", "-f", "--until", "1m"], 2, "--until"),
        (["robot", "cam"], 2, "nodes are given with -n: `dora logs robot -n cam`"),
        (["robot", "cam", "arm"], 2, "`dora logs robot -n cam -n arm`"),
        (["robot", "--since", "soon"], 2, "soon"),
    ],
)
def test_errors_list_the_available_runs_and_nodes(
    folder: Path, arguments: list[str], code: int, text: str
) -> None:
    result = local(folder, *arguments)
    assert result.returncode == code
    assert result.stdout == ""
    assert text in result.stderr
    assert "Traceback" not in result.stderr


def test_a_folder_without_logs_is_an_error(tmp_path: Path) -> None:
    fails(local(tmp_path), 1, "no dorad is running", "there are no logs in")


def completions(folder: Path, *words: str) -> set[str]:
    asked = {"_DORA_COMPLETE": "bash_complete", "_DORA_WORDS": "\n".join(words)}
    return set(dora(cwd=folder, env={**no_daemon(folder), **asked}).stdout.split())


def test_names_and_nodes_are_completed_from_files_too(folder: Path) -> None:
    finished(folder, "33333333-0000-4000-8000-000000000000", None, 500.0, "x")
    assert completions(folder, "logs", "ro") == {"robot"}
    assert completions(folder, "logs", "333") == {"33333333-0000-4000-8000-000000000000"}
    assert completions(folder, "logs", "robot", "-n", "") == {"cam", "arm"}


def lines(*texts: str, left_out: int = 0) -> m.LogLines:
    found = [
        m.LogRecord(timestamp=WHEN, level="stdout", node="cam", message=text, stream="stdout")
        for text in texts
    ]
    return m.LogLines(dataflow=UUID, lines=found, left_out=left_out)


def test_a_running_dataflow_is_queried_from_the_daemon(daemon: FakeDaemon) -> None:
    daemon.answers["logs.read"] = [lines("a", "b"), lines("c", left_out=3)]
    result = daemon.dora(
        "logs", "demo", "-n", "cam", "--tail", "5", "-f", "--level", "info", "--grep", "x"
    )
    assert (result.returncode, messages(result.stdout)) == (0, ["a", "b", "c"])
    assert "3 lines left out" in result.stderr
    (asked,) = daemon.asked("logs.read")
    assert (asked.dataflow, asked.nodes, asked.tail) == ("demo", ["cam"], 5)
    assert (asked.level, asked.grep, asked.follow) == ("info", "x", True)


def test_a_run_that_the_daemon_does_not_know_is_read_from_files(
    daemon: FakeDaemon, folder: Path
) -> None:
    daemon.answers["logs.read"] = ControlError("not-found", "there is no dataflow `robot`")
    assert messages(daemon.dora("logs", "robot", "--tail", "1", cwd=folder).stdout) == ["the end"]
    fails(daemon.dora("logs", "other", cwd=folder), 1, "there is no dataflow `robot`")


def test_other_errors_of_the_daemon_are_shown(daemon: FakeDaemon, folder: Path) -> None:
    daemon.answers["logs.read"] = ControlError("ambiguous", "several dataflows run: a, b")
    result = daemon.dora("logs", cwd=folder)
    assert (result.returncode, result.stdout) == (1, "")
    assert "several dataflows run" in result.stderr


def test_a_daemon_that_ends_while_it_is_followed_is_an_error_and_no_line_is_shown_again(
    folder: Path,
) -> None:
    with fake_daemon() as daemon:
        daemon.answers["logs.read"] = [lines("a"), ...]
        process = following(folder, str(daemon.socket), "robot")
        assert process.stdout
        first = process.stdout.readline()
    out, err = process.communicate(timeout=DEADLINE_S)
    assert first.endswith("cam: a\n")
    assert (process.returncode, out) == (1, "")
    assert err.startswith("error: ")


def test_local_does_not_ask_the_daemon(daemon: FakeDaemon, folder: Path) -> None:
    result = daemon.dora("logs", "--local", "--tail", "1", cwd=folder)
    assert messages(result.stdout) == ["the end"]
    assert daemon.asked("logs.read") == []


def following(folder: Path, socket: str, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [*DORA, "logs", "-f", *arguments],
        cwd=folder,
        env={**os.environ, "DORA_SOCKET": socket, "NO_COLOR": "1"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_ctrl_c_ends_following_silently(daemon: FakeDaemon, folder: Path) -> None:
    daemon.answers["logs.read"] = [lines("a"), ...]
    with following(folder, str(daemon.socket), "demo") as process:
        assert process.stdout
        assert process.stdout.readline().endswith("cam: a\n")
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=DEADLINE_S)
    assert (process.returncode, out, err) == (0, "", "")


def test_files_are_followed_until_the_dataflow_ends(tmp_path: Path) -> None:
    made = tmp_path / "out" / FIRST
    known = about.About(
        uuid=FIRST,
        name="live",
        path="/d.yml",
        nodes=("cam",),
        started_at=time.time(),
        pid=os.getpid(),
        pid_started=about.own_start(),
    )
    about.write(made, known)
    append(made / "log_cam.jsonl", record("cam", 1, "before"))
    with following(tmp_path, str(tmp_path / "none.sock"), "--local", "live") as process:
        assert process.stdout
        assert process.stdout.readline().endswith("cam: before\n")
        append(made / "log_cam.jsonl", record("cam", 2, "during"))
        append(made / "log_new.jsonl", record("new", 3, "of a node that came later"))
        assert process.stdout.readline().endswith("cam: during\n")
        assert process.stdout.readline().endswith("new: of a node that came later\n")
        append(made / "log_cam.jsonl", record("cam", 4, "last"))
        about.write(made, about.About(**{**_fields(known), "ended_at": time.time()}))
        out, err = process.communicate(timeout=DEADLINE_S)
    assert messages(out) == ["last"]
    assert process.returncode == 0
    assert err.startswith("logs of: live")


def _fields(known: about.About) -> dict[str, object]:
    return {name: getattr(known, name) for name in known.__struct_fields__}

"""`dora build` runs real commands: output, failures, and their end."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from tests.cli.dora import DORA, dora
from tests.harness.commands import fails, succeeds
from tests.harness.waiting import DEADLINE_S, wait_until


def write(folder: Path, *builds: str, extra: str = "") -> None:
    """Write flow.yml with one dynamic node `n0`, `n1`, … for each `build` text."""
    nodes = "".join(
        f"  - id: n{index}\n    path: dynamic\n    build: |\n"
        + "".join(f"      {line}\n" for line in text.splitlines())
        for index, text in enumerate(builds)
    )
    (folder / "flow.yml").write_text(f"{extra}nodes:\n{nodes}")


def build(folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    return dora("build", "flow.yml", *options, cwd=folder)


def test_a_dataflow_without_build_commands_is_reported(tmp_path):
    (tmp_path / "flow.yml").write_text("nodes:\n  - id: a\n    path: dynamic\n")
    assert build(tmp_path).stdout == "nothing to build\n"


def test_commands_and_their_output_begin_with_the_node(tmp_path):
    write(tmp_path, "echo one\necho 'two words'", "echo three")
    out = succeeds(build(tmp_path))
    assert out.splitlines() == [
        "n0: $ echo one",
        "n0: one",
        "n0: $ echo 'two words'",
        "n0: two words",
        "n1: $ echo three",
        "n1: three",
        "built 2 of 2 nodes",
    ]


def test_no_shell_interprets_a_command(tmp_path):
    write(tmp_path, "echo a$HOME *")
    assert "n0: a$HOME *" in build(tmp_path).stdout.splitlines()


@pytest.mark.parametrize("word", ["&&", "|", ";", ">"])
def test_a_line_for_a_shell_is_refused_before_any_of_it_runs(tmp_path, word):
    """Else its first program would get the rest as arguments, and might not mind."""
    write(tmp_path, f"touch made {word} touch later")
    fails(build(tmp_path), 1, f"no shell runs it, which `{word}` needs (write each command in")
    assert not (tmp_path / "made").exists()


@pytest.mark.parametrize(
    ("line", "hint"),
    [("cd part", "`make -C FOLDER`"), ("A=1 make", "set variables in the `env` of the node")],
)
def test_what_only_a_shell_can_do_is_answered_with_another_way(tmp_path, line, hint):
    write(tmp_path, line)
    assert hint in build(tmp_path).stderr


def test_standard_error_and_carriage_returns_are_lines_too(tmp_path):
    write(tmp_path, f"{sys.executable} -c \"import sys; sys.stderr.write('10%\\\\r20%\\\\nend')\"")
    assert [line for line in build(tmp_path).stdout.splitlines() if "$" not in line][:3] == [
        "n0: 10%",
        "n0: 20%",
        "n0: end",
    ]


def test_a_command_that_fails_ends_the_build_and_can_be_pasted(tmp_path):
    write(tmp_path, "sh -c 'exit 3'", "touch later", extra="env: {A: b c}\n")
    result = build(tmp_path)
    assert result.returncode == 1
    assert not (tmp_path / "later").exists()
    (line,) = result.stderr.splitlines()
    assert line.startswith("error: node 'n0': a build command exited with code 3; to repeat it: ")
    command = line.partition("to repeat it: ")[2]
    assert "A='b c'" in command
    assert subprocess.run(["bash", "-c", command], check=False).returncode == 3


def test_a_missing_program_is_one_line(tmp_path):
    write(tmp_path, "nosuchprogram x")
    result = build(tmp_path)
    assert result.returncode == 1
    (line,) = result.stderr.splitlines()
    assert "nosuchprogram" in line


@pytest.mark.long
def test_pip_installs_for_the_python_that_runs_the_nodes(tmp_path):
    write(tmp_path, "pip --version")
    output = build(tmp_path).stdout
    assert f"$ {Path(sys.executable).parent}/python -m pip --version" in output
    assert "n0: pip " in output


def test_parallel_builds_run_at_the_same_time(tmp_path):
    # Each waits for a file of the other.
    wait = "sh -c 'touch {0}; until [ -e {1} ]; do sleep 0.01; done'"
    write(tmp_path, wait.format("a", "b"), wait.format("b", "a"))
    assert build(tmp_path, "--parallel").returncode == 0


def test_a_failure_stops_parallel_builds(tmp_path):
    write(tmp_path, "sleep 60", "sh -c 'exit 4'")
    started = time.monotonic()
    result = build(tmp_path, "--parallel")
    assert time.monotonic() - started < DEADLINE_S
    assert result.returncode == 1
    assert "node 'n1'" in result.stderr


@pytest.mark.parametrize("sig", [signal.SIGTERM, signal.SIGKILL, signal.SIGINT])
def test_commands_end_with_the_build_however_it_ends(tmp_path, sig):
    write(tmp_path, "sh -c 'setsid sleep 600 & echo $! > pid; echo ready; wait'")
    process = subprocess.Popen(
        [*DORA, "build", "flow.yml"],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert process.stdout is not None
    while process.stdout.readline() != "n0: ready\n":
        assert process.poll() is None
    sleeper = int((tmp_path / "pid").read_text())
    assert psutil.pid_exists(sleeper)
    os.kill(process.pid, sig)
    process.wait(timeout=DEADLINE_S)
    process.stdout.close()
    wait_until(lambda: not psutil.pid_exists(sleeper), why="a build command outlived the build")


@pytest.mark.parametrize("options", [[], ["--parallel"]])
def test_a_closed_pipe_ends_the_build_quietly(tmp_path, options):
    write(tmp_path, "yes", "yes")
    process = subprocess.Popen(
        [*DORA, "build", "flow.yml", *options],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.readline()
    process.stdout.close()
    assert process.wait(timeout=DEADLINE_S) == 1
    assert process.stderr.read() == b""
    process.stderr.close()


def test_sources_that_cannot_be_fetched_yet_are_refused(tmp_path):
    (tmp_path / "flow.yml").write_text(
        "nodes:\n  - id: b\n    path: dynamic\n    build: touch built\n  - id: a\n    hub: x@1\n"
    )
    fails(build(tmp_path), 1, "nodes[1].hub")
    assert not (tmp_path / "built").exists()

"""Nodes never outlive the run, whichever process is killed."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.harness.waiting import wait_until

from .conftest import Family

RUN = Path(__file__).with_name("run_program.py")
ROLES = ["plain", "deaf", "stopped", "double_fork", "orphan", "deep", "forking", "breeding"]


class Run:
    """A running `run_program.py`."""

    def __init__(self, family: Family, roles: list[str], **options: Any) -> None:
        self.process = subprocess.Popen(
            [sys.executable, str(RUN)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            **options,
        )
        family.runs.append(self.process)
        assert self.process.stdin
        commands = [family.role(role) for role in roles]
        lines = [[c.argv, str(c.cwd), dict(c.env)] for c in commands]
        self.process.stdin.write(json.dumps(lines) + "\n")
        self.process.stdin.flush()
        first = self.read()
        self.holder = first["holder"]
        self.pids = first["pids"]
        wait_until(lambda: all(family.ready(role).exists() for role in roles))

    def read(self) -> dict[str, Any]:
        assert self.process.stdout
        line = self.process.stdout.readline()
        return json.loads(line) if line else {}


def kill_and_wait(pid: int, family: Family, *others: int) -> None:
    """SIGKILL a process and wait until all processes of the run have ended.

    A quiet machine needs a fraction of a second.
    """
    assert not family.has_ended()
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: family.has_ended() and not any(map(_running, others)))


def _running(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


@pytest.mark.parametrize("role", ROLES)
def test_killing_the_run_ends_every_process(family: Family, role: str) -> None:
    run = Run(family, [role])
    kill_and_wait(run.process.pid, family, run.holder)


@pytest.mark.parametrize("role", ROLES)
def test_killing_the_holder_ends_every_process(family: Family, role: str) -> None:
    run = Run(family, [role])
    kill_and_wait(run.holder, family)
    assert run.process.poll() is None


def test_killing_the_run_ends_all_kinds_of_processes_at_once(family: Family) -> None:
    run = Run(family, ROLES)
    kill_and_wait(run.process.pid, family, run.holder)


def test_killing_run_and_holder_at_once_ends_the_nodes(family: Family) -> None:
    run = Run(family, ["plain", "deaf", "stopped"])
    os.kill(run.holder, signal.SIGSTOP)
    run.process.kill()
    kill_and_wait(run.holder, family)


def test_a_killed_holder_is_reported_to_the_run_as_the_exit_of_every_process(
    family: Family,
) -> None:
    run = Run(family, ["plain", "stopped"])
    os.kill(run.holder, signal.SIGKILL)
    ended = {line["pid"]: line["exit"] for line in (run.read(), run.read())}
    # The kernel sends SIGHUP to a stopped process whose parent dies; it may be first.
    assert set(ended) == set(run.pids)
    assert set(ended.values()) <= {"killed by SIGKILL", "killed by SIGHUP"}
    assert run.read() == {"died": True}
    assert not psutil.Process(run.process.pid).children()


def test_killing_a_run_that_is_stopped_by_a_signal_ends_every_process(family: Family) -> None:
    run = Run(family, ["plain"])
    os.kill(run.process.pid, signal.SIGSTOP)
    kill_and_wait(run.process.pid, family, run.holder)


def test_ctrl_c_on_the_terminal_reaches_neither_holder_nor_nodes(family: Family) -> None:
    master, slave = os.openpty()
    code = "import signal, sys; signal.signal(2, signal.SIG_IGN); exec(open(sys.argv[1]).read())"
    run = subprocess.Popen(
        [sys.executable, "-c", code, str(RUN)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=slave,
        text=True,
        preexec_fn=lambda: _control_terminal(slave),
    )
    family.runs.append(run)
    assert run.stdin
    assert run.stdout
    command = family.role("plain")
    run.stdin.write(json.dumps([[command.argv, str(command.cwd), dict(command.env)]]) + "\n")
    run.stdin.flush()
    run.stdout.readline()
    wait_until(family.ready("plain").exists)
    os.write(master, b"\x03")
    wait_until(lambda: b"^C" in os.read(master, 100))
    assert len(family.alive()) == 1
    os.close(master)
    os.close(slave)


def _control_terminal(slave: int) -> None:
    """Make the terminal this process's own, as a shell's foreground job has it."""
    import fcntl
    import termios

    os.setsid()
    fcntl.ioctl(slave, termios.TIOCSCTTY, 0)

"""The program that sets the policy `deadline` before a command."""

import os
import subprocess
import sys
from collections.abc import Sequence

import pytest

from dorad.launch import enter
from dorad.launch.enter import wrap_command
from dorad.realtime.schedule import SCHED_DEADLINE, Schedule
from tests.harness.process import readable_by_others
from tests.realtime.test_processes import skip_unless_permitted

DEADLINE = Schedule(SCHED_DEADLINE, 0, 0, 1_000_000, 5_000_000, 10_000_000)
SAYS = (sys.executable, "-S", "-c", "import os; print(os.sched_getscheduler(0))")


def test_only_a_deadline_needs_the_program_before_the_command() -> None:
    assert wrap_command(Schedule(os.SCHED_FIFO, 30), SAYS) == list(SAYS)
    assert wrap_command(None, SAYS) == list(SAYS)


def test_a_command_runs_with_its_deadline() -> None:
    skip_unless_permitted(DEADLINE)
    argv = wrap_command(DEADLINE, SAYS)
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=True)
    assert int(done.stdout) == SCHED_DEADLINE | os.SCHED_RESET_ON_FORK
    assert done.stderr == ""


def test_a_command_finds_signals_and_variables_as_they_were() -> None:
    """A shell whose SIGPIPE is ignored does not end `yes | head`."""
    shows = ("/bin/sh", "-c", "grep SigIgn /proc/self/status; env; ulimit -f 1; yes | head -n 1")
    variables = {"PATH": os.defpath, "A": "1=2", "EMPTY": "", "ODD": "two\nlines \udce9"}

    def shown(argv: Sequence[str]) -> list[bytes]:
        argv = ["setpriv", "--no-new-privs", *argv]
        done = subprocess.run(
            argv, capture_output=True, env=variables, timeout=60, check=True, pass_fds=()
        )
        assert done.stderr == b""
        return sorted(done.stdout.splitlines())

    assert shown(wrap_command(None, shows, separate=True)) == shown(shows)


def test_a_refused_deadline_is_reported() -> None:
    impossible = Schedule(SCHED_DEADLINE, 0, 0, 5_000_000, 1_000_000, 1_000_000)
    argv = wrap_command(impossible, SAYS)
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=True)
    assert int(done.stdout) == os.SCHED_OTHER
    assert done.stderr.startswith("realtime: runs without `deadline (5 ms within 1 ms, every 1 ms)")


def test_the_command_does_not_keep_the_capability() -> None:
    skip_unless_permitted(DEADLINE)
    caps = ("--inh-caps=+sys_nice", "--ambient-caps=+sys_nice", "--bounding-set=-all,+sys_nice")
    user = ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", *caps)
    says = "import os; print(os.sched_getscheduler(0), open('/proc/self/status').read())"
    # The interpreter of these tests may be where another user cannot read.
    argv = [*user, *wrap_command(DEADLINE, ("/usr/bin/python3", "-S", "-c", says))]
    can = subprocess.run([*user, sys.executable, "-V"], check=False).returncode == 0
    if os.geteuid() != 0 or not can or not readable_by_others(enter.__file__):
        pytest.skip("needs root, and an interpreter and a tree that every user may read")
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=True).stdout
    assert done.split()[0] == str(SCHED_DEADLINE | os.SCHED_RESET_ON_FORK)
    assert "CapEff:\t0000000000000000" in done

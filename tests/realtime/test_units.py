"""Real time as properties of a systemd unit, and what comes before its command."""

from __future__ import annotations

import os
import subprocess
import sys

from dorad.realtime.schedule import SCHED_DEADLINE, Schedule
from dorad.realtime.units import prefix, properties
from tests.realtime.test_processes import may

DEADLINE = Schedule(SCHED_DEADLINE, 0, 0, 1_000_000, 5_000_000, 10_000_000)
SAYS = (sys.executable, "-S", "-c", "import os; print(os.sched_getscheduler(0))")


def test_a_queue_is_the_units() -> None:
    assert properties(Schedule(os.SCHED_FIFO, 30, 1), (0, 2, 9, 2)) == [
        ("CPUAffinity", "ay", b"\x05\x02"),
        ("LimitMEMLOCK", "t", 2**64 - 1),
        ("CPUSchedulingPolicy", "i", 1),
        ("CPUSchedulingPriority", "i", 30),
        ("CPUSchedulingResetOnFork", "b", True),
    ]
    assert prefix(Schedule(os.SCHED_FIFO, 30), "python3") == ()


def test_a_node_that_is_not_urgent_has_no_properties() -> None:
    assert properties(None) == []
    assert prefix(None, "python3") == ()


def test_a_deadline_needs_words_before_the_command() -> None:
    may(DEADLINE)
    assert properties(DEADLINE) == [("AmbientCapabilities", "t", 1 << 23)]
    argv = [*prefix(DEADLINE, sys.executable), *SAYS]
    said = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=True)
    assert int(said.stdout) == SCHED_DEADLINE | os.SCHED_RESET_ON_FORK
    assert said.stderr == ""


def test_a_deadline_that_is_refused_is_told() -> None:
    impossible = Schedule(SCHED_DEADLINE, 0, 0, 5_000_000, 1_000_000, 1_000_000)
    argv = [*prefix(impossible, sys.executable), *SAYS]
    said = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=True)
    assert int(said.stdout) == os.SCHED_OTHER
    assert said.stderr.startswith("realtime: runs without `deadline (5 ms within 1 ms, every 1 ms)")

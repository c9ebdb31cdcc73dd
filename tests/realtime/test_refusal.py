"""The line about a process that is refused real time."""

import errno
import os

import pytest

from dorad.dataflow.settings import Realtime, Scheduling
from dorad.realtime.refusal import policy_refused, rights
from dorad.realtime.schedule import SCHED_DEADLINE, Schedule, schedule_of

FIFO = Schedule(os.SCHED_FIFO, 50)
DEADLINE = Schedule(SCHED_DEADLINE, 0, 0, 1_000_000, 2_500_000, 5_000_000)


@pytest.mark.parametrize(
    ("wanted", "number", "nice", "expected"),
    [
        (FIFO, errno.EPERM, False, "`fifo 50`: its limit of real-time priority is 10 and CAP_SYS"),
        (FIFO, errno.EPERM, False, "LimitRTPRIO=99 in the unit, or `@realtime - rtprio 99`"),
        (FIFO, errno.EPERM, True, "no share of real time; give it some in cpu.rt_runtime_us"),
        (DEADLINE, errno.EPERM, False, "`deadline (1 ms within 2.5 ms, every 5 ms)`: CAP_SYS_NICE"),
        (DEADLINE, errno.EPERM, True, "may use every core"),
        (DEADLINE, errno.EBUSY, True, "reduce `runtime_ms`"),
        (FIFO, errno.EINVAL, True, "Invalid argument"),
    ],
)
def test_the_line_names_the_missing_right(
    wanted: Schedule, number: int, nice: bool, expected: str
) -> None:
    line = policy_refused(wanted, number, 10, nice=nice)
    assert line.startswith("realtime: runs without `")
    assert expected in line
    assert "\n" not in line


def test_the_rights_of_a_process_are_read() -> None:
    limit, nice = rights()
    assert limit >= 0
    assert nice in (True, False)
    assert rights(2**22 + 1) == (0, False)


@pytest.mark.parametrize(
    ("realtime", "wanted"),
    [
        (None, None),
        (Realtime(deadline_ns=5), None),
        (Realtime(lock_memory=True), Schedule(lock_memory=1)),
        (Realtime(Scheduling.RR, 3, deadline_ns=5), Schedule(os.SCHED_RR, 3)),
        (
            Realtime(Scheduling.DEADLINE, None, True, 2_500_000, 1_000_000, 5_000_000),
            Schedule(SCHED_DEADLINE, 0, 1, 1_000_000, 2_500_000, 5_000_000),
        ),
    ],
)
def test_the_schedule_follows_the_file(realtime: Realtime | None, wanted: Schedule | None) -> None:
    assert schedule_of(realtime) == wanted

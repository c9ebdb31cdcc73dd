"""The reason why the kernel refuses real time to a process, as one line with a hint."""

from __future__ import annotations

import errno
import os
from pathlib import Path

from dorad.realtime.memory import has_capability
from dorad.realtime.schedule import SCHED_DEADLINE, Schedule

CAP_SYS_NICE = 23
UNLIMITED = 1 << 63
_LIMIT = "Max realtime priority"


def rights(pid: int | str = "self") -> tuple[int, bool]:
    """Return a process's limit of real-time priority, and True if it has CAP_SYS_NICE.

    With CAP_SYS_NICE it may take any priority. For a process that has ended, return (0, False).
    """
    try:
        limits = Path(f"/proc/{pid}/limits").read_text(encoding="ascii")
        nice = has_capability(CAP_SYS_NICE, pid)
    except OSError:
        return 0, False
    for line in limits.splitlines():
        if line.startswith(_LIMIT):
            soft = line[len(_LIMIT) :].split()[0]
            return UNLIMITED if soft == "unlimited" else int(soft), nice
    return 0, nice


def policy_refused(wanted: Schedule, number: int, limit: int, *, nice: bool) -> str:
    """Return the line for errno `number`, for a process with these rights."""
    return f"realtime: runs without `{wanted}`: {_why(wanted, number, limit, nice=nice)}"


def _why(wanted: Schedule, number: int, limit: int, *, nice: bool) -> str:
    deadline = wanted.policy == SCHED_DEADLINE
    if number == errno.EBUSY:
        return (
            "the deadlines of all processes together need more time than the cores have; "
            "reduce `runtime_ms`"
        )
    if number == errno.EPERM and nice and deadline:
        return "the kernel requires that a `deadline` process may use every core of its cpuset"
    if number == errno.EPERM and nice:
        return (
            "its control group has no share of real time; "
            "give it some in cpu.rt_runtime_us, or move the process out of the group"
        )
    if number == errno.EPERM and deadline:
        return (
            "CAP_SYS_NICE is missing; give it with AmbientCapabilities=CAP_SYS_NICE in the unit, "
            "or use `fifo`"
        )
    if number == errno.EPERM:
        return (
            f"its limit of real-time priority is {limit} and CAP_SYS_NICE is missing; "
            "give it LimitRTPRIO=99 in the unit, or `@realtime - rtprio 99` in "
            "/etc/security/limits.d"
        )
    return os.strerror(number)

"""A process runs with real time from its first line, according to the kernel."""

from __future__ import annotations

import asyncio
import errno
import os
import resource
import sys
from pathlib import Path

import pytest

from dorad.launch.holder.client import HolderClient
from dorad.launch.model import Command
from dorad.realtime.memory import has_capability
from dorad.realtime.schedule import SCHED_DEADLINE, Schedule, set_policy

CAP_SYS_RESOURCE = 24
_RESET = os.SCHED_RESET_ON_FORK
_SAYS = """
import os, resource, threading
def say():
    print(os.sched_getscheduler(0), os.sched_getparam(0).sched_priority)
say()
thread = threading.Thread(target=say)
thread.start()
thread.join()
if os.fork() == 0:
    say()
    os._exit(0)
os.wait()
print(resource.getrlimit(resource.RLIMIT_MEMLOCK)[0])
"""


def refusal(wanted: Schedule) -> int:
    """Return why this machine does not permit real time to a child; empty if it does."""
    pid = os.fork()
    if pid == 0:
        try:
            set_policy(wanted)
        except OSError as error:
            os._exit(error.errno or 255)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def skip_unless_permitted(wanted: Schedule) -> None:
    code = refusal(wanted)
    if code:
        pytest.skip(f"this machine gives us no real time: {os.strerror(code)}")


async def output(wanted: Schedule | None, *, source: str = _SAYS) -> tuple[list[str], int]:
    """Return the scheduling that a process reports, and what it was refused."""
    read, write = os.pipe()
    env = {"PYTHONUNBUFFERED": "1", "OMP_NUM_THREADS": "1"}
    command = Command((sys.executable, "-S", "-c", source), Path("/"), env, schedule=wanted)
    async with HolderClient.start() as holder:
        with os.fdopen(read, "rb") as pipe:
            try:
                process = await holder.spawn(command, write, write)
            finally:
                os.close(write)
            await asyncio.wait_for(process.wait(), 30)
            return pipe.read().decode().splitlines(), process.refused


@pytest.mark.parametrize("policy", [os.SCHED_FIFO, os.SCHED_RR])
async def test_only_the_main_thread_has_real_time_priority(policy: int) -> None:
    wanted = Schedule(policy, 7)
    skip_unless_permitted(wanted)
    lines, refused = await output(wanted)
    assert refused == 0
    assert lines[:3] == [f"{policy | _RESET} 7", "0 0", "0 0"]


async def test_a_deadline() -> None:
    wanted = Schedule(SCHED_DEADLINE, 0, 0, 1_000_000, 5_000_000, 10_000_000)
    skip_unless_permitted(wanted)
    lines, refused = await output(wanted)
    assert refused == 0
    assert lines[:3] == [f"{SCHED_DEADLINE | _RESET} 0", "0 0", "0 0"]


async def test_without_the_key_no_thread_has_real_time_priority() -> None:
    lines, refused = await output(None)
    assert refused == 0
    assert lines[0] == "0 0"


async def test_a_process_that_is_refused_real_time_runs_without() -> None:
    lines, refused = await output(Schedule(os.SCHED_FIFO, 100))
    assert refused == errno.EINVAL
    assert lines[0] == "0 0"


async def test_the_limit_of_locked_memory_is_lifted_where_that_is_allowed() -> None:
    allowed = has_capability(CAP_SYS_RESOURCE)
    lines, _ = await output(Schedule(lock_memory=1))
    own, _ = resource.getrlimit(resource.RLIMIT_MEMLOCK)
    assert int(lines[-1]) == (resource.RLIM_INFINITY if allowed else own)

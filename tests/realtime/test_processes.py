"""A process runs in real time from its first line, as the kernel reports."""

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
    """The errno that the kernel returns to a child of ours, 0 if it allows the schedule."""
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
    """The lines that a process with this schedule prints, and the errno of a refusal."""
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
async def test_only_the_main_thread_of_the_process_runs_in_real_time(policy: int) -> None:
    wanted = Schedule(policy, 7)
    skip_unless_permitted(wanted)
    lines, refused = await output(wanted)
    assert refused == 0
    assert lines[:3] == [f"{policy | _RESET} 7", "0 0", "0 0"]


async def test_a_process_runs_with_its_deadline() -> None:
    wanted = Schedule(SCHED_DEADLINE, 0, 0, 1_000_000, 5_000_000, 10_000_000)
    skip_unless_permitted(wanted)
    lines, refused = await output(wanted)
    assert refused == 0
    assert lines[:3] == [f"{SCHED_DEADLINE | _RESET} 0", "0 0", "0 0"]


async def test_without_settings_no_process_runs_in_real_time() -> None:
    lines, refused = await output(None)
    assert refused == 0
    assert lines[0] == "0 0"


async def test_a_refused_process_runs_without_real_time() -> None:
    lines, refused = await output(Schedule(os.SCHED_FIFO, 100))
    assert refused == errno.EINVAL
    assert lines[0] == "0 0"


async def test_the_limit_of_locked_memory_is_raised_if_allowed() -> None:
    allowed = has_capability(CAP_SYS_RESOURCE)
    lines, _ = await output(Schedule(lock_memory=1))
    own, _ = resource.getrlimit(resource.RLIMIT_MEMLOCK)
    assert int(lines[-1]) == (resource.RLIM_INFINITY if allowed else own)

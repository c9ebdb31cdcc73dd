"""Finding and ending every descendant of this process, which has to be a subreaper.

A subreaper (see `prctl`) becomes the parent of every descendant whose own parent dies, however
often it forked and whatever session it made. So killing until no child is left leaves nothing
behind: what escapes one pass is a child in a later one.
"""

from __future__ import annotations

import os
import select
import signal
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Collection

_RECHECK_SECONDS = 0.02
_WATCHED = 64
"""Children waited for at a time, well below the limit of open files."""


def children(pid: int) -> list[int]:
    """The children of process `pid`, dead but unreaped ones too; none if there is no such one."""
    # Imported here: the guard needs it only at the end, and starts several milliseconds sooner.
    from pathlib import Path

    found: list[int] = []
    try:
        for thread in Path(f"/proc/{pid}/task").iterdir():
            found += map(int, (thread / "children").read_bytes().split())
    except (FileNotFoundError, ProcessLookupError):
        if not Path(f"/proc/self/task/{os.getpid()}/children").exists():
            return _children_by_psutil(pid)
    return found


def _children_by_psutil(pid: int) -> list[int]:
    """For kernels without CONFIG_PROC_CHILDREN; slower, it reads the state of every process."""
    import psutil

    try:
        return [child.pid for child in psutil.Process(pid).children()]
    except psutil.NoSuchProcess:
        return []


def descendants(spare: Collection[int] = ()) -> list[int]:
    """All descendants of this process, parents first, without those in `spare` and below them."""
    found: list[int] = []
    waiting = children(os.getpid())
    while waiting:
        pid = waiting.pop(0)
        if pid not in spare:
            found.append(pid)
            waiting += children(pid)
    return found


def end_descendants(
    reaped: Callable[[int, int], None],
    spare: Collection[int] = (),
    patience: float = float("inf"),
) -> list[int]:
    """SIGKILL and reap every descendant until none is left.

    Calls `reaped(pid, status)` for each that became a child of this process and ended. Gives up
    on processes that may not be signalled (they run as another user) and, after `patience`
    seconds, on the rest; returns the pids it gave up on.
    """
    give_up_at = time.monotonic() + patience
    while True:
        alive = descendants(spare)
        denied = _kill(alive, spare)
        direct = [pid for pid in alive if _is_running_child(pid, reaped)]
        if not direct:
            # A child that was reaped just now may have left orphans, which are children now.
            direct = [pid for pid in children(os.getpid()) if pid not in spare]
            if not direct:
                return []
            continue
        if denied.issuperset(alive) or time.monotonic() > give_up_at:
            return direct
        _wait_for_one(direct)


def _kill(pids: list[int], spare: Collection[int]) -> set[int]:
    """SIGKILL `pids` and their process groups; returns those that may not be signalled.

    A group is killed in one step, so one whose members keep forking cannot outrun it.
    """
    kept = {os.getpgrp(), *(group for pid in spare if (group := _group(pid)))}
    for group in {group for pid in pids if (group := _group(pid))} - kept:
        _send(os.killpg, group)
    return {pid for pid in pids if not _send(os.kill, pid)}


def _group(pid: int) -> int | None:
    try:
        return os.getpgid(pid)
    except ProcessLookupError:
        return None


def _send(kill: Callable[[int, int], None], pid: int) -> bool:
    """Whether nothing forbids it."""
    try:
        kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return True
    except PermissionError:
        return False
    return True


def _is_running_child(pid: int, reaped: Callable[[int, int], None]) -> bool:
    """Whether `pid` is a child of this process and runs; reaps it if it has ended."""
    try:
        done, status = os.waitpid(pid, os.WNOHANG)
    except ChildProcessError:
        return False
    if done:
        reaped(pid, status)
    return not done


def _wait_for_one(pids: list[int]) -> None:
    """Until one of these children has ended, or it is time for another look."""
    poll = select.poll()
    handles: list[int] = []
    try:
        for pid in pids[:_WATCHED]:
            handles.append(os.pidfd_open(pid))
            poll.register(handles[-1], select.POLLIN)
        poll.poll(_RECHECK_SECONDS * 1000)
    except ProcessLookupError:
        # Another thread has reaped it: one has ended, as was to be waited for.
        return
    finally:
        for handle in handles:
            os.close(handle)

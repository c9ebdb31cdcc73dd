"""Finding and ending every descendant of this process, which has to be a subreaper.

A subreaper (see `prctl`) becomes the parent of every descendant whose own parent dies, however
often it forked and whatever session it made. So killing until no child is left leaves nothing
behind: what escapes one pass is a child in a later one.
"""

from __future__ import annotations

import contextlib
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

    if not Path(f"/proc/self/task/{os.getpid()}/children").exists():
        return _children_by_psutil(pid)
    found: list[int] = []
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        for thread in Path(f"/proc/{pid}/task").iterdir():
            # A thread that has just ended has handed its children to another one.
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                found += map(int, (thread / "children").read_bytes().split())
    return found


def _children_by_psutil(pid: int) -> list[int]:
    """For kernels without CONFIG_PROC_CHILDREN; slower, it reads the state of every process."""
    import psutil

    try:
        return [child.pid for child in psutil.Process(pid).children()]
    except psutil.NoSuchProcess:
        return []


def end_descendants(
    reaped: Callable[[int, int], None],
    spare: Collection[int] = (),
    patience: float = float("inf"),
) -> list[int]:
    """SIGKILL and reap every descendant until none is left, but for the children in `spare`.

    Calls `reaped(pid, status)` for each that became a child of this process and ended. Gives up
    on processes that may not be signalled (they run as another user) and, after `patience`
    seconds, on the rest; returns the pids it gave up on.
    """
    give_up_at = time.monotonic() + patience
    kept_groups = {os.getpgrp(), *map(_group, spare)}
    while direct := [pid for pid in children(os.getpid()) if pid not in spare]:
        denied = {pid for pid in direct if not _kill(pid, kept_groups)}
        running = [pid for pid in direct if _is_running(pid, reaped)]
        if running and (denied.issuperset(running) or time.monotonic() > give_up_at):
            return running
        if running:
            _wait_for_one(running)
    return []


def _kill(pid: int, kept_groups: Collection[int | None]) -> bool:
    """SIGKILL a child and its process group, at once: it may be one that forks and exits.

    A group is killed in one step, so one whose members keep forking cannot outrun it. What is
    below the child becomes a child too when it dies, unless the child may not be signalled;
    then it is killed here. Returns whether the child may be signalled.
    """
    allowed = _send(os.kill, pid)
    group = _group(pid)
    if group is not None and group not in kept_groups:
        _send(os.killpg, group)
    if not allowed:
        for below in children(pid):
            _kill(below, kept_groups)
    return allowed


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


def _is_running(pid: int, reaped: Callable[[int, int], None]) -> bool:
    """Whether the child `pid` runs; reaps it if it has ended."""
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

"""Find and end every descendant of this process, which has to be a subreaper.

A subreaper (see `prctl`) becomes the parent of every descendant whose own parent dies, even if it
forked or created its own session. So it is enough to kill until no child is left: a process that
escapes one pass is a child in a later one.
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
"""Number of children waited for at a time; well below the limit of open files."""


def children(pid: int) -> list[int]:
    """Return the children of process `pid`, including zombies; none if it does not exist."""
    # `dora run` waits for the end of its process holder, which would have to import pathlib.
    if not os.path.exists(f"/proc/self/task/{os.getpid()}/children"):  # noqa: PTH110 - as above
        return _children_by_psutil(pid)
    pids: list[int] = []
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        for thread in os.listdir(f"/proc/{pid}/task"):  # noqa: PTH208 - as above
            # If a thread has just ended, another one has its children now.
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                with open(f"/proc/{pid}/task/{thread}/children", "rb") as file:  # noqa: PTH123
                    pids += map(int, file.read().split())
    return pids


def _children_by_psutil(pid: int) -> list[int]:
    """Return the children on a kernel without CONFIG_PROC_CHILDREN, by reading all processes."""
    import psutil

    try:
        return [child.pid for child in psutil.Process(pid).children()]
    except psutil.NoSuchProcess:
        return []


def end_descendants(
    reaped: Callable[[int, int], None],
    spare: Collection[int] = (),
    timeout: float = float("inf"),
) -> list[int]:
    """SIGKILL and reap every descendant until none is left, except the children in `spare`.

    Calls `reaped(pid, status)` for each that became a child of this process and ended. Gives up
    on processes that it may not signal (they run as another user) and, after `timeout` seconds, on
    all others; returns the pids it gave up on.
    """
    give_up_at = time.monotonic() + timeout
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
    """SIGKILL a child and its process group; return False if this process may not signal the child.

    The kernel kills a group in one step, so members that keep forking cannot outrun it.
    Descendants of the child become children when it dies. If it cannot be signalled, its
    descendants are killed here.
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
    """Send SIGKILL; return False if that is not permitted."""
    try:
        kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return True
    except PermissionError:
        return False
    return True


def _is_running(pid: int, reaped: Callable[[int, int], None]) -> bool:
    """Return True if the child `pid` runs; reap it if it has ended."""
    try:
        done, status = os.waitpid(pid, os.WNOHANG)
    except ChildProcessError:
        return False
    if done:
        reaped(pid, status)
    return not done


def _wait_for_one(pids: list[int]) -> None:
    """Wait until one of these children has ended, or for a moment."""
    poll = select.poll()
    handles: list[int] = []
    try:
        for pid in pids[:_WATCHED]:
            handles.append(os.pidfd_open(pid))
            poll.register(handles[-1], select.POLLIN)
        poll.poll(_RECHECK_SECONDS * 1000)
    except ProcessLookupError:
        # Another thread has reaped it, so one has ended.
        return
    finally:
        for handle in handles:
            os.close(handle)

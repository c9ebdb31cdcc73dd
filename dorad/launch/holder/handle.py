"""Handles of a holder's process: kill it, and wait until it and all its processes have ended."""

from __future__ import annotations

import contextlib
import os
import select
import signal
from typing import TYPE_CHECKING, ClassVar, TypeAlias

from dorad.launch.descendants import children, end_descendants
from dorad.launch.prctl import set_subreaper
from dorad.procinfo import start_time

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Iterable

_WAIT_SECONDS = 5.0


class OwnHolder:
    """A holder that is a child of this process, which adopts the orphans it leaves.

    That needs this process to be a subreaper.
    """

    _running: ClassVar[set[int]] = set()
    """Pids of all holders of this process, so that none is taken for an orphan of another."""

    def __init__(self, process: subprocess.Popen[bytes], not_ours: frozenset[int]) -> None:
        """Make the handle of a process; `not_ours` are the children from before its start."""
        self.pid = process.pid
        self._process = process
        self._not_ours = not_ours
        self._running.add(process.pid)

    def kill(self) -> None:
        """SIGKILL the holder; the kernel kills its processes with it."""
        self._process.kill()

    def wait(self, processes: Iterable[tuple[int, int]]) -> dict[int, int]:
        """Block until the holder and all its descendants have ended; kill those that have not.

        Returns the wait statuses of those that this process has reaped.
        """
        del processes
        if not self._ends():
            self._process.kill()
        self._process.wait()
        # Now its children are ours: the kernel reparents them before the holder can be reaped.
        self._running.discard(self.pid)
        statuses: dict[int, int] = {}
        end_descendants(statuses.__setitem__, self._spared(), _WAIT_SECONDS)
        if not self._running:
            set_subreaper(False)
        return statuses

    def close(self) -> None:
        """Do nothing: `wait` has reaped the process."""

    def _ends(self) -> bool:
        """Wait a few seconds for the end of the process; return False if it still runs."""
        try:
            pidfd = os.pidfd_open(self.pid)
        except ProcessLookupError:  # reaped already
            return True
        try:
            return _wait(pidfd)  # Popen.wait with a time limit would poll
        finally:
            os.close(pidfd)

    def _spared(self) -> set[int]:
        """Return children that have nothing to do with the holder.

        Its processes are never in our session: it left that before it started any.
        """
        session = os.getsid(0)
        spared = {*self._not_ours, *self._running}
        for pid in children(os.getpid()):
            with contextlib.suppress(ProcessLookupError):
                if os.getsid(pid) == session:
                    spared.add(pid)
        return spared


class SharedHolder:
    """A holder that is not a child of this process."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self._pidfd = -1
        with contextlib.suppress(ProcessLookupError):
            self._pidfd = os.pidfd_open(pid)

    def kill(self) -> None:
        """SIGKILL the holder; the kernel kills its processes with it."""
        if self._pidfd >= 0:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)

    def wait(self, processes: Iterable[tuple[int, int]]) -> dict[int, int]:
        """Block until the holder and its processes, by pid and start time, have ended.

        The kernel does not kill those that have executed a program with more rights than ours, so
        this kills them.
        """
        if self._pidfd >= 0:
            _wait(self._pidfd)
        for pid, started in processes:
            try:
                pidfd = os.pidfd_open(pid)
            except ProcessLookupError:
                continue
            try:
                # Checked after the pidfd was opened: it cannot be another process with that pid.
                if start_time(pid) != started:
                    continue
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    signal.pidfd_send_signal(pidfd, signal.SIGKILL)
                _wait(pidfd)
            finally:
                os.close(pidfd)
        return {}

    def close(self) -> None:
        """Close the descriptor of the process. Idempotent."""
        if self._pidfd >= 0:
            os.close(self._pidfd)
            self._pidfd = -1


HolderHandle: TypeAlias = OwnHolder | SharedHolder
"""The process of a holder."""


def _wait(pidfd: int) -> bool:
    """Wait a few seconds for the end of a process; return False if it still runs."""
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    return bool(poll.poll(_WAIT_SECONDS * 1000))

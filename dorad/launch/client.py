"""The guard as `dora run` sees it: start processes through it, signal them, learn how they end."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
import subprocess
from typing import TYPE_CHECKING, ClassVar, Self

from dorad.launch.bare import start_bare
from dorad.launch.descendants import children, end_descendants
from dorad.launch.link import Link
from dorad.launch.model import Command, Exit, LaunchError
from dorad.launch.prctl import set_subreaper
from dorad.launch.spawner import Process

if TYPE_CHECKING:
    from types import TracebackType

__all__ = ["Command", "Exit", "Guard", "LaunchError", "Process"]

_CLOSE_SECONDS = 10.0
_BURY_SECONDS = 5.0

_log = logging.getLogger(__name__)


class Guard:
    """Parent of all processes of a run, and their end.

    A separate small process. Whatever way this process or the guard dies, every process started
    through it is killed, with its descendants: the guard does it when its socket to this process
    ends; this process does it when the guard ends, and therefore becomes a subreaper, which
    adopts them. Use: `async with Guard.start() as guard`.
    """

    _alive: ClassVar[set[int]] = set()
    """Pids of all guards of this process, so that none takes another for a node's orphan."""

    def __init__(
        self, process: subprocess.Popen[bytes], sock: socket.socket, not_ours: frozenset[int]
    ) -> None:
        self.pid = process.pid
        self._guard = process
        self._sock = sock
        self._link = Link(sock, "guard", self._on_end)
        self._died = False
        self._burial: asyncio.Task[None] | None = None
        self._gone = asyncio.Event()
        self._not_ours = not_ours

    @classmethod
    def start(cls) -> Guard:
        """Start the guard process; does not wait for it (it starts up beside the caller).

        Needs no event loop yet.

        Raises:
            LaunchError: it cannot be started.
        """
        with contextlib.ExitStack() as on_error:
            try:
                ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
                on_error.enter_context(ours)
                with theirs:
                    set_subreaper(True)
                    not_ours = frozenset(children(os.getpid()))
                    fd = theirs.fileno()
                    process = start_bare(f"from dorad.launch.guard import main; main({fd})", fd)
            except OSError as error:
                raise LaunchError(f"cannot start the guard of the processes: {error}") from error
            on_error.pop_all()
        cls._alive.add(process.pid)
        return cls(process, ours, not_ours)

    @property
    def died(self) -> bool:
        """Whether the guard ended before it was closed; every process is then killed too."""
        return self._died

    async def spawn(
        self, command: Command, stdout_fd: int, stderr_fd: int, *, tag: str = ""
    ) -> Process:
        """Start `command`, as `Spawner.spawn`; nobody ever asks for the tag."""
        return await self._link.spawn(command, stdout_fd, stderr_fd, tag)

    async def close(self) -> None:
        """Kill everything that is left and wait until it is gone. Idempotent.

        When cancelled, it still does all of that first, the quick way.
        """
        if self._gone.is_set():
            return
        if not self._link.closing:
            self._link.closing = True
            self._link.listen()
            with contextlib.suppress(OSError):
                self._sock.shutdown(socket.SHUT_WR)
        try:
            await self._wait_until_gone()
        except asyncio.CancelledError:
            self._link.deafen()
            self._guard.kill()
            self._finish(self._end_everything())
            raise

    async def _wait_until_gone(self) -> None:
        try:
            async with asyncio.timeout(_CLOSE_SECONDS):
                await self._gone.wait()
        except TimeoutError:
            self._guard.kill()
            await self._gone.wait()

    async def __aenter__(self) -> Self:
        self._link.listen()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    def _on_end(self) -> None:
        self._died = not self._link.closing
        _log.debug("guard %d has ended, asked to: %s", self.pid, self._link.closing)
        self._burial = asyncio.get_running_loop().create_task(self._reap())

    async def _reap(self) -> None:
        """The guard's socket has ended: make sure that it and all its descendants have, too."""
        self._finish(await asyncio.to_thread(self._end_everything))

    def _finish(self, statuses: dict[int, int]) -> None:
        """Everything has ended; say so to all who wait."""
        self._link.finish(f"it ended ({self._guard.returncode})", statuses)
        self._gone.set()

    def _end_everything(self) -> dict[int, int]:
        """Blocks until all is gone; the wait status of each process that this one adopted."""
        try:
            self._guard.wait(_BURY_SECONDS)
        except subprocess.TimeoutExpired:
            self._guard.kill()
            self._guard.wait()
        # From here on its children are ours: the kernel hands them over before it can be reaped.
        self._alive.discard(self.pid)
        statuses: dict[int, int] = {}
        end_descendants(statuses.__setitem__, self._spared(), _BURY_SECONDS)
        if not self._alive:
            set_subreaper(False)
        return statuses

    def _spared(self) -> set[int]:
        """Children that have nothing to do with the guard.

        Its processes are never in our session: it left that before it started any.
        """
        session = os.getsid(0)
        spared = {*self._not_ours, *self._alive}
        for pid in children(os.getpid()):
            with contextlib.suppress(ProcessLookupError):
                if os.getsid(pid) == session:
                    spared.add(pid)
        return spared

"""The keeper as the daemon sees it: joining or starting one, and what it has kept."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import resource
import select
import signal
from typing import TYPE_CHECKING

from dorad.launch import orphans, wire
from dorad.launch.helper import LocalHelpers
from dorad.launch.host import KeptProcess
from dorad.launch.joining import connect_or_start
from dorad.launch.link import Link
from dorad.launch.model import LaunchError
from dorad.procinfo import is_alive, start_time

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from dorad.launch.helper import HelperHost
    from dorad.launch.model import Command
    from dorad.launch.spawner import Process

__all__ = ["Keeper", "KeptProcess"]

_JOIN_SECONDS = 10.0
_END_SECONDS = 10.0
_BURY_SECONDS = 5.0
_log = logging.getLogger(__name__)


class Keeper:
    """Parent of all processes of a daemon, and keeper of its descriptors when it is killed.

    A separate small process. Its death is the end of every process it has started. Made by
    `attach`; a `Host`.
    """

    units = False
    """They are plain processes."""

    def __init__(self, sock: socket.socket) -> None:
        self.helpers: HelperHost = LocalHelpers()
        self.pid = 0
        self.entries: dict[str, tuple[int, ...]] = {}
        """What it held when we came, by name; the descriptors are ours. See `take`."""
        self.kept: list[KeptProcess] = []
        """The processes it had when we came, also those that have ended since it was last told
        to forget one."""
        self.died = False
        """Whether it ended without having been told to, and every process with it."""
        self.on_died: Callable[[], None] = lambda: None
        """Called once it has died and every process that it had is known to be gone."""
        self.on_problem: Callable[[str], None] = _log.warning
        """Called with one line when descriptors cannot be kept."""
        self._pidfd = -1
        self._link = Link(sock, "keeper", self._on_end, self._on_packet, self.forget)
        self._joined: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._burial: asyncio.Task[None] | None = None
        self._gone = asyncio.Event()

    @classmethod
    async def attach(cls, path: Path) -> Keeper:
        """Join the keeper that listens at `path`, or start one there. Needs the folder.

        Also allows this process as many open files as it may have: what the keeper holds for it,
        it has open itself.

        Raises:
            LaunchError: it cannot be started, hangs, or another daemon is attached to it.
        """
        try:
            async with asyncio.timeout(_JOIN_SECONDS):
                while True:
                    sock = await asyncio.to_thread(connect_or_start, path, _JOIN_SECONDS)
                    keeper = cls(sock)
                    if await keeper._join():
                        break
        except TimeoutError:
            raise LaunchError(
                f"the keeper of the processes at {path} does not answer;"
                " end it with SIGKILL (its nodes end with it) and try again"
            ) from None
        _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
        return keeper

    def take(self, prefix: str) -> dict[str, tuple[int, ...]]:
        """Remove from `entries` those whose names begin with `prefix`, and return them."""
        names = [name for name in self.entries if name.startswith(prefix)]
        return {name: self.entries.pop(name) for name in names}

    async def spawn(
        self, command: Command, stdout_fd: int, stderr_fd: int, *, tag: str = ""
    ) -> Process:
        """Start `command`, as `Spawner.spawn`; what it was tagged with is in `KeptProcess.tag`."""
        return await self._link.spawn(command, stdout_fd, stderr_fd, tag)

    def store(self, name: str, fds: Sequence[int]) -> None:
        """Keep duplicates, as `FdStore.store`. Sent at once unless the keeper is behind."""
        if not 0 < len(fds) <= wire.MAX_FDS:
            raise ValueError(f"{len(fds)} descriptors cannot be kept under one name")
        self._say(b"store %s %d" % (wire.pack_name(name), len(fds)), fds)

    def drop(self, name: str) -> None:
        """Keep these no longer, as `FdStore.drop`."""
        self._say(b"drop " + wire.pack_name(name))

    def forget(self, pid: int) -> None:
        """Forget the process that had this pid; one that still runs, as soon as it has ended.

        To be called when its end is written down; before, a next daemon is told of it again.
        """
        self._say(b"forget %d" % pid)

    async def end_marked(self, mark: str, *, below_too: bool) -> int:
        """End what nobody looks after any more, as `Host.end_marked`."""
        spared = () if below_too else (self.pid,)
        return len(await asyncio.to_thread(orphans.end, mark, spared))

    async def stays(self) -> bool:
        """Return that nodes end with a daemon that is told to end: nobody else would end them."""
        return False

    async def detach(self) -> None:
        """Let go: the keeper and all it has stay as they are, for the next daemon. Idempotent.

        Whoever waits for a process to end does so in vain from now on.
        """
        if not self._link.closing:
            self._link.closing = True
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_END_SECONDS):
                    await self._link.flushed()
        if self._burial:
            await self._gone.wait()
        else:
            self._release("the daemon ends")

    async def end(self) -> None:
        """Kill everything that is left and the keeper, and wait until it is gone. Idempotent."""
        if self._gone.is_set():
            return
        if not self._link.closing:
            self._link.closing = True
            self._say(b"end")
        try:
            async with asyncio.timeout(_END_SECONDS):
                await self._gone.wait()
        except TimeoutError:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)
            await self._gone.wait()

    def _say(self, packet: bytes, fds: Sequence[int] = ()) -> None:
        if self._gone.is_set() or self._burial:
            return
        try:
            self._link.send(packet, fds)
        except ConnectionError:
            # It has died; that is noticed where its answers are read.
            return

    async def _join(self) -> bool:
        """Take over what the keeper has; False if it was about to end. Raises LaunchError."""
        self._link.listen()
        try:
            await self._joined
        except BaseException as error:
            self._release("the keeper was not joined")
            if isinstance(error, ConnectionError):
                return False
            raise
        return True

    def _release(self, why: str) -> None:
        self._link.close(why)
        for fds in self.entries.values():
            for fd in fds:
                os.close(fd)
        self.entries.clear()
        if self._pidfd >= 0:
            os.close(self._pidfd)
            self._pidfd = -1
        self._gone.set()

    def _on_packet(self, words: list[bytes], fds: list[int]) -> None:
        match words:
            case [b"hello", version, pid]:
                self._on_hello(int(version), int(pid))
            case [b"busy", pid]:
                self._on_busy(int(pid))
            case [b"entry", name]:
                self.entries[wire.unpack_name(name)] = tuple(fds)
            case [b"process", pid, started, status, tag]:
                ended = None if status == b"-" else int(status)
                process = self._link.adopt(int(pid), int(started), ended)
                self.kept.append(KeptProcess(wire.unpack_name(tag), process))
            case [b"ready"]:
                _log.debug("kept: %d processes, %d entries", len(self.kept), len(self.entries))
                self._answer(None)
            case [b"refused", name]:
                self.on_problem(
                    f"the keeper has no descriptor left to keep {wire.unpack_name(name)};"
                    " it would be lost if dorad were killed (raise its limit of open files)"
                )

    def _on_hello(self, version: int, pid: int) -> None:
        self.pid = pid
        _log.debug("keeper %d, version %d", pid, version)
        if version != wire.VERSION:
            self._answer(
                LaunchError(
                    f"the keeper of the processes (pid {pid}) is of another version of dora;"
                    f" end it with `kill -9 {pid}` (its nodes end with it) and try again"
                )
            )
            return
        with contextlib.suppress(ProcessLookupError):
            self._pidfd = os.pidfd_open(pid)

    def _on_busy(self, pid: int) -> None:
        if is_alive(pid):
            self._answer(LaunchError(f"another dorad (pid {pid}) is running"))
        else:  # the kernel has not closed its files yet
            self._answer(ConnectionError())

    def _answer(self, error: Exception | None) -> None:
        if self._joined.done():
            return
        if error is None:
            self._joined.set_result(None)
        else:
            self._joined.set_exception(error)

    def _on_end(self) -> None:
        if not self._joined.done():
            self._answer(ConnectionError())
            return
        self._burial = asyncio.get_running_loop().create_task(self._reap())

    async def _reap(self) -> None:
        """The keeper's socket has ended: make sure that its processes have, too."""
        living = [(process.pid, process.started) for process in self._link.processes.values()]
        await asyncio.to_thread(_see_end, living, self._pidfd)
        self.died = not self._link.closing
        self._link.finish("it has ended", {})
        self._release("it has ended")
        if self.died:
            self.on_died()


def _see_end(processes: list[tuple[int, int]], keeper: int) -> None:
    """Block until the keeper is gone and these processes, which the kernel kills with it.

    It does not if they have run a program with more rights than ours; so they are killed here too.
    """
    if keeper >= 0:
        _wait(keeper)
    for pid, started in processes:
        try:
            pidfd = os.pidfd_open(pid)
        except ProcessLookupError:
            continue
        try:
            # Looked at after it was opened, so what is signalled is what was looked at.
            if start_time(pid) != started:
                continue
            with contextlib.suppress(ProcessLookupError, PermissionError):
                signal.pidfd_send_signal(pidfd, signal.SIGKILL)
            _wait(pidfd)
        finally:
            os.close(pidfd)


def _wait(pidfd: int) -> None:
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    poll.poll(_BURY_SECONDS * 1000)

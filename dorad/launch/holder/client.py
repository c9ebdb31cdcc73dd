"""A process holder as its client sees it: `dora run`, `dora build`, or a daemon without systemd."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import resource
from typing import TYPE_CHECKING, Self

from msgspec.structs import replace

from dorad.launch.helper import HelperHost, LocalHelpers
from dorad.launch.holder import wire
from dorad.launch.holder.handle import HolderHandle, SharedHolder
from dorad.launch.holder.link import HolderLink
from dorad.launch.holder.starting import connect_or_start, start_private
from dorad.launch.host import HostListener, KeptProcess
from dorad.launch.model import Command, LaunchError
from dorad.launch.secrets import CREDENTIALS, CredentialFolders
from dorad.launch.transport import close_all
from dorad.procinfo import is_alive, start_time

if TYPE_CHECKING:
    import socket
    from collections.abc import Sequence
    from pathlib import Path

    from dorad.launch.spawner import Process

_JOIN_SECONDS = 10.0
_END_SECONDS = 10.0
_log = logging.getLogger(__name__)


class HolderClient:
    """Starts processes through a process holder, a small process that is their parent. A `Host`.

    However the holder ends, every process that it started is killed. There are two kinds:

    `async with HolderClient.start() as holder`: a private holder, which ends with this process,
    even if this process is killed. Its orphans become children of this process.

    `await HolderClient.attach(path)`: a shared holder, which outlives this process and keeps its
    processes and descriptors for the next daemon.
    """

    units = False

    def __init__(
        self,
        sock: socket.socket,
        handle: HolderHandle | None = None,
        listener: HostListener | None = None,
    ) -> None:
        """Use `start` or `attach` instead."""
        self.helpers: HelperHost = LocalHelpers()
        self.entries: dict[str, tuple[int, ...]] = {}
        """The descriptors of the last daemon, by name; this object owns them. See `take`."""
        self.kept: list[KeptProcess] = []
        """The processes of the last daemon, including ended ones that were not forgotten."""
        self.died = False
        """Whether the holder, and every process with it, ended unexpectedly."""
        self._listener = listener or HostListener()
        self._handle = handle
        self._link = HolderLink(
            sock, self._on_hangup, self._on_packet, self.forget, self._remove_secrets
        )
        self._secrets: CredentialFolders | None = None
        self._with_secrets: dict[int, str] = {}
        """The tags of the running processes that may have secrets, by pid."""
        self._joined: asyncio.Future[None] | None = None
        self._reaping: asyncio.Task[None] | None = None
        self._ended = asyncio.Event()

    @classmethod
    def start(cls) -> HolderClient:
        """Start a private holder, which starts up in parallel. Needs no event loop yet.

        Raises:
            LaunchError: it cannot be started.
        """
        handle, sock = start_private()
        return cls(sock, handle)

    @classmethod
    async def attach(cls, path: Path, listener: HostListener | None = None) -> HolderClient:
        """Connect to the shared holder at `path`, or start one there; its folder has to exist.

        Also raises the limit of open files of this process: it gets all descriptors of the holder.

        Raises:
            LaunchError: it cannot be started, hangs, or another daemon is connected to it.
        """
        try:
            async with asyncio.timeout(_JOIN_SECONDS):
                while True:
                    sock = await asyncio.to_thread(connect_or_start, path, _JOIN_SECONDS)
                    client = cls(sock, listener=listener)
                    if await client._join():
                        break
        except TimeoutError:
            raise LaunchError(
                f"the process holder at {path} does not answer;"
                " end it with SIGKILL (its nodes end with it) and try again"
            ) from None
        _, limit = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))
        return client

    @property
    def pid(self) -> int:
        """Pid of the holder."""
        return 0 if self._handle is None else self._handle.pid

    async def spawn(
        self, command: Command, stdout_fd: int, stderr_fd: int, *, tag: str = ""
    ) -> Process:
        """Start `command`, as `Spawner.spawn`. The next daemon gets `tag` in `KeptProcess.tag`."""
        if not command.secrets:
            return await self._link.spawn(command, stdout_fd, stderr_fd, tag)
        folders = self._credential_folders()
        folder = await asyncio.to_thread(folders.make, tag, command.secrets)
        command = replace(command, env={**command.env, CREDENTIALS: os.fspath(folder)})
        try:
            process = await self._link.spawn(command, stdout_fd, stderr_fd, tag)
        except BaseException:
            folders.remove(tag)
            raise
        if process.exit is None:
            self._with_secrets[process.pid] = tag
        else:
            folders.remove(tag)
        return process

    def store(self, name: str, fds: Sequence[int]) -> None:
        """Keep duplicates, as `FdStore.store`. Sent at once unless the holder is behind."""
        if not 0 < len(fds) <= wire.MAX_FDS:
            raise ValueError(f"{len(fds)} descriptors cannot be kept under one name")
        self._send(b"store %s %d" % (wire.pack_name(name), len(fds)), fds)

    def drop(self, name: str) -> None:
        """Close the duplicates, as `FdStore.drop`."""
        self._send(b"drop " + wire.pack_name(name))

    def take(self, prefix: str) -> dict[str, tuple[int, ...]]:
        """Return descriptors of the last daemon, as `Host.take`."""
        names = [name for name in self.entries if name.startswith(prefix)]
        return {name: self.entries.pop(name) for name in names}

    def forget(self, pid: int) -> None:
        """Forget the process with this pid, as `Host.forget`."""
        self._send(b"forget %d" % pid)

    async def end_marked(self, mark: str, *, below_too: bool) -> int:
        """End processes without a supervisor, as `Host.end_marked`."""
        from dorad.launch import orphans  # `dora run` does not need it

        spared = () if below_too else (self.pid,)
        return len(await asyncio.to_thread(orphans.end, mark, spared))

    async def stays(self) -> bool:
        """Return False: a stopping daemon ends its nodes, since nothing else would."""
        return False

    async def detach(self) -> None:
        """Disconnect; a shared holder keeps everything for the next daemon. Idempotent.

        From now on no exit of a process is reported.
        """
        if not self._link.closing:
            self._link.closing = True
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_END_SECONDS):
                    await self._link.drained()
        if self._reaping:
            await self._ended.wait()
        else:
            self._release("the daemon ends")

    async def end(self) -> None:
        """Kill every process and the holder, and wait for their end. Idempotent.

        When cancelled, it kills the holder at once instead of letting it end in order.
        """
        if self._ended.is_set():
            return
        if not self._link.closing:
            self._link.closing = True
            self._link.listen()
            self._send(b"end")
        try:
            await self._wait_ended()
        except asyncio.CancelledError:
            if self._handle is not None and not self._ended.is_set():
                self._link.stop_listening()
                self._handle.kill()
                self._finish(self._handle.wait(self._running()))
            raise

    async def __aenter__(self) -> Self:
        self._link.listen()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.end()

    def _send(self, packet: bytes, fds: Sequence[int] = ()) -> None:
        if self._ended.is_set() or self._reaping:
            return
        try:
            self._link.send(packet, fds)
        except ConnectionError:
            # The holder has died; `_on_hangup` handles that.
            return

    async def _wait_ended(self) -> None:
        try:
            async with asyncio.timeout(_END_SECONDS):
                await self._ended.wait()
        except TimeoutError:
            _log.debug("process holder %d does not end; killing it", self.pid)
            if self._handle is not None:
                self._handle.kill()
            await self._ended.wait()

    async def _join(self) -> bool:
        """Receive what the holder keeps; return False if it is about to end. Raises LaunchError."""
        self._joined = asyncio.get_running_loop().create_future()
        self._link.listen()
        try:
            await self._joined
        except BaseException as error:
            self._release("the process holder was not joined")
            if isinstance(error, ConnectionError):
                return False
            raise
        tags = list(self._with_secrets.values())
        await asyncio.to_thread(self._credential_folders().keep_only, tags)
        return True

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
                self._with_secrets = {each.pid: each.tag for each in self.kept if not each.exit}
                self._set_joined(None)
            case [b"refused", name]:
                self._listener.on_problem(
                    f"the process holder has no descriptor left to keep {wire.unpack_name(name)};"
                    " it would be lost if dorad were killed (raise its limit of open files)"
                )

    def _credential_folders(self) -> CredentialFolders:
        if self._secrets is None:
            self._secrets = CredentialFolders((self.pid, start_time(self.pid) or 0))
        return self._secrets

    def _remove_secrets(self, pid: int) -> None:
        tag = self._with_secrets.pop(pid, None)
        if tag is not None:
            self._credential_folders().remove(tag)

    def _on_hello(self, version: int, pid: int) -> None:
        _log.debug("process holder %d has version %d", pid, version)
        if version == wire.VERSION:
            self._handle = SharedHolder(pid)
            return
        self._set_joined(
            LaunchError(
                f"the process holder (pid {pid}) belongs to another version of dora;"
                f" end it with `kill -9 {pid}` (its nodes end with it) and try again"
            )
        )

    def _on_busy(self, pid: int) -> None:
        if is_alive(pid):
            self._set_joined(LaunchError(f"another dorad (pid {pid}) is running"))
        else:  # the kernel has not closed its files yet
            self._set_joined(ConnectionError())

    def _set_joined(self, error: Exception | None) -> None:
        if self._joined is None or self._joined.done():
            return
        if error is None:
            self._joined.set_result(None)
        else:
            self._joined.set_exception(error)

    def _on_hangup(self) -> None:
        _log.debug("process holder %d has ended, on request: %s", self.pid, self._link.closing)
        if self._joined is not None and not self._joined.done():
            self._set_joined(ConnectionError())
        elif self._handle is not None:
            self._reaping = asyncio.get_running_loop().create_task(self._reap(self._handle))

    async def _reap(self, handle: HolderHandle) -> None:
        """Make sure that the holder and its processes have ended, then report it."""
        statuses = await asyncio.to_thread(handle.wait, self._running())
        self.died = not self._link.closing
        self._finish(statuses)
        if self.died:
            self._listener.on_died()

    def _running(self) -> list[tuple[int, int]]:
        return [(process.pid, process.started) for process in self._link.processes.values()]

    def _finish(self, statuses: dict[int, int]) -> None:
        if self._secrets is not None:
            self._secrets.close()
        self._link.finish("it has ended", statuses)
        self._release("it has ended")

    def _release(self, why: str) -> None:
        self._link.close(why)
        for fds in self.entries.values():
            close_all(fds)
        self.entries.clear()
        if self._handle is not None:
            self._handle.close()
        self._ended.set()

"""Our end of the socket to the parent of all processes: what guard and keeper have in common."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import socket
from collections import deque
from typing import TYPE_CHECKING

from dorad.launch import wire
from dorad.launch.errors import spawn_error
from dorad.launch.model import Exit, LaunchError, SpawnerGoneError
from dorad.launch.spawner import Process
from dorad.procinfo import is_alive

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from dorad.launch.model import Command

_SILENCE_SECONDS = 30.0
"""For so long a parent that is to start processes may say nothing at all."""
_AT_ONCE = 64
"""Packets read before others get their turn on the event loop."""

_log = logging.getLogger(__name__)


class Link:
    """Starts and signals processes through the parent, and learns how they end.

    Never blocks: what the parent does not take at once is queued. Needs no event loop before
    `listen`.
    """

    def __init__(
        self,
        sock: socket.socket,
        parent: str,
        on_end: Callable[[], None],
        on_packet: Callable[[list[bytes], list[int]], None] | None = None,
        forget: Callable[[int], None] = lambda _pid: None,
    ) -> None:
        """Make a link that does not listen yet.

        `parent` names it in errors. `on_packet` gets what has not to do with processes, and the
        descriptors that came with it; `on_end` is called when the parent hangs up; `forget` when
        a process has ended that nobody waits for.
        """
        self.processes: dict[int, Process] = {}
        """Those that run."""
        self.closing = False
        self._sock = sock
        self._parent = parent
        self._on_end = on_end
        self._on_packet = on_packet
        self._forget = forget
        self._unwanted: set[int] = set()
        self._requests = 0
        self._heard = 0
        """Packets of the parent so far."""
        self._pending: dict[int, asyncio.Future[Process]] = {}
        self._queue: deque[tuple[bytes, list[int]]] = deque()
        self._emptied = asyncio.Event()
        self._listening = False
        self._ended = False
        sock.setblocking(False)

    def listen(self) -> None:
        """Read what the parent says from now on. Idempotent."""
        if not self._listening and not self._ended:
            self._listening = True
            asyncio.get_running_loop().add_reader(self._sock, self._on_readable)

    def deafen(self) -> None:
        """Neither read nor write any more. Idempotent."""
        if self._listening:
            self._listening = False
            loop = asyncio.get_running_loop()
            loop.remove_reader(self._sock)
            loop.remove_writer(self._sock)

    async def spawn(self, command: Command, stdout_fd: int, stderr_fd: int, tag: str) -> Process:
        """As `Spawner.spawn`."""
        self._requests += 1
        try:
            self._request_spawn(self._requests, command, stdout_fd, stderr_fd, tag)
            answer: asyncio.Future[Process] = asyncio.get_running_loop().create_future()
            self._pending[self._requests] = answer
            process = await self._answered(answer)
            wanted = {"user": command.user, "resources": command.resources}
            _log.debug("process %d started: %s", process.pid, command.argv)
            process.left_out = tuple(key for key, value in wanted.items() if value)
            return process
        except _SpawnFailedError as failure:
            _log.debug("%s was not started: %s", command.argv[0], failure)
            raise spawn_error(command, failure.stage, failure.number) from None
        except (OSError, TimeoutError) as error:
            # A late answer finds nobody waiting and kills what it started.
            why = "it does not answer" if isinstance(error, TimeoutError) else error
            raise LaunchError(
                f"cannot start {command.argv[0]} through the {self._parent}: {why}"
            ) from error

    async def _answered(self, answer: asyncio.Future[Process]) -> Process:
        """Return the answer; of hundreds of processes the last may well take a minute to start.

        Raises:
            TimeoutError: the parent has fallen silent.
        """
        try:
            while not answer.done():
                heard = self._heard
                await asyncio.wait([answer], timeout=_SILENCE_SECONDS)
                if self._heard == heard and not answer.done():
                    raise TimeoutError
            return answer.result()
        finally:
            answer.cancel()

    def send(self, packet: bytes, fds: Sequence[int] = ()) -> None:
        """Send now or, with duplicates of the descriptors, as soon as the parent takes it.

        Raises:
            OSError: the parent is gone, or there are no more descriptors.
        """
        if self._queue or not self._try(packet, fds):
            duplicates: list[int] = []
            try:
                for fd in fds:
                    duplicates.append(os.dup(fd))
            except OSError:
                _close(duplicates)
                raise
            self._queue.append((packet, duplicates))
            self._emptied.clear()
            asyncio.get_running_loop().add_writer(self._sock, self._on_writable)

    def signal(self, process: Process, number: int) -> None:
        """Through the parent: only it knows for sure whether the pid is still that process."""
        _log.debug("signal %d to process %d", number, process.pid)
        if self._ended:
            return
        try:
            if not self._queue and self._try(f"signal {process.pid} {int(number)}".encode()):
                return
        except OSError:
            # The parent is gone or closing, and all processes with it.
            return
        # The parent hangs; then it has hardly reaped the process either.
        if is_alive(process.pid, process.started):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, number)

    async def flushed(self) -> None:
        """Return when nothing is queued any more."""
        if self._queue:
            await self._emptied.wait()

    def adopt(self, pid: int, started: int, status: int | None) -> Process:
        """Make a process of one that the parent has already; `status` is None while it runs."""
        process = Process(pid, started, self.signal)
        if status is None:
            self.processes[pid] = process
        else:
            process.set_exit(decode(status))
        return process

    def finish(self, why: str, statuses: Mapping[int, int]) -> None:
        """The parent has ended, and every process with it: say so to all who wait."""
        self.close(why)
        for pid, process in self.processes.items():
            status = statuses.get(pid)
            process.set_exit(Exit(signal=signal.SIGKILL) if status is None else decode(status))
        self.processes.clear()

    def close(self, why: str) -> None:
        """Let go of the socket; `why` is what those are told who wait for a process to start."""
        self.deafen()
        self._ended = True
        self._sock.close()
        for _, fds in self._queue:
            _close(fds)
        self._queue.clear()
        self._emptied.set()
        for answer in self._pending.values():
            if not answer.done():
                answer.set_exception(ConnectionError(why))
        self._pending.clear()

    def _request_spawn(
        self, number: int, command: Command, stdout_fd: int, stderr_fd: int, tag: str
    ) -> None:
        if self._ended or self.closing:
            raise SpawnerGoneError(f"cannot start {command.argv[0]}: the {self._parent} is gone")
        try:
            packed = wire.pack_command(
                [os.fsencode(word) for word in command.argv],
                os.fsencode(command.cwd),
                {os.fsencode(name): os.fsencode(value) for name, value in command.env.items()},
                command.cpu_affinity,
                () if command.schedule is None else command.schedule.numbers(),
            )
            packet = b"spawn %d %s" % (number, wire.pack_name(tag))
        except ValueError as error:
            raise LaunchError(f"cannot start {command.argv[0]}: {error}") from None
        memory = os.memfd_create("dora-command", os.MFD_CLOEXEC)
        try:
            with open(memory, "wb", closefd=False) as out:
                out.write(packed)
            self.send(packet, [memory, stdout_fd, stderr_fd])
        finally:
            os.close(memory)

    def _try(self, packet: bytes, fds: Sequence[int] = ()) -> bool:
        """Send a packet; False if the parent has to read others first."""
        try:
            socket.send_fds(self._sock, [packet], fds)
        except OSError as error:
            if error.errno in wire.LATER:
                return False
            raise
        return True

    def _on_writable(self) -> None:
        try:
            while self._queue and self._try(*self._queue[0]):
                _close(self._queue.popleft()[1])
        except ConnectionError:
            # The end of the socket is read, too; until then nothing more can be sent.
            while self._queue:
                _close(self._queue.popleft()[1])
        if not self._queue:
            asyncio.get_running_loop().remove_writer(self._sock)
            self._emptied.set()

    def _on_readable(self) -> None:
        for _ in range(_AT_ONCE):
            if not self._listening or not self._receive():
                return

    def _receive(self) -> bool:
        """Take one packet; False if there is none, or no more."""
        try:
            packet, fds = wire.receive(self._sock)
        except BlockingIOError:
            return False
        except ConnectionError:
            packet, fds = b"", []
        self._heard += 1
        match packet.split():
            case []:
                _log.debug("the %s has hung up", self._parent)
                self.deafen()
                self._ended = True
                self._on_end()
                return False
            case [b"spawned", number, pid, started, skipped, refused]:
                cores = wire.split_numbers(skipped)
                process = Process(int(pid), int(started), self.signal, cores, int(refused))
                self._on_spawned(int(number), process)
            case [b"failed", number, stage, errno]:
                answer = self._pending.pop(int(number))
                if not answer.done():
                    answer.set_exception(_SpawnFailedError(stage.decode(), int(errno)))
            case [b"exited", pid, status]:
                self._on_exited(int(pid), decode(int(status)))
            case words if self._on_packet is not None:
                self._on_packet(words, fds)
        return True

    def _on_spawned(self, number: int, process: Process) -> None:
        self.processes[process.pid] = process
        answer = self._pending.pop(number)
        if answer.done():
            self._unwanted.add(process.pid)
            process.signal(signal.SIGKILL)
        else:
            answer.set_result(process)

    def _on_exited(self, pid: int, how: Exit) -> None:
        _log.debug("process %d ended: %s", pid, how)
        self.processes.pop(pid).set_exit(how)
        if pid in self._unwanted:
            self._unwanted.discard(pid)
            self._forget(pid)


class _SpawnFailedError(Exception):
    def __init__(self, stage: str, number: int) -> None:
        super().__init__(stage, number)
        self.stage = stage
        self.number = number


def decode(status: int) -> Exit:
    """Return what a wait status means."""
    code = os.waitstatus_to_exitcode(status)
    return Exit(code=code) if code >= 0 else Exit(signal=-code)


def _close(fds: Sequence[int]) -> None:
    for fd in fds:
        os.close(fd)

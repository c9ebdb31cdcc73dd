"""A client's connection to a process holder: requests, and the packets that answer them."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import os
import signal
from pathlib import Path
from typing import TYPE_CHECKING

from dorad.launch.asyncsender import AsyncSender
from dorad.launch.holder import wire
from dorad.launch.model import Command, Exit, LaunchError, SpawnerExitedError
from dorad.launch.spawner import Process
from dorad.procinfo import is_alive

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Mapping, Sequence


def spawn_error(command: Command, stage: str, number: int) -> LaunchError:
    """Return the error for a start of `command` that failed at `stage` (see `wire`) with `number`.

    `number` is an errno.
    """
    program = command.argv[0]
    if stage == wire.STAGE_FOLDER:
        why = f"its working directory {command.cwd}: {os.strerror(number)}"
    elif number == errno.ENOENT and Path(command.cwd, program).exists():
        why = f"the interpreter it names does not exist{_named_interpreter(program)}"
    elif number == errno.ENOEXEC:
        why = "it is neither a program for this machine nor a script with a #! line"
    elif number == errno.EACCES:
        why = "permission denied (is it executable? `chmod +x` makes it so)"
    elif number == errno.E2BIG:
        why = "its arguments and environment are too long"
    else:
        why = os.strerror(number)
    return LaunchError(f"cannot start {program}: {why}")


def _named_interpreter(program: str) -> str:
    try:
        with Path(program).open("rb") as file:
            first = file.readline(256)
    except OSError:
        return ""
    if not first.startswith(b"#!"):
        return " (its dynamic loader is missing)"
    line = first.decode(errors="replace").strip()
    if first.endswith(b"\r\n"):
        return f" (`{line}` ends with a carriage return, as on Windows: mend it with `dos2unix`)"
    return f" (first line: {line})"


_SILENCE_SECONDS = 30.0
"""A holder that sends nothing for this long, while a start is requested, is given up."""
_MAX_PACKETS = 64
"""Packets read before other tasks get their turn on the event loop."""

_log = logging.getLogger(__name__)


class HolderLink:
    """Starts and signals processes through a holder, and learns how they end.

    Never blocks: what the holder does not take at once is queued. Needs no event loop before
    `listen`.
    """

    def __init__(
        self,
        sock: socket.socket,
        on_hangup: Callable[[], None],
        on_packet: Callable[[list[bytes], list[int]], None],
        forget: Callable[[int], None],
        on_exit: Callable[[int], None],
    ) -> None:
        """Make a link that does not listen yet.

        `on_packet` gets the packets that are not about processes of this link, with their
        descriptors. `on_hangup` is called when the holder closes the connection. `forget` is called
        when a process has ended whose start was cancelled, and `on_exit` with the pid of each that
        has ended, before the end is reported.
        """
        self.processes: dict[int, Process] = {}
        """The running processes, by pid."""
        self.closing = False
        """Whether the owner ends the connection on purpose."""
        self._sock = sock
        self._on_hangup = on_hangup
        self._on_packet = on_packet
        self._forget = forget
        self._on_exit = on_exit
        self._unwanted: set[int] = set()
        """Pids of processes whose start was cancelled."""
        self._requests = 0
        self._received = 0
        """Number of packets received."""
        self._pending: dict[int, asyncio.Future[Process]] = {}
        # If the holder has closed its end, `_on_readable` notices it.
        self._sender = AsyncSender(sock, lambda _error: self._sender.clear())
        self._listening = False
        self._ended = False
        sock.setblocking(False)

    def listen(self) -> None:
        """Read packets from now on. Idempotent."""
        if not self._listening and not self._ended:
            self._listening = True
            asyncio.get_running_loop().add_reader(self._sock, self._on_readable)

    def stop_listening(self) -> None:
        """Stop reading and writing. Idempotent."""
        if self._listening:
            self._listening = False
            self._sender.clear()
            asyncio.get_running_loop().remove_reader(self._sock)

    async def spawn(self, command: Command, stdout_fd: int, stderr_fd: int, tag: str) -> Process:
        """Start a process, as `Spawner.spawn`."""
        self._requests += 1
        try:
            self._request_spawn(self._requests, command, stdout_fd, stderr_fd, tag)
            answer: asyncio.Future[Process] = asyncio.get_running_loop().create_future()
            self._pending[self._requests] = answer
            process = await self._answered(answer)
            wanted = {
                "user": command.identity.user,
                "groups": command.identity.groups,
                "resources": command.resources,
            }
            _log.debug("process %d started: %s", process.pid, command.argv)
            process.left_out = tuple(key for key, value in wanted.items() if value)
            return process
        except wire.SpawnFailedError as failure:
            _log.debug("%s was not started: %s", command.argv[0], failure)
            raise spawn_error(command, failure.stage, failure.number) from None
        except (OSError, TimeoutError) as error:
            # If the answer still comes, `_on_spawned` kills the process.
            why = "it does not answer" if isinstance(error, TimeoutError) else error
            raise LaunchError(
                f"cannot start {command.argv[0]} through the process holder: {why}"
            ) from error

    def send(self, packet: bytes, fds: Sequence[int] = ()) -> None:
        """Send now or, with duplicates of the descriptors, as soon as the holder takes it.

        Raises:
            OSError: the holder has hung up, or no descriptor is left.
        """
        self._sender.send(packet, fds)

    async def drained(self) -> None:
        """Return when nothing waits to be sent."""
        await self._sender.drained()

    def signal(self, process: Process, number: int) -> None:
        """Signal a process group through the holder, which knows that its pid is not reused."""
        _log.debug("signal %d to process %d", number, process.pid)
        if self._ended:
            return
        try:
            if self._sender.try_send(f"signal {process.pid} {int(number)}".encode()):
                return
        except OSError:
            # The holder has ended or is about to, and all processes with it.
            return
        # The holder hangs, so it cannot have reaped the process either.
        if is_alive(process.pid, process.started):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, number)

    def adopt(self, pid: int, started: int, status: int | None) -> Process:
        """Make the object of a process that the holder has already; `status` is None if it runs."""
        process = Process(pid, started, self.signal)
        if status is None:
            self.processes[pid] = process
        else:
            process.set_exit(decode(status))
        return process

    def finish(self, why: str, statuses: Mapping[int, int]) -> None:
        """Close the link, and report the end of every process: the holder has ended."""
        self.close(why)
        for pid, process in self.processes.items():
            status = statuses.get(pid)
            process.set_exit(Exit(signal=signal.SIGKILL) if status is None else decode(status))
        self.processes.clear()

    def close(self, why: str) -> None:
        """Close the socket; starts that wait for an answer fail with `why`. Idempotent."""
        self.stop_listening()
        self._ended = True
        self._sender.clear()
        self._sock.close()
        for answer in self._pending.values():
            if not answer.done():
                answer.set_exception(ConnectionError(why))
        self._pending.clear()

    async def _answered(self, answer: asyncio.Future[Process]) -> Process:
        """Return the answer to a start. The last one of hundreds may take a minute.

        Raises:
            TimeoutError: the holder has sent nothing for a while.
        """
        try:
            while not answer.done():
                received = self._received
                await asyncio.wait([answer], timeout=_SILENCE_SECONDS)
                if self._received == received and not answer.done():
                    raise TimeoutError
            return answer.result()
        except asyncio.CancelledError:
            if answer.done() and not answer.cancelled() and answer.exception() is None:
                self._end_unwanted(answer.result())
            raise
        finally:
            answer.cancel()

    def _request_spawn(
        self, number: int, command: Command, stdout_fd: int, stderr_fd: int, tag: str
    ) -> None:
        if self._ended or self.closing:
            raise SpawnerExitedError(
                f"cannot start {command.argv[0]}: the process holder has exited"
            )
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

    def _on_readable(self) -> None:
        for _ in range(_MAX_PACKETS):
            if not self._listening or not self._receive():
                return

    def _receive(self) -> bool:
        """Handle one packet; return False if there is none, or no more."""
        try:
            packet, fds = wire.receive(self._sock)
        except BlockingIOError:
            return False
        except ConnectionError:
            packet, fds = b"", []
        self._received += 1
        match packet.split():
            case []:
                _log.debug("the process holder has hung up")
                self.stop_listening()
                self._ended = True
                self._on_hangup()
                return False
            case [b"spawned", number, pid, started, skipped, refused]:
                cores = wire.split_numbers(skipped)
                process = Process(int(pid), int(started), self.signal, cores, int(refused))
                self._on_spawned(int(number), process)
            case [b"failed", number, stage, errno]:
                answer = self._pending.pop(int(number))
                if not answer.done():
                    answer.set_exception(wire.SpawnFailedError(stage.decode(), int(errno)))
            case [b"exited", pid, status]:
                self._on_exited(int(pid), decode(int(status)))
            case words:
                self._on_packet(words, fds)
        return True

    def _on_spawned(self, number: int, process: Process) -> None:
        self.processes[process.pid] = process
        answer = self._pending.pop(number)
        if answer.done():
            self._end_unwanted(process)
        else:
            answer.set_result(process)

    def _end_unwanted(self, process: Process) -> None:
        """Kill a process whose start was cancelled, and forget it when it has ended."""
        _log.debug("process %d is killed: its start was cancelled", process.pid)
        if process.exit is not None:
            self._forget(process.pid)
            return
        self._unwanted.add(process.pid)
        process.signal(signal.SIGKILL)

    def _on_exited(self, pid: int, how: Exit) -> None:
        _log.debug("process %d ended: %s", pid, how)
        self._on_exit(pid)
        self.processes.pop(pid).set_exit(how)
        if pid in self._unwanted:
            self._unwanted.discard(pid)
            self._forget(pid)


def decode(status: int) -> Exit:
    """Return the meaning of a wait status."""
    code = os.waitstatus_to_exitcode(status)
    return Exit(code=code) if code >= 0 else Exit(signal=-code)

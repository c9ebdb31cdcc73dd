"""The guard as `dora run` sees it: start processes through it, signal them, learn how they end."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Self

from dorad.launch import wire
from dorad.launch.descendants import children, end_descendants
from dorad.launch.errors import spawn_error
from dorad.launch.model import Command, Exit, LaunchError
from dorad.launch.prctl import set_subreaper

if TYPE_CHECKING:
    from types import TracebackType

__all__ = ["Command", "Exit", "Guard", "LaunchError", "Process"]

_ANSWER_SECONDS = 30.0
_CLOSE_SECONDS = 10.0
_BURY_SECONDS = 5.0


class Process:
    """A process of the run, leader of its own process group."""

    def __init__(self, guard: Guard, pid: int, skipped_cores: tuple[int, ...]) -> None:
        self.pid = pid
        self.skipped_cores = skipped_cores
        """Cores of `cpu_affinity` that this machine does not let it use."""
        self._guard = guard
        self._exit: Exit | None = None
        self._ended = asyncio.Event()

    @property
    def exit(self) -> Exit | None:
        """How it ended; None while it runs."""
        return self._exit

    async def wait(self) -> Exit:
        """How the process ended, when it has. May be called by several tasks, and again."""
        while self._exit is None:
            await self._ended.wait()
        return self._exit

    def signal(self, sig: int) -> None:
        """Send `sig` to the whole process group; nothing happens after the process has ended."""
        if self._exit is None:
            self._guard._signal(self.pid, sig)

    def _set_exit(self, how: Exit) -> None:
        self._exit = how
        self._ended.set()


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
        self._requests = 0
        self._pending: dict[int, asyncio.Future[Process]] = {}
        self._processes: dict[int, Process] = {}
        self._closing = False
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
                    process = _start_guard_process(theirs.fileno())
            except OSError as error:
                raise LaunchError(f"cannot start the guard of the processes: {error}") from error
            on_error.pop_all()
        ours.setblocking(False)
        cls._alive.add(process.pid)
        return cls(process, ours, not_ours)

    @property
    def died(self) -> bool:
        """Whether the guard ended before it was closed; every process is then killed too."""
        return self._died

    async def spawn(self, command: Command, stdout_fd: int, stderr_fd: int) -> Process:
        """Start `command`. The descriptors stay the caller's to close, right after this.

        Raises:
            LaunchError: one line with what failed (the executable, the folder, the guard).
        """
        self._requests += 1
        try:
            self._request_spawn(self._requests, command, stdout_fd, stderr_fd)
            answer: asyncio.Future[Process] = asyncio.get_running_loop().create_future()
            self._pending[self._requests] = answer
            async with asyncio.timeout(_ANSWER_SECONDS):
                return await answer
        except _SpawnFailedError as failure:
            raise spawn_error(command, failure.stage, failure.number) from None
        except (OSError, TimeoutError) as error:
            # A late answer finds nobody waiting and kills what it started.
            why = "it does not answer" if isinstance(error, TimeoutError) else error
            raise LaunchError(f"cannot start {command.argv[0]} through the guard: {why}") from error

    async def close(self) -> None:
        """Kill everything that is left and wait until it is gone. Idempotent.

        When cancelled, it still does all of that first, the quick way.
        """
        if self._gone.is_set():
            return
        if not self._closing:
            self._closing = True
            self._listen()
            with contextlib.suppress(OSError):
                self._sock.shutdown(socket.SHUT_WR)
        try:
            await self._wait_until_gone()
        except asyncio.CancelledError:
            asyncio.get_running_loop().remove_reader(self._sock)
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
        self._listen()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    def _listen(self) -> None:
        if not self._burial:
            asyncio.get_running_loop().add_reader(self._sock, self._on_readable)

    def _request_spawn(self, number: int, command: Command, stdout_fd: int, stderr_fd: int) -> None:
        if self._burial or self._closing:
            raise LaunchError(f"cannot start {command.argv[0]}: the guard of the processes is gone")
        try:
            packed = wire.pack_command(
                [os.fsencode(word) for word in command.argv],
                os.fsencode(command.cwd),
                {os.fsencode(name): os.fsencode(value) for name, value in command.env.items()},
                command.cpu_affinity,
            )
        except ValueError as error:
            raise LaunchError(f"cannot start {command.argv[0]}: {error}") from None
        memory = os.memfd_create("dora-command", os.MFD_CLOEXEC)
        try:
            with open(memory, "wb", closefd=False) as out:
                out.write(packed)
            fds = [memory, stdout_fd, stderr_fd]
            socket.send_fds(self._sock, [f"spawn {number}".encode()], fds)
        finally:
            os.close(memory)

    def _signal(self, pid: int, number: int) -> None:
        """Through the guard: only it knows for sure whether `pid` is still that process."""
        if self._burial:
            return
        try:
            self._sock.send(f"signal {pid} {int(number)}".encode())
        except BlockingIOError:
            # The guard hangs; then it has not reaped the process either, so the pid holds.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(pid, number)
        except OSError:
            # The guard is gone or closing, and all processes with it.
            return

    def _on_readable(self) -> None:
        try:
            packet = self._sock.recv(wire.PACKET)
        except BlockingIOError:
            return
        except ConnectionError:
            packet = b""
        match packet.split():
            case []:
                loop = asyncio.get_running_loop()
                loop.remove_reader(self._sock)
                self._died = not self._closing
                self._burial = loop.create_task(self._bury())
            case [b"spawned", number, pid, skipped]:
                self._on_spawned(int(number), int(pid), wire.split_numbers(skipped))
            case [b"failed", number, stage, errno]:
                answer = self._pending.pop(int(number))
                if not answer.done():
                    answer.set_exception(_SpawnFailedError(stage.decode(), int(errno)))
            case [b"exited", pid, status]:
                self._processes.pop(int(pid))._set_exit(_decode(int(status)))

    def _on_spawned(self, number: int, pid: int, skipped: tuple[int, ...]) -> None:
        process = self._processes[pid] = Process(self, pid, skipped)
        answer = self._pending.pop(number)
        if answer.done():
            process.signal(signal.SIGKILL)
        else:
            answer.set_result(process)

    async def _bury(self) -> None:
        """The guard's socket has ended: make sure that it and all its descendants have, too."""
        self._finish(await asyncio.to_thread(self._end_everything))

    def _finish(self, statuses: dict[int, int]) -> None:
        """Everything has ended; say so to all who wait."""
        self._sock.close()
        for answer in self._pending.values():
            if not answer.done():
                answer.set_exception(ConnectionError(f"it ended ({self._guard.returncode})"))
        self._pending.clear()
        for pid, process in self._processes.items():
            status = statuses.get(pid)
            process._set_exit(Exit(signal=signal.SIGKILL) if status is None else _decode(status))
        self._processes.clear()
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


class _SpawnFailedError(Exception):
    def __init__(self, stage: str, number: int) -> None:
        super().__init__(stage, number)
        self.stage = stage
        self.number = number


def _start_guard_process(fd: int) -> subprocess.Popen[bytes]:
    """A bare interpreter: no site, no user code, our own import path and little else."""
    kept = ("LANG", "LC_ALL", "LD_LIBRARY_PATH", "PYTHONHOME")
    env = {name: os.environ[name] for name in kept if name in os.environ}
    env["PYTHONPATH"] = os.pathsep.join(str(Path(entry).absolute()) for entry in sys.path if entry)
    code = f"from dorad.launch.guard import main; main({fd})"
    return subprocess.Popen(
        [sys.executable, "-S", "-P", "-c", code],
        cwd="/",
        env=env,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        pass_fds=(fd,),
        start_new_session=True,
    )


def _decode(status: int) -> Exit:
    code = os.waitstatus_to_exitcode(status)
    return Exit(code=code) if code >= 0 else Exit(signal=-code)

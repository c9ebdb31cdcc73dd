"""The guard process: parent of all processes of a run, and their end when the run ends.

It lives in a session of its own, so a terminal's Ctrl-C reaches neither it nor the nodes. It does
what it is asked over its socket (see `wire`), and when that socket ends, because the run closed
it or died of whatever cause, it kills every descendant and ends too.

Few imports, because no node starts before they are done: no json, no asyncio, no subprocess.
"""

from __future__ import annotations

import os
import select
import signal
import socket

from dorad.launch import wire
from dorad.launch.descendants import end_descendants
from dorad.launch.prctl import die_with_parent, set_subreaper

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

_IGNORED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGPIPE)
"""The guard ends when its run does, not by being asked to."""
_MOST_CORES = 8192
"""More than Linux can be built for; a mask for any number would take memory to match."""


def main(fd: int) -> None:
    """Serve the run at the other end of the SOCK_SEQPACKET socket `fd` until it is gone."""
    set_subreaper(True)
    os.set_inheritable(fd, False)
    for number in _IGNORED:
        signal.signal(number, signal.SIG_IGN)
    with socket.socket(fileno=fd) as run:
        guard = _Guard(run)
        try:
            guard.serve()
        finally:
            end_descendants(guard.report_exit)


class _Guard:
    def __init__(self, run: socket.socket) -> None:
        self._run = run
        self._leaders: set[int] = set()
        """The processes that were asked for; other children are adopted orphans."""

    def serve(self) -> None:
        """Until the socket ends."""
        wake_read, wake_write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.set_wakeup_fd(wake_write, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda _number, _frame: None)
        poll = select.poll()
        poll.register(wake_read, select.POLLIN)
        poll.register(self._run, select.POLLIN)
        connected = True
        while connected:
            for fd, _ in poll.poll():
                if fd == wake_read:
                    os.read(wake_read, 4096)
                    self._reap()
                else:
                    connected = self._receive()
        signal.set_wakeup_fd(-1)
        os.close(wake_read)
        os.close(wake_write)

    def _receive(self) -> bool:
        """Do one thing that is asked; False when there will be no more."""
        try:
            packet, fds, _, _ = socket.recv_fds(self._run, wire.PACKET, 3)
        except ConnectionError:
            return False
        for fd in fds:
            os.set_inheritable(fd, False)
        match packet.split():
            case [b"spawn", number]:
                try:
                    self._spawn(number, *fds)
                finally:
                    for fd in fds:
                        os.close(fd)
            case [b"signal", pid, number]:
                self._signal(int(pid), int(number))
        return bool(packet)

    def _send(self, *words: bytes | int) -> None:
        try:
            self._run.send(b" ".join(b"%d" % w if isinstance(w, int) else w for w in words))
        except ConnectionError:
            # Nobody is left to tell; `_receive` sees the end of the socket too.
            return

    def _spawn(self, number: bytes, command: int, stdout: int, stderr: int) -> None:
        data = os.pread(command, os.fstat(command).st_size, 0)
        argv, cwd, env, cores = wire.unpack_command(data)
        stage = wire.STAGE_FOLDER
        try:
            # Nothing else runs here, so the folder and cores to inherit may be the guard's own.
            os.chdir(cwd)
            stage = wire.STAGE_EXECUTE
            with _Pinned(cores) as pinned:
                pid = _execute(argv, env, stdout, stderr)
        except OSError as error:
            self._send(b"failed", number, stage.encode(), error.errno or 0)
            return
        finally:
            os.chdir("/")
        self._leaders.add(pid)
        self._send(b"spawned", number, pid, wire.join_numbers(pinned.skipped))

    def _signal(self, pid: int, number: int) -> None:
        # Only what is not reaped yet is a leader: its number cannot belong to anything else.
        if pid in self._leaders:
            try:
                os.killpg(pid, number)
            except PermissionError:
                # All of the group runs as another user now; nothing here can end it.
                return

    def _reap(self) -> None:
        """Collect every child that has ended; what is left of a leader's group ends with it."""
        options = os.WEXITED | os.WNOHANG
        while True:
            try:
                # Looked at first and reaped after the kill: until then the group keeps its number.
                ended = os.waitid(os.P_ALL, 0, options | os.WNOWAIT)
            except ChildProcessError:
                return
            if ended is None:
                return
            self._signal(ended.si_pid, signal.SIGKILL)
            self.report_exit(*os.waitpid(ended.si_pid, 0))

    def report_exit(self, pid: int, status: int) -> None:
        """Tell the run that `pid` is reaped, if it asked for that process."""
        if pid in self._leaders:
            self._leaders.discard(pid)
            self._send(b"exited", pid, status)


class _Pinned:
    """While entered, this process (and what it spawns) runs on `cores` only."""

    def __init__(self, cores: tuple[int, ...]) -> None:
        self._cores = cores
        self._before: set[int] = set()
        self.skipped: tuple[int, ...] = ()
        """Those of the cores that do not exist or are not allowed here."""

    def __enter__(self) -> _Pinned:
        if not self._cores:
            return self
        self._before = os.sched_getaffinity(0)
        usable = {core for core in self._cores if core < _MOST_CORES}
        try:
            os.sched_setaffinity(0, usable)
            usable &= os.sched_getaffinity(0)
        except OSError:
            # Not one of them is usable, so the process runs wherever the guard does.
            usable = set()
        self.skipped = tuple(core for core in self._cores if core not in usable)
        return self

    def __exit__(self, *_: object) -> None:
        if self._before:
            os.sched_setaffinity(0, self._before)


def _execute(argv: list[bytes], env: dict[bytes, bytes], stdout: int, stderr: int) -> int:
    """Start a process in its own group; it dies with the guard even if nobody else is left.

    That last is why this forks: posix_spawn cannot ask the kernel for it.

    Raises:
        OSError: the program cannot be executed.
    """
    failure_read, failure_write = os.pipe()
    guard = os.getpid()
    pid = os.fork()
    if pid == 0:
        try:
            _become(argv, env, stdout, stderr, guard)
        except OSError as error:
            os.write(failure_write, b"%d" % (error.errno or 0))
        finally:
            os._exit(127)
    os.close(failure_write)
    with os.fdopen(failure_read, "rb") as failure:
        # Ends with the program's start: the other end is closed by executing it.
        number = failure.read()
    if number:
        raise OSError(int(number), os.strerror(int(number)))
    return pid


def _become(
    argv: list[bytes], env: dict[bytes, bytes], stdout: int, stderr: int, guard: int
) -> NoReturn:
    """In the new process: default signals, no descriptor but 0, 1 and 2, then the program."""
    os.setpgid(0, 0)
    die_with_parent(guard)
    for number in (*_IGNORED, signal.SIGXFSZ):  # Python itself ignores the last
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    os.dup2(os.open("/dev/null", os.O_RDONLY), 0)
    os.dup2(stdout, 1)
    os.dup2(stderr, 2)
    os.execve(argv[0], argv, env)  # noqa: S606 - no shell is the point

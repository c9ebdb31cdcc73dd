"""Executing a program as a child of the guard or keeper that dies with it."""

from __future__ import annotations

import os
import resource
import signal

from dorad.launch.prctl import die_with_parent
from dorad.realtime.schedule import set_policy

TYPE_CHECKING = False
if TYPE_CHECKING:
    from dorad.realtime.schedule import Schedule

IGNORED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGPIPE)
"""What the parent ignores: it ends as agreed, not by being asked to."""
_MAX_CORES = 8192
"""More than Linux can be built for; a mask for any number would take memory to match."""
_OPEN_FILES, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
"""What programs get, whatever the parent allows itself later."""


class Pinned:
    """While entered, this process (and what it starts) runs on `cores` only."""

    def __init__(self, cores: tuple[int, ...]) -> None:
        self._cores = cores
        self._before: set[int] = set()
        self.skipped: tuple[int, ...] = ()
        """Those of the cores that do not exist or are not allowed here."""

    def __enter__(self) -> Pinned:
        if not self._cores:
            return self
        self._before = os.sched_getaffinity(0)
        usable = {core for core in self._cores if core < _MAX_CORES}
        try:
            os.sched_setaffinity(0, usable)
            usable &= os.sched_getaffinity(0)
        except OSError:
            # Not one of them is usable, so the process runs wherever its parent does.
            usable = set()
        self.skipped = tuple(core for core in self._cores if core not in usable)
        return self

    def __exit__(self, *_: object) -> None:
        if self._before:
            os.sched_setaffinity(0, self._before)


def execute(
    argv: list[bytes],
    env: dict[bytes, bytes],
    stdout: int,
    stderr: int,
    wanted: Schedule | None = None,
) -> tuple[int, int]:
    """Start a process in its own group; it dies with this one even if nobody else is left.

    That last is why this forks: posix_spawn cannot ask the kernel for it. Returns the pid,
    and why the process runs without the policy that is wanted, as errno; 0 if it does not.

    Raises:
        OSError: the program cannot be executed.
    """
    failure_read, failure_write = os.pipe()
    parent = os.getpid()
    try:
        pid = os.fork()
    except OSError:
        os.close(failure_read)
        os.close(failure_write)
        raise
    if pid == 0:
        try:
            _prepare(stdout, stderr, parent)
            if wanted is not None:
                os.write(failure_write, b"schedule %d " % _schedule(wanted))
            os.execve(argv[0], argv, env)  # noqa: S606 - no shell is the point
        except OSError as error:
            os.write(failure_write, b"failed %d" % (error.errno or 0))
        finally:
            os._exit(127)
    os.close(failure_write)
    with os.fdopen(failure_read, "rb") as failure:
        # Ends with the program's start: the other end is closed by executing it.
        words = failure.read().split()
    said = dict(zip(words[::2], map(int, words[1::2]), strict=True))
    if (number := said.get(b"failed")) is not None:
        raise OSError(number, os.strerror(number))
    return pid, said.get(b"schedule", 0)


def _prepare(stdout: int, stderr: int, parent: int) -> None:
    """In the new process: default signals, no descriptor but 0, 1 and 2 for the program."""
    os.setpgid(0, 0)
    die_with_parent(parent)
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(_OPEN_FILES, most), most))
    for number in (*IGNORED, signal.SIGXFSZ):  # Python itself ignores the last
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    os.dup2(os.open("/dev/null", os.O_RDONLY), 0)
    os.dup2(stdout, 1)
    os.dup2(stderr, 2)


def _schedule(wanted: Schedule) -> int:
    """In the new process, at the very end: be as urgent as wanted; 0, or errno if that is refused.

    The limit of locked memory is raised for the program, which locks it itself: what is locked now
    would not be after it is executed.
    """
    if wanted.lock_memory:
        try:
            unlimited = resource.RLIM_INFINITY
            resource.setrlimit(resource.RLIMIT_MEMLOCK, (unlimited, unlimited))
        except (OSError, ValueError):
            # Not allowed to: the program finds that out, and says what is missing.
            pass
    try:
        set_policy(wanted)
    except OSError as error:
        return error.errno or 0
    return 0

"""Start a program as a child process that dies with the process holder."""

from __future__ import annotations

import os
import resource
import signal

from dorad.launch.prctl import die_with_parent
from dorad.realtime.schedule import Schedule, set_policy

IGNORED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGPIPE)
"""Signals that the holder ignores: only its client, or the end of its client, ends it."""
_MAX_CORES = 8192
"""More than Linux supports. Bounds the memory of a mask of cores."""
_OPEN_FILES, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
"""The limit of open files that programs get, even if the holder raises its own later."""


class Pinned:
    """A context in which this process, and what it starts, runs on `cores` only."""

    def __init__(self, cores: tuple[int, ...]) -> None:
        self._cores = cores
        self._before: set[int] = set()
        self.skipped: tuple[int, ...] = ()
        """The cores that do not exist, or that this process may not use."""

    def __enter__(self) -> Pinned:
        if not self._cores:
            return self
        self._before = os.sched_getaffinity(0)
        usable = {core for core in self._cores if core < _MAX_CORES}
        try:
            os.sched_setaffinity(0, usable)
            usable &= os.sched_getaffinity(0)
        except OSError:
            # None of them is usable: the process runs on the cores of its parent.
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
    """Start a process in its own group; the kernel kills it when this process dies.

    posix_spawn cannot request that from the kernel, so this forks. Returns the pid, and the errno
    with which the kernel refused the `wanted` policy (0 if it did not).

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
            os.execve(argv[0], argv, env)
        except OSError as error:
            os.write(failure_write, b"failed %d" % (error.errno or 0))
        finally:
            os._exit(127)
    os.close(failure_write)
    with os.fdopen(failure_read, "rb") as failure:
        # Reads until the program starts: executing it closes the other end.
        words = failure.read().split()
    reported = dict(zip(words[::2], map(int, words[1::2]), strict=True))
    if (number := reported.get(b"failed")) is not None:
        raise OSError(number, os.strerror(number))
    return pid, reported.get(b"schedule", 0)


def _prepare(stdout: int, stderr: int, parent: int) -> None:
    """Prepare the new process: default signals, and only the descriptors 0, 1 and 2."""
    os.setpgid(0, 0)
    die_with_parent(parent)
    _, limit = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(_OPEN_FILES, limit), limit))
    for number in (*IGNORED, signal.SIGXFSZ):  # Python itself ignores SIGXFSZ
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    os.dup2(os.open("/dev/null", os.O_RDONLY), 0)
    os.dup2(stdout, 1)
    os.dup2(stderr, 2)


def _schedule(wanted: Schedule) -> int:
    """Set the policy of the new process as its last step; return 0, or errno if that is refused.

    Memory that is locked now would not stay locked when the program is executed. So this only
    raises the limit; the program locks its memory itself.
    """
    if wanted.lock_memory:
        try:
            unlimited = resource.RLIM_INFINITY
            resource.setrlimit(resource.RLIMIT_MEMLOCK, (unlimited, unlimited))
        except (OSError, ValueError):
            # Not permitted: the program notices, and reports what is missing.
            pass
    try:
        set_policy(wanted)
    except OSError as error:
        return error.errno or 0
    return 0

"""The processes that a holder has started: start, signal, reap and end them."""

from __future__ import annotations

import errno
import os
import signal

from dorad.launch.descendants import end_descendants
from dorad.launch.holder import wire
from dorad.launch.holder.execute import Pinned, execute
from dorad.procinfo import start_time
from dorad.realtime.schedule import Schedule

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence


class Child:
    """A process that was started on request. Other children are adopted orphans."""

    __slots__ = ("forgotten", "pid", "refused", "skipped", "started", "tag")

    def __init__(
        self, pid: int, started: int, tag: bytes, skipped: tuple[int, ...], refused: int
    ) -> None:
        self.pid = pid
        self.started = started
        """Clock ticks from boot to its start."""
        self.tag = tag
        self.skipped = skipped
        """Cores of its command that it cannot use."""
        self.refused = refused
        """The kernel's errno if it refused the scheduling policy, else 0."""
        self.forgotten = False
        """Whether its exit need not be kept for the next daemon."""


class Children:
    """All children of this process, which has to be a subreaper."""

    def __init__(self, on_exit: Callable[[Child, int], None]) -> None:
        """Call `on_exit` with each child that has ended, and its wait status."""
        self.running: dict[int, Child] = {}
        self._on_exit = on_exit

    def start(self, tag: bytes, fds: Sequence[int]) -> Child:
        """Start a process; `fds` are its packed command, its stdout and its stderr.

        Raises:
            SpawnFailedError: the kernel refuses.
        """
        stage = wire.STAGE_EXECUTE
        try:
            if len(fds) != 3:  # this process had no descriptors left to receive them
                raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
            command, stdout, stderr = fds
            data = os.pread(command, os.fstat(command).st_size, 0)
            argv, cwd, env, cores, schedule = wire.unpack_command(data)
            stage = wire.STAGE_FOLDER
            # This process has one thread, so it may lend the child its own folder and cores.
            os.chdir(cwd)
            stage = wire.STAGE_EXECUTE
            with Pinned(cores) as pinned:
                wanted = Schedule(*schedule) if schedule else None
                pid, refused = execute(argv, env, stdout, stderr, wanted)
        except OSError as error:
            raise wire.SpawnFailedError(stage, error.errno or 0) from error
        finally:
            os.chdir("/")
        # Not reaped yet, so it is in /proc even if it has ended.
        child = Child(pid, start_time(pid) or 0, tag, pinned.skipped, refused)
        self.running[pid] = child
        return child

    def signal(self, pid: int, number: int) -> None:
        """Send a signal to the process group of a child, if the child has not been reaped.

        Until then no other process can get its pid.
        """
        if pid in self.running:
            try:
                os.killpg(pid, number)
            except ProcessLookupError:  # it has joined another group
                os.kill(pid, number)
            except PermissionError:
                # The whole group runs as another user now: this process cannot end it.
                return

    def reap(self) -> None:
        """Reap every child that has ended, and kill what is left of its process group."""
        options = os.WEXITED | os.WNOHANG
        while True:
            try:
                # Kill before reaping: until it is reaped, the group keeps its number.
                ended = os.waitid(os.P_ALL, 0, options | os.WNOWAIT)
            except ChildProcessError:
                return
            if ended is None:
                return
            self.signal(ended.si_pid, signal.SIGKILL)
            self._reaped(*os.waitpid(ended.si_pid, 0))

    def end(self) -> None:
        """Kill and reap every descendant."""
        end_descendants(self._reaped)

    def _reaped(self, pid: int, status: int) -> None:
        child = self.running.pop(pid, None)
        if child is not None:
            self._on_exit(child, status)

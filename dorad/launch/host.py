"""What a daemon needs of the one that keeps its processes and descriptors while it is away."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from dorad.launch.helper import HelperHost
    from dorad.launch.model import Command, Exit
    from dorad.launch.spawner import Process


@dataclass(frozen=True, slots=True)
class KeptProcess:
    """A process that an earlier daemon started."""

    tag: str
    process: Process
    """Usable like one that was just started."""

    @property
    def pid(self) -> int:
        """Its pid; another process may have it by now if this one has ended."""
        return self.process.pid

    @property
    def started(self) -> int:
        """When it was started, in clock ticks since boot."""
        return self.process.started

    @property
    def exit(self) -> Exit | None:
        """How it ended; None while it runs."""
        return self.process.exit


class Host(Protocol):
    """A `Spawner` and an `FdStore` that outlives the daemon: a keeper, or systemd."""

    kept: list[KeptProcess]
    """The processes it had when we came, also those that have ended since it was last told to
    forget one."""
    units: bool
    """Whether processes are units of systemd's, which have users and limits of their own."""
    helpers: HelperHost
    """Starts helpers of the daemon."""
    died: bool
    """Whether it ended without having been told to, and every process with it."""
    on_died: Callable[[], None]
    """Called once it has died and every process that it had is known to be gone."""
    on_problem: Callable[[str], None]
    """Called with one line when descriptors cannot be kept."""

    async def spawn(
        self, command: Command, stdout_fd: int, stderr_fd: int, *, tag: str = ""
    ) -> Process:
        """Start `command`, as `Spawner.spawn`; what it was tagged with is in `KeptProcess.tag`."""

    def store(self, name: str, fds: Sequence[int]) -> None:
        """Keep duplicates, as `FdStore.store`."""

    def drop(self, name: str) -> None:
        """Keep these no longer, as `FdStore.drop`."""

    def take(self, prefix: str) -> dict[str, tuple[int, ...]]:
        """Return what it held when we came under names that begin so; the caller's from now on."""

    def forget(self, pid: int) -> None:
        """Forget the process that had this pid; one that still runs, as soon as it has ended.

        To be called when its end is written down; before, a next daemon is told of it again.
        """

    async def end_marked(self, mark: str, *, below_too: bool) -> int:
        """End processes that carry `mark` (see `orphans`) and that nobody looks after.

        Those the host has started itself, and what is below them, are spared unless `below_too`.
        Returns how many were ended.

        Raises:
            LaunchError: some cannot be ended.
        """

    async def stays(self) -> bool:
        """Return whether nodes are to go on when the daemon is told to end."""

    async def detach(self) -> None:
        """Let go: everything stays as it is, for the next daemon. Idempotent."""

    async def end(self) -> None:
        """End every process that is left, and keep nothing. Idempotent."""

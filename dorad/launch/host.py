"""The interface of a host, which keeps processes and descriptors while the daemon is away."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Protocol

from msgspec import Struct

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dorad.launch.helper import HelperHost
    from dorad.launch.model import Command, Exit
    from dorad.launch.spawner import Process


_log = logging.getLogger(__name__)


class FdStore(Protocol):
    """Keeps descriptors under names, for the next daemon."""

    def store(self, name: str, fds: Sequence[int]) -> None:
        """Keep duplicates of 1 to 3 descriptors; they replace those of the same name. Never blocks.

        Raises:
            ValueError: `name` has white space in it or is longer than 3000 bytes.
        """

    def drop(self, name: str) -> None:
        """Close the duplicates under this name, if there are any. Never blocks."""


class NoStore:
    """A store that keeps nothing: the descriptors of `dora run` end with it."""

    def store(self, name: str, fds: Sequence[int]) -> None:
        """Do nothing."""

    def drop(self, name: str) -> None:
        """Do nothing."""


class HostListener:
    """Learns what goes wrong with a host. This one only logs it."""

    def on_died(self) -> None:
        """Handle that the host has died and all its processes have ended."""

    def on_problem(self, text: str) -> None:
        """Handle one line about descriptors or states that the host cannot keep."""
        _log.warning(text)


class KeptProcess(Struct, frozen=True):
    """A process that an earlier daemon started."""

    tag: str
    process: Process
    """It works like a process that was just started."""

    @property
    def pid(self) -> int:
        """Its pid; if it has ended, another process may have this pid by now."""
        return self.process.pid

    @property
    def started(self) -> int:
        """Clock ticks from boot to its start."""
        return self.process.started

    @property
    def exit(self) -> Exit | None:
        """How it ended; None while it runs."""
        return self.process.exit


class Host(Protocol):
    """A `Spawner` and an `FdStore` that outlives the daemon: a process holder, or systemd."""

    kept: list[KeptProcess]
    """The processes it had when this daemon attached, including ended ones that were not
    forgotten."""
    units: bool
    """Whether processes are systemd units, which have their own users and limits."""
    helpers: HelperHost
    """Starts helpers of the daemon."""
    died: bool
    """Whether it, and every process with it, ended unexpectedly."""

    async def spawn(
        self, command: Command, stdout_fd: int, stderr_fd: int, *, tag: str = ""
    ) -> Process:
        """Start `command`, as `Spawner.spawn`. The next daemon gets `tag` in `KeptProcess.tag`."""

    def store(self, name: str, fds: Sequence[int]) -> None:
        """Keep duplicates, as `FdStore.store`."""

    def drop(self, name: str) -> None:
        """Close the duplicates, as `FdStore.drop`."""

    def take(self, prefix: str) -> dict[str, tuple[int, ...]]:
        """Return the descriptors of the last daemon with names that begin with `prefix`.

        The caller owns them from now on.
        """

    def forget(self, pid: int) -> None:
        """Forget the process with this pid: now, or as soon as it ends.

        Call it when the end of the process is stored. Before that, the next daemon gets it again.
        """

    async def end_marked(self, mark: str, *, below_too: bool) -> int:
        """End processes that carry `mark` (see `orphans`) and have no supervisor.

        Spares the processes of this host, and their descendants, unless `below_too`. Returns the
        number of processes ended.

        Raises:
            LaunchError: some cannot be ended.
        """

    async def stays(self) -> bool:
        """Return True if nodes keep running when the daemon is stopped."""

    async def detach(self) -> None:
        """Disconnect; leave everything to the next daemon. Idempotent."""

    async def end(self) -> None:
        """End every process that is left, and close all descriptors. Idempotent."""

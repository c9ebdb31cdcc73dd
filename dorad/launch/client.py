"""The guard as `dora run` sees it: start processes through it, signal them, learn how they end."""

from __future__ import annotations

from typing import TYPE_CHECKING, Self

from dorad.launch.model import Command, Exit, LaunchError

if TYPE_CHECKING:
    from types import TracebackType

__all__ = ["Command", "Exit", "Guard", "LaunchError", "Process"]


class Process:
    """A process of the run, leader of its own process group."""

    pid: int
    skipped_cores: tuple[int, ...]
    """Cores of `cpu_affinity` that this machine does not let it use."""

    @property
    def exit(self) -> Exit | None:
        """How it ended; None while it runs."""
        raise NotImplementedError

    async def wait(self) -> Exit:
        """How the process ended, when it has. May be called by several tasks, and again."""
        raise NotImplementedError

    def signal(self, sig: int) -> None:
        """Send `sig` to the whole process group; nothing happens after the process has ended."""
        raise NotImplementedError


class Guard:
    """Parent of all processes of a run, and their end.

    A separate small process. Whatever way this process or the guard dies, every process started
    through it is killed, with its descendants. Use: `async with Guard.start() as guard`.
    """

    @classmethod
    def start(cls) -> Guard:
        """Start the guard process; does not wait for it (it starts up beside the caller).

        Raises:
            LaunchError: it cannot be started.
        """
        raise NotImplementedError

    pid: int

    @property
    def died(self) -> bool:
        """Whether the guard ended before it was closed; every process is then killed too."""
        raise NotImplementedError

    async def spawn(self, command: Command, stdout_fd: int, stderr_fd: int) -> Process:
        """Start `command`. The descriptors stay the caller's to close, right after this.

        Raises:
            LaunchError: one line with what failed (the executable, the folder, the guard).
        """
        raise NotImplementedError

    async def close(self) -> None:
        """Kill everything that is left and wait until it is gone. Idempotent."""
        raise NotImplementedError

    async def __aenter__(self) -> Self:
        raise NotImplementedError

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

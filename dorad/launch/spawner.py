"""A process of a dataflow, and what starts one: a guard (it dies with us) or a keeper."""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable

    from dorad.launch.model import Command, Exit


class Spawner(Protocol):
    """Starts processes."""

    async def spawn(
        self, command: Command, stdout_fd: int, stderr_fd: int, *, tag: str = ""
    ) -> Process:
        """Start `command`. The descriptors stay the caller's to close, right after this.

        A keeper tells the next daemon `tag` (no white space, up to 3000 bytes) with the process.

        Raises:
            LaunchError: one line with what failed (the executable, the folder, the guard).
        """


class Process:
    """A process that was asked for, leader of its own process group."""

    def __init__(
        self,
        pid: int,
        started: int,
        signal: Callable[[Process, int], None],
        skipped_cores: tuple[int, ...] = (),
        refused: int = 0,
    ) -> None:
        self.pid = pid
        self.started = started
        """When, in clock ticks since boot; tells it from all others with the same pid."""
        self.skipped_cores = skipped_cores
        """Cores of `cpu_affinity` that this machine does not let it use."""
        self.refused = refused
        """Why it does not run as the command's schedule asks, as errno; 0: it does."""
        self.unit: str | None = None
        """systemd's unit of it, if it has one."""
        self.control_group: str | None = None
        """The unit's control group, in which all that it starts stays."""
        self.uid = os.getuid()
        """The user it runs as."""
        self.left_out: tuple[str, ...] = ()
        """Keys of the node that only systemd could have seen to."""
        self._send_signal = signal
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
            self._send_signal(self, sig)

    def set_exit(self, how: Exit) -> None:
        """Take note of the end; for those who start processes."""
        self._exit = how
        self._ended.set()

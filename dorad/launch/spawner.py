"""A process of a dataflow, and the interface of its spawner: a process holder, or systemd."""

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
        """Start `command`. The caller closes its descriptors right after this returns.

        The next daemon gets `tag` (no white space, up to 3000 bytes) with the process.

        Raises:
            LaunchError: one line with what failed (the executable, the folder, the holder).
        """


class Process:
    """A process that was started on request, the leader of its own process group."""

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
        """Clock ticks from boot to its start; another process with its pid has another value."""
        self.skipped_cores = skipped_cores
        """Cores of `cpu_affinity` that it cannot use on this machine."""
        self.refused = refused
        """The kernel's errno if it refused the command's schedule, else 0."""
        self.unit: str | None = None
        """Its systemd unit; None if it has none."""
        self.control_group: str | None = None
        """The unit's control group, which its descendants cannot leave."""
        self.uid = os.getuid()
        """The user it runs as."""
        self.left_out: tuple[str, ...] = ()
        """Keys of the node that were ignored because only systemd can apply them."""
        self._send_signal = signal
        self._exit: Exit | None = None
        self._ended = asyncio.Event()

    @property
    def exit(self) -> Exit | None:
        """How it ended; None while it runs."""
        return self._exit

    async def wait(self) -> Exit:
        """Wait for the process to end, and return how it did. Any task may call it, repeatedly."""
        while self._exit is None:
            await self._ended.wait()
        return self._exit

    def signal(self, sig: int) -> None:
        """Send `sig` to the whole process group; do nothing once the process has ended."""
        if self._exit is None:
            self._send_signal(self, sig)

    def set_exit(self, how: Exit) -> None:
        """Record how it ended and wake the waiting tasks; only its spawner calls this."""
        self._exit = how
        self._ended.set()

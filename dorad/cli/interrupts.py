"""What Ctrl-C, SIGTERM and SIGHUP do to a run: ask, then kill, then leave."""

from __future__ import annotations

import os
import signal
import threading
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

EXIT_ABANDONED = 1


class Stoppable(Protocol):
    """A run, as far as signals act on it."""

    def stop(self) -> None:
        """Ask every node to end."""

    def kill(self, why: str) -> None:
        """Kill every node."""

    def abandon(self) -> None:
        """Prepare for the end of this process."""


class Interrupts:
    """Counts the signals that ask a run to end. The holder ends what an aborted run leaves."""

    def __init__(
        self, run: Stoppable, tell: Callable[[str], None], leave: Callable[[int], None] = os._exit
    ) -> None:
        self._run = run
        self._tell = tell
        self._leave = leave
        self._count = 0

    def install(self, loop: asyncio.AbstractEventLoop) -> None:
        """Handle the signals from now on. SIGHUP stays ignored under `nohup`.

        Only the main thread can; a run in another is stopped by who started it.
        """
        if threading.current_thread() is not threading.main_thread():
            return
        signals = [signal.SIGINT, signal.SIGTERM]
        if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
            signals.append(signal.SIGHUP)
        for number in signals:
            loop.add_signal_handler(number, self.interrupt)

    def interrupt(self) -> None:
        """Take the next step."""
        self._count += 1
        if self._count == 1:
            self._run.stop()
            self._tell("stopping; Ctrl-C again kills the nodes at once")
        elif self._count == 2:
            self._run.kill("was killed because a second interrupt asked for it")
            self._tell("killing the nodes; Ctrl-C again leaves without waiting for them")
        else:
            self._run.abandon()
            self._leave(EXIT_ABANDONED)

"""Ctrl-C, SIGTERM and SIGHUP: stop a run, then kill it, then exit; or end a recording."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Iterator

    from dorad.cli.attach import Attached
    from dorad.daemon.run import DataflowRun

EXIT_ABANDONED = 1


class Interrupts:
    """A signal handler that escalates with each signal. The holder ends nodes left running."""

    def __init__(
        self,
        run: DataflowRun | Attached,
        report: Callable[[str], None],
        leave: Callable[[int], None] = os._exit,
    ) -> None:
        self._run = run
        self._report = report
        self._leave = leave
        self._count = 0

    def install(self, loop: asyncio.AbstractEventLoop) -> None:
        """Handle the signals from now on. SIGHUP stays ignored under `nohup`.

        Only the main thread can handle signals. A run in another thread is stopped by its caller.
        """
        if threading.current_thread() is not threading.main_thread():
            return
        signals = [signal.SIGINT, signal.SIGTERM]
        if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
            signals.append(signal.SIGHUP)
        for number in signals:
            loop.add_signal_handler(number, self.interrupt)

    def interrupt(self) -> None:
        """Stop at the first call, kill at the second, exit at the third."""
        self._count += 1
        if self._count == 1:
            self._run.stop()
            self._report("stopping; Ctrl-C again kills the nodes at once")
        elif self._count == 2:
            self._run.kill("was killed because a second interrupt asked for it")
            self._report("killing the nodes; Ctrl-C again exits without waiting for them")
        else:
            self._run.abandon()
            self._leave(EXIT_ABANDONED)


def from_thread(loop: asyncio.AbstractEventLoop, stop: Callable[[], None]) -> Callable[[], None]:
    """Return a function that stops a run in `loop`, for any thread."""

    def call() -> None:
        with contextlib.suppress(RuntimeError):  # the loop has ended: nothing is left to stop
            loop.call_soon_threadsafe(stop)

    return call


@contextlib.contextmanager
def stop_signals(stop: Callable[[str], object]) -> Iterator[None]:
    """Call `stop` with "Ctrl-C" or "SIGTERM" for each such signal, until the block ends."""
    before = {}
    for number in (signal.SIGINT, signal.SIGTERM):
        name = "Ctrl-C" if number == signal.SIGINT else "SIGTERM"
        before[number] = signal.signal(number, lambda *_, why=name: stop(why))
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)

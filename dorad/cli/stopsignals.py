"""Ctrl-C and SIGTERM, for commands that clean up before they end."""

from __future__ import annotations

import contextlib
import signal
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


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

"""Who waits for events of a node: a thread, or a task of an event loop."""

from __future__ import annotations

import contextlib
import os
import threading
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable


class Waiter:
    """A waiting thread. When `asked` to stop leading, it does so and then sets `left`."""

    sleeping = False

    def __init__(self) -> None:
        self.asked = False
        self.thread = threading.get_ident()
        self.left = threading.Event()
        self.woken = threading.Event()

    def wake(self) -> None:
        """Wake the waiter, from any thread."""
        self.woken.set()

    def clear(self) -> None:
        """Reset the wake-up."""
        self.woken.clear()


class TaskWaiter(Waiter):
    """A waiting task. While it is `sleeping` at the doorbell, another waiter may replace it."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__()
        self.loop = loop
        self._future: asyncio.Future[None] | None = None
        self._woken = False

    def wake(self) -> None:
        """Wake the waiter, from any thread."""
        # A closed loop has no tasks left to wake.
        with contextlib.suppress(RuntimeError):
            self.loop.call_soon_threadsafe(self.wake_here)

    def wake_here(self) -> None:
        """Wake the waiter, from its own thread."""
        self._woken = True
        if self._future is not None and not self._future.done():
            self._future.set_result(None)

    def clear(self) -> None:
        """Reset the wake-up."""
        self._woken = False

    async def sleep(self, seconds: float | None) -> None:
        """Sleep until woken, up to `seconds`."""
        if self._woken:
            return
        future = self._future = self.loop.create_future()
        timer = None
        if seconds is not None:
            timer = self.loop.call_later(max(0.0, seconds), self.wake_here)
        try:
            await future
        finally:
            self._future = None
            if timer is not None:
                timer.cancel()


class Watch:
    """Duplicates of descriptors, watched by an event loop.

    Duplicates, because an event loop has only one reader per descriptor number.
    """

    def __init__(self, loop: Any, descriptors: tuple[int, ...], call: Callable[[], None]) -> None:
        self._loop = loop
        self._own = [os.dup(descriptor) for descriptor in descriptors]
        for descriptor in self._own:
            loop.add_reader(descriptor, call)

    def end(self) -> None:
        """Stop watching and close the duplicates."""
        for descriptor in self._own:
            self._loop.remove_reader(descriptor)
            os.close(descriptor)

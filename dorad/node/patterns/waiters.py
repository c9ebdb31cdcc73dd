"""Those who wait for an answer: a thread, or a task of an event loop."""

from __future__ import annotations

import contextlib
import os
import threading
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable


class Waiter:
    """A thread that waits. `asked` to give way, it sets `left` when it has."""

    sleeping = False

    def __init__(self) -> None:
        self.asked = False
        self.thread = threading.get_ident()
        self.left = threading.Event()
        self.woken = threading.Event()

    def wake(self) -> None:
        """Let it look again; from any thread."""
        self.woken.set()

    def clear(self) -> None:
        """Forget that it was woken."""
        self.woken.clear()


class TaskWaiter(Waiter):
    """A task that waits. While it is `sleeping` at the doorbell, others may just take its place."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__()
        self._loop = loop
        self._future: asyncio.Future[None] | None = None
        self._woken = False

    def wake(self) -> None:
        """Let it look again; from any thread."""
        # A loop that is closed has no tasks any more.
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self.wake_here)

    def wake_here(self) -> None:
        """Let it look again; from its own thread."""
        self._woken = True
        if self._future is not None and not self._future.done():
            self._future.set_result(None)

    def clear(self) -> None:
        """Forget that it was woken."""
        self._woken = False

    async def sleep(self, seconds: float | None) -> None:
        """Wait until woken, or for so long."""
        if self._woken:
            return
        future = self._future = self._loop.create_future()
        timer = None
        if seconds is not None:
            timer = self._loop.call_later(max(0.0, seconds), self.wake_here)
        try:
            await future
        finally:
            self._future = None
            if timer is not None:
                timer.cancel()


class Watch:
    """Descriptors that an event loop watches under numbers of their own.

    So it interferes with nobody else who watches the same ones.
    """

    def __init__(self, loop: Any, descriptors: tuple[int, ...], call: Callable[[], None]) -> None:
        self._loop = loop
        self._own = [os.dup(descriptor) for descriptor in descriptors]
        for descriptor in self._own:
            loop.add_reader(descriptor, call)

    def end(self) -> None:
        """Watch no more."""
        for descriptor in self._own:
            self._loop.remove_reader(descriptor)
            os.close(descriptor)

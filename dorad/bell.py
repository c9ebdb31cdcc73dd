"""A condition variable for one event loop: tasks wait until something has changed."""

from __future__ import annotations

import asyncio
from collections.abc import Callable


class Bell:
    """Wakes all tasks that wait for a change. Belongs to one event loop."""

    def __init__(self) -> None:
        self._event = asyncio.Event()

    @property
    def next(self) -> asyncio.Event:
        """The event that the next ring sets: one who takes it before looking misses none."""
        return self._event

    def ring(self) -> None:
        """Wake all tasks that wait now."""
        self._event.set()
        self._event = asyncio.Event()

    async def wait(self, seconds: float | None = None) -> bool:
        """Wait for the next ring; return False after `seconds` without one."""
        try:
            async with asyncio.timeout(seconds):
                return await self._event.wait()
        except TimeoutError:
            return False

    async def until(self, holds: Callable[[], object], seconds: float | None = None) -> bool:
        """Wait until `holds()` is true, checked at each ring; return False after `seconds`."""
        try:
            async with asyncio.timeout(seconds):
                while not holds():
                    await self._event.wait()
        except TimeoutError:
            return bool(holds())
        return True

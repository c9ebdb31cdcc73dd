"""Throttled storing of a state that changes in bursts."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

PAUSE_FACTOR = 4
"""Pause after storing, as a multiple of the time that storing took. Storing a large dataflow takes
milliseconds, and each start and stop brings a burst of changes."""


class StoreThrottle:
    """Calls `store` after changes: at once, but for at most a fifth of the time.

    Many changes may share one call. Belongs to one event loop.
    """

    def __init__(self, store: Callable[[], None]) -> None:
        self._store = store
        self._next_at = 0.0
        """When `store` may be called again, on the monotonic clock."""
        self._timer: asyncio.TimerHandle | None = None
        """Set while changes wait for `_next_at`."""

    def changed(self) -> None:
        """Call `store` now, or once the pause is over."""
        if self._timer is not None:
            return
        if time.monotonic() >= self._next_at:
            self.store_now()
        else:
            self._timer = asyncio.get_running_loop().call_at(self._next_at, self.store_now)

    def store_now(self) -> None:
        """Call `store` now, whether or not the pause is over."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        started_at = time.monotonic()
        self._store()
        ended_at = time.monotonic()
        self._next_at = ended_at + PAUSE_FACTOR * (ended_at - started_at)

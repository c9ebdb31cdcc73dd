"""Throttled storing of a state that changes in bursts."""

import asyncio
import time
from collections.abc import Callable

PAUSE_FACTOR = 4
"""Pause after storing, as a multiple of the time that storing took. Storing a large dataflow takes
milliseconds, and each start and stop brings a burst of changes."""


class Changes:
    """Takes notice of changes of a state. This one stores nothing: a run without a daemon."""

    def changed(self) -> None:
        """Store the state soon."""

    def when_stored(self, call: Callable[[], None]) -> None:
        """Call `call` once all changes are stored of which `changed` knows.

        For packets that nodes cannot take back: a daemon killed after such a packet must have
        stored why it was sent.
        """
        call()


class StoreThrottle(Changes):
    """Calls `store` after changes: soon, but for at most a fifth of the time.

    Many changes may share one call. It comes only after the event loop's callback that made the
    change, since a change in the middle of others leaves a state that no daemon could continue: a
    node with a result that still counts as running. Belongs to one event loop.
    """

    def __init__(self, store: Callable[[], None]) -> None:
        self._store = store
        self._next_at = 0.0
        """When `store` may be called again, on the monotonic clock."""
        self._timer: asyncio.TimerHandle | None = None
        """Set while changes wait to be stored."""
        self._waiting: list[Callable[[], None]] = []
        self._closed = False

    def changed(self) -> None:
        """Call `store` after the current callback, or once the pause is over."""
        if self._timer is None and not self._closed:
            self._timer = asyncio.get_running_loop().call_at(self._next_at, self._store_now)

    def when_stored(self, call: Callable[[], None]) -> None:
        """Call `call` after the next call of `store`; at once if no change waits for one."""
        if self._timer is None:
            call()
        else:
            self._waiting.append(call)

    def close(self) -> None:
        """Call `store` a last time."""
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()
        self._store_now()

    def _store_now(self) -> None:
        self._timer = None
        started_at = time.monotonic()
        self._store()
        ended_at = time.monotonic()
        self._next_at = ended_at + PAUSE_FACTOR * (ended_at - started_at)
        waiting, self._waiting = self._waiting, []
        for call in waiting:
            call()

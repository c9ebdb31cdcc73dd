"""The streams of a screen, which are read only while it is shown."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Coroutine

    from dorafleet.console.link.streams import Feed


class Feeds:
    """Starts and stops the streams of one screen together."""

    def __init__(
        self,
        make: Callable[[], list[Feed[Any]]],
        in_background: Callable[[Coroutine[Any, Any, None]], asyncio.Task[None]],
    ) -> None:
        """`make` returns the streams by what the screen wants now."""
        self._make = make
        self._in_background = in_background
        self._all: list[Feed[Any]] = []
        self._running: list[asyncio.Task[None]] = []
        self.paused = False

    def __bool__(self) -> bool:
        return bool(self._all)

    @property
    def error(self) -> str:
        """Why a stream brings nothing; empty if all do."""
        return next((feed.error for feed in self._all if feed.error), "")

    @property
    def problem(self) -> str:
        """The code of that error; empty if there is none."""
        return next((feed.problem for feed in self._all if feed.error), "")

    def resume(self) -> None:
        """Read, unless the operator has paused."""
        if not self._all:
            self._all = self._make()
        if not self.paused and not self._running:
            self._running = [self._in_background(feed.follow()) for feed in self._all]

    def stop(self) -> None:
        """Stop reading. What has been read by now is kept; connections close in the background."""
        # Forget them now, before they have ended: `resume` starts none while it knows of one.
        for task in self._running:
            task.cancel()
        self._running = []

    def restart(self) -> None:
        """Open the streams again, because their parameters have changed."""
        self.stop()
        self._all = []
        self.resume()

    def pause(self) -> None:
        """Stop the streams, or resume them."""
        self.paused = not self.paused
        if self.paused:
            self.stop()
        else:
            self.resume()

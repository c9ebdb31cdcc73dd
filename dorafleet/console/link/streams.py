"""A stream for a screen: a connection of its own, only while the screen is looked at."""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from dorad.control.errors import ControlError

if TYPE_CHECKING:
    from collections.abc import Callable

    from dorad.control.asyncclient import AsyncClient, AsyncStream
    from dorafleet.console.link.server import Server

T = TypeVar("T")

RETRY_S = 1.0
"""Pause before a stream that ended is opened again."""

_FINAL = ("not-found", "ambiguous", "bad-request", "refused", "unknown-method", "unsupported")
"""Errors that another attempt does not mend."""

_log = logging.getLogger(__name__)


class Feed(Generic[T]):
    """Passes the events of a stream to a function, and opens the stream again when it is lost."""

    def __init__(
        self,
        server: Server,
        opened: Callable[[AsyncClient], AsyncStream[T]],
        take: Callable[[T], Any],
        *,
        again: bool = True,
    ) -> None:
        """`opened` requests the stream, again after each loss; `take` gets each event.

        Without `again`, a stream that ends regularly is not opened again.
        """
        self._server = server
        self._opened = opened
        self._take = take
        self._again = again
        self._task: asyncio.Task[None] | None = None
        self.error = ""
        """Why there are no events; empty while there are."""
        self.problem = ""
        """The code of that error; empty if it has none."""
        self.ended = False
        """Whether the stream has ended regularly."""

    @property
    def running(self) -> bool:
        """Whether it is being read."""
        return self._task is not None

    def start(self) -> None:
        """Read in the background; starting twice does nothing."""
        if self._task is None:
            self._task = asyncio.create_task(self._run(), name="feed")

    async def stop(self) -> None:
        """End the stream and its connection."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task

    async def _run(self) -> None:
        while True:
            try:
                await self._read()
                if not self._again:
                    self.ended = True
                    return
            except ControlError as error:
                self.error = error.message + (f" ({error.hint})" if error.hint else "")
                self.problem = error.code
                _log.debug("a stream ends: %s", error)
                if error.code in _FINAL and error.code != "not-found":
                    return
            except OSError as error:
                self.error, self.problem = str(error), ""
            await asyncio.sleep(RETRY_S)

    async def _read(self) -> None:
        client = await self._server.connect()
        try:
            async with self._opened(client) as events:
                async for event in events:
                    self.error, self.ended = "", False
                    self._take(event)
        finally:
            await client.close()

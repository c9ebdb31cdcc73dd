"""A stream for a screen: its own connection, only while the screen is shown."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, aclosing, asynccontextmanager
from typing import Any, Generic, TypeVar

from dorad.control.asyncclient import AsyncClient
from dorad.control.errors import ControlError
from dorad.control.messages.method import CallMethod, P, R
from dorafleet.console.link.server import Server

T = TypeVar("T")

RETRY_S = 1.0
"""Pause before a stream that ended is opened again."""

_FINAL = ("ambiguous", "bad-request", "refused", "unknown-method", "unsupported")
"""Errors that another attempt does not mend."""

_log = logging.getLogger(__name__)


@asynccontextmanager
async def polled(
    ask: Callable[[], Awaitable[T]], every: float
) -> AsyncGenerator[AsyncIterator[T], None]:
    """Return answers as a stream, for what the server offers no stream of.

    `ask` is called again `every` seconds after its last answer.
    """

    async def answers() -> AsyncGenerator[T, None]:
        while True:
            yield await ask()
            await asyncio.sleep(every)

    async with aclosing(answers()) as polls:
        yield polls


def polling(
    server: Server, method: CallMethod[P, R], params: P, every: float, take: Callable[[R], Any]
) -> Feed[R]:
    """Return a feed of the answers of a method, which is called again `every` seconds."""
    return Feed(server, lambda client: polled(lambda: client.call(method, params), every), take)


class Feed(Generic[T]):
    """Passes the events of a stream to a function, and opens the stream again when it is lost."""

    def __init__(
        self,
        server: Server,
        opened: Callable[[AsyncClient], AbstractAsyncContextManager[AsyncIterator[T]]],
        take: Callable[[T], Any],
        enough: Callable[[], bool] = lambda: False,
    ) -> None:
        """`opened` requests the stream, again after each loss; `take` gets each event.

        Once `enough` returns True after an event, the stream ends for good.
        """
        self._server = server
        self._opened = opened
        self._take = take
        self._enough = enough
        self.error = ""
        """Why there are no events; empty while there are."""
        self.problem = ""
        """The code of that error; empty if it has none."""

    async def follow(self) -> None:
        """Read until it is enough, or until an error that another attempt does not mend."""
        while not self._enough():
            try:
                await self._read()
            except ControlError as error:
                self.error = error.message + (f" ({error.hint})" if error.hint else "")
                self.problem = error.code
                _log.debug("a stream ends: %s", error)
                if error.code in _FINAL:
                    return
            except OSError as error:
                self.error, self.problem = str(error), ""
            await asyncio.sleep(RETRY_S)

    async def _read(self) -> None:
        client = await self._server.connect()
        try:
            async with self._opened(client) as events:
                async for event in events:
                    self.error = ""
                    self._take(event)
                    if self._enough():
                        return
        finally:
            await client.close()

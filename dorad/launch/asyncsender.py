"""A `SendQueue` that an asyncio event loop flushes."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from dorad.launch.transport import SendQueue

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable

_log = logging.getLogger(__name__)


class AsyncSender(SendQueue):
    """Sends data with descriptors over a non-blocking socket; the event loop sends the backlog.

    Needs an event loop only while there is a backlog.
    """

    def __init__(self, sock: socket.socket, on_error: Callable[[OSError], None]) -> None:
        """Call `on_error` when the backlog cannot be sent; it stays until `clear`."""
        super().__init__(sock, self._follow_backlog)
        self._on_error = on_error
        self._drained = asyncio.Event()
        self._drained.set()

    async def drained(self) -> None:
        """Return when nothing waits to be sent."""
        await self._drained.wait()

    def _follow_backlog(self, begins: bool) -> None:
        _log.debug("socket %d: %s", self._sock.fileno(), "backlog" if begins else "no backlog")
        loop = asyncio.get_running_loop()
        if begins:
            self._drained.clear()
            loop.add_writer(self._sock, self._flush_now)
        else:
            loop.remove_writer(self._sock)
            self._drained.set()

    def _flush_now(self) -> None:
        try:
            self.flush()
        except OSError as error:
            self._on_error(error)

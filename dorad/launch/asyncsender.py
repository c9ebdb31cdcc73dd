"""A `SendQueue` that an asyncio event loop flushes."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from dorad.launch.transport import SendQueue

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Sequence

_log = logging.getLogger(__name__)


class AsyncSender:
    """Sends data with descriptors over a non-blocking socket; the event loop sends the backlog.

    Needs an event loop only while there is a backlog.
    """

    def __init__(self, sock: socket.socket, on_error: Callable[[OSError], None]) -> None:
        """Call `on_error` when the backlog cannot be sent; it stays until `clear`."""
        self._sock = sock
        self._on_error = on_error
        self._queue = SendQueue(sock, self._on_backlog)
        self._drained = asyncio.Event()
        self._drained.set()

    def try_send(self, packet: bytes) -> bool:
        """Send a packet now; return False if it would have to wait. Raises OSError."""
        return self._queue.try_send(packet)

    def send(self, data: bytes, fds: Sequence[int] = ()) -> None:
        """Send now or, with duplicates of the descriptors, as soon as the socket takes it.

        Raises:
            OSError: the peer has closed its end, or no descriptor is left for a duplicate.
        """
        self._queue.send(data, fds)

    async def drained(self) -> None:
        """Return when nothing waits to be sent."""
        await self._drained.wait()

    def clear(self) -> None:
        """Discard what waits to be sent. Idempotent."""
        self._queue.clear()

    def _on_backlog(self, begins: bool) -> None:
        _log.debug("socket %d: %s", self._sock.fileno(), "backlog" if begins else "no backlog")
        loop = asyncio.get_running_loop()
        if begins:
            self._drained.clear()
            loop.add_writer(self._sock, self._flush)
        else:
            loop.remove_writer(self._sock)
            self._drained.set()

    def _flush(self) -> None:
        try:
            self._queue.flush()
        except OSError as error:
            self._on_error(error)

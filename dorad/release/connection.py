"""Receive a release over a WebSocket: on a robot, and where a coordinator keeps releases."""

from __future__ import annotations

import asyncio
import logging
import socket
from contextlib import suppress
from typing import TYPE_CHECKING

from websockets.exceptions import ConnectionClosed

from dorad.release.receive import Destination, M, Receiver

if TYPE_CHECKING:
    from collections.abc import Callable

    from websockets.asyncio.connection import Connection


MESSAGE = 64 << 10
"""Bytes of one message."""

_log = logging.getLogger(__name__)


async def receive_over(
    connection: Connection,
    destination: Destination[M],
    *,
    rate: float | None = None,
    on_received: Callable[[int], None] = lambda _: None,
) -> str:
    """Receive one release over a connection, and return its id.

    At most `rate` bytes a second are read; None sets no bound. `on_received` is called with the
    bytes of each message. If it is cancelled, or the
    connection ends, what has arrived is kept, and nothing more is written after that.

    Raises:
        ReleaseError: it is refused, or not complete; the sender has the reason.
        SenderLostError: the sender is gone.
        OSError: of the disk.
    """
    ours, theirs = socket.socketpair()
    with theirs:
        reader, writer = await asyncio.open_connection(sock=ours)
        receiver = Receiver(destination, theirs.fileno(), theirs.fileno())
        working = asyncio.create_task(asyncio.to_thread(receiver.run))
        down = asyncio.create_task(_down(connection, writer, rate, on_received))
        up = asyncio.create_task(_up(reader, connection))
        try:
            return await asyncio.shield(working)
        finally:
            # The receiver's last answer is on its way until its end is closed.
            with suppress(OSError):
                theirs.shutdown(socket.SHUT_WR)
            if working.done():
                await asyncio.wait({up}, timeout=1.0)
            for task in (down, up):
                task.cancel()
            writer.close()
            # Its descriptor must not be used again before the thread has ended.
            await asyncio.wait({working, down, up})
            if not working.cancelled() and working.exception() is not None:
                _log.debug("the receiver has ended: %s", working.exception())


async def _down(
    connection: Connection,
    writer: asyncio.StreamWriter,
    rate: float | None,
    on_received: Callable[[int], None],
) -> None:
    """Give the receiver what arrives, as fast as it takes it; end it when the connection ends."""
    try:
        async for message in connection:
            if isinstance(message, str):
                break
            on_received(len(message))
            writer.write(message)
            await writer.drain()
            if rate is not None:
                await asyncio.sleep(len(message) / rate)
    except (ConnectionClosed, OSError) as error:
        _log.debug("the connection for files has ended: %s", error)
    finally:
        writer.close()


async def _up(reader: asyncio.StreamReader, connection: Connection) -> None:
    """Send what the receiver answers."""
    with suppress(ConnectionClosed, OSError):
        while answer := await reader.read(MESSAGE):
            await connection.send(answer)

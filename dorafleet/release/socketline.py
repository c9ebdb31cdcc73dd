"""The line over a WebSocket: one that a robot has opened, or one to a coordinator."""

from __future__ import annotations

import asyncio
import logging
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import TYPE_CHECKING

from websockets.exceptions import ConnectionClosed

from dorad.control.errors import ControlError
from dorafleet.ssh.errors import Code, SshError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from websockets.asyncio.connection import Connection

    from dorafleet.inventory.model import Machine
    from dorafleet.release.transfer import OpenLine
    from dorafleet.release.upload import Line

    Connect = Callable[[str], AbstractAsyncContextManager[Connection]]
    """Returns a connection with a machine, given by its id. Raises ControlError."""

RATE = 32 << 20
"""Bytes a second to one machine."""
ANSWERS_RATE = 4 << 20
"""Bytes a second that are read of one machine: its offer, and how much has arrived."""
MESSAGE = 64 << 10
"""Bytes of one message: heartbeats of other connections come in between."""
MAX_WAITING = 64 << 20
"""Bytes that wait to be sent: a manifest, and the pieces that may be ahead."""

_log = logging.getLogger(__name__)


def lines_over(connect: Connect) -> OpenLine:
    """Return what opens lines over these connections."""

    @asynccontextmanager
    async def lines(machine: Machine) -> AsyncIterator[Line]:
        try:
            async with connect(machine.id) as connection:
                line = SocketLine(connection)
                sending = asyncio.create_task(line.run(), name=f"files to {machine.id}")
                try:
                    yield line
                finally:
                    sending.cancel()
                    await asyncio.wait({sending})
        except ControlError as error:
            lost = error.code in ("unavailable", "deadline", "busy")
            code = Code.UNREACHABLE if lost else Code.FAILED
            raise SshError(code, error.message, error.hint) from error

    return lines


class SocketLine:
    """See `dorafleet.release.upload.Line`."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._out = bytearray()
        self._more = asyncio.Event()
        self._in = bytearray()

    def write(self, content: bytes) -> None:
        """Send bytes, without waiting. Raises OSError if too many wait."""
        if len(self._out) + len(content) > MAX_WAITING:
            raise BlockingIOError("the other end takes nothing")
        self._out += content
        self._more.set()

    async def readexactly(self, size: int) -> bytes:
        """Return so many bytes. Raises asyncio.IncompleteReadError at the end."""
        while len(self._in) < size:
            try:
                message = await self._connection.recv()
            except ConnectionClosed:
                raise asyncio.IncompleteReadError(bytes(self._in), size) from None
            if isinstance(message, str):
                raise asyncio.IncompleteReadError(bytes(self._in), size)
            self._in += message
            await asyncio.sleep((len(message) + 1024) / ANSWERS_RATE)
        content = bytes(self._in[:size])
        del self._in[:size]
        return content

    async def why_ended(self) -> SshError:
        """Return why there are no more bytes."""
        reason = self._connection.close_reason
        text = "the other end has closed the connection for files"
        return SshError(Code.LOST, f"{text}: {reason[:300]}" if reason else text)

    async def run(self) -> None:
        """Send what is written, not faster than `RATE`, until the connection ends."""
        try:
            while True:
                await self._more.wait()
                part = bytes(self._out[:MESSAGE])
                del self._out[: len(part)]
                if not self._out:
                    self._more.clear()
                await self._connection.send(part)
                await asyncio.sleep(len(part) / RATE)
        except ConnectionClosed as error:
            _log.debug("a connection for files has ended: %s", error)

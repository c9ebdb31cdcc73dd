"""Connections for files that robots open where SSH cannot reach them, each when it is asked to.

They are not those of the robots' agents: heartbeats and orders do not wait behind files.
"""

import asyncio
import hmac
import logging
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import NamedTuple

from websockets.asyncio.server import ServerConnection

from dorad.control.errors import ControlError
from dorad.control.messages.agent import AGENT_FETCH, FILES_TICKET, FilesFetch
from dorad.control.peer import Peer
from dorafleet.coordinator.robots import Robots

OPEN_S = 30.0
"""Seconds that a robot has to open a connection."""

_log = logging.getLogger(__name__)


class _Expected(NamedTuple):
    ticket: str
    connection: asyncio.Future[ServerConnection]


class FileConnections:
    """Gives each connection to the transfer that has asked for it, and refuses all others."""

    def __init__(self, robots: Robots) -> None:
        self._robots = robots
        self._expected: dict[str, _Expected] = {}

    @asynccontextmanager
    async def open(self, robot: str, release: str) -> AsyncIterator[ServerConnection]:
        """Ask a robot for a connection for the files of a release that it was ordered.

        Raises:
            ControlError: it cannot be reached, refuses, or does not connect.
        """
        if robot in self._expected:
            raise ControlError("busy", f"robot `{robot}` is asked for a connection already")
        ticket = secrets.token_hex(16)
        opened: asyncio.Future[ServerConnection] = asyncio.get_running_loop().create_future()
        self._expected[robot] = _Expected(ticket, opened)
        try:
            async with asyncio.timeout(OPEN_S):
                params = FilesFetch(release=release, ticket=ticket)
                await self._robots.call(robot, AGENT_FETCH, params)
                connection = await opened
        except TimeoutError:
            raise ControlError(
                "unavailable", f"it has opened no connection for files within {OPEN_S:g} s"
            ) from None
        finally:
            del self._expected[robot]
            opened.cancel()
        _log.debug("robot `%s` has opened a connection for files", robot)
        try:
            yield connection
        finally:
            await connection.close()

    async def accept(self, connection: ServerConnection, peer: Peer) -> None:
        """Take a connection of a robot, and keep it open until its transfer has ended."""
        expected = self._expected.get(peer.name)
        request = connection.request
        given = "" if request is None else request.headers.get(FILES_TICKET, "")
        if (
            expected is None
            or expected.connection.done()
            or not hmac.compare_digest(given.encode(), expected.ticket.encode())
        ):
            robot = self._robots.find(peer.name)
            if robot is not None:
                robot.unasked += 1
                self._robots.changed(robot)
            _log.warning(
                "refused a connection for files of robot `%s`, which no transfer has asked for",
                peer.name,
            )
            await connection.close(1008, "no transfer has asked for this connection")
            return
        expected.connection.set_result(connection)
        await connection.wait_closed()

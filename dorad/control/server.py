"""The server of the control API: a Unix socket, and who may use it."""

from __future__ import annotations

import asyncio
import logging
import os
from http import HTTPStatus
from typing import TYPE_CHECKING

from websockets.asyncio.server import Server, ServerConnection, unix_serve

from dorad.control import codec, listening
from dorad.control.errors import ControlError, as_message
from dorad.control.limits import LARGEST_REQUEST, Limits
from dorad.control.messages import METHODS
from dorad.control.peer import Peer, may_command, peer_of
from dorad.control.session import Call, ClientSession, Handler, StreamHandler

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from websockets.http11 import Request as HttpRequest
    from websockets.http11 import Response

__all__ = ["Call", "ControlServer", "Handler", "StreamHandler"]

_CLOSE_TIMEOUT_S = 1.0
_ACCEPTED_AT_ONCE = 32

_log = logging.getLogger(__name__)
_websockets_log = logging.getLogger("dorad.control.websockets")
# Below this level it tells of every connection, and of every client that made a mistake.
_websockets_log.setLevel(logging.WARNING)


class ControlServer:
    """Answers requests by handlers, one for each method; a method without one is `unsupported`.

    Whatever a client sends or does concerns that client alone: it is answered with an error, or
    its connection ends, and with it everything that ran for it.
    """

    def __init__(
        self,
        handlers: Mapping[str, Handler | StreamHandler],
        *,
        version: str,
        limits: Limits | None = None,
        credentials: Callable[[socket.socket], Peer] = peer_of,
    ) -> None:
        """`version` is told to clients; `credentials` says who is at the other end of a socket.

        Raises:
            ValueError: a handler is for a method that is not in the table.
        """
        if wrong := handlers.keys() - METHODS.keys():
            raise ValueError(f"handlers for unknown methods: {', '.join(sorted(wrong))}")
        self._handlers = handlers
        self._version = version
        self._limits = Limits() if limits is None else limits
        self._credentials = credentials
        self._group: int | None = None
        self._path: Path | None = None
        self._inode = 0
        self._server: Server | None = None
        self._open: set[ServerConnection] = set()
        self._admitted: set[ServerConnection] = set()

    @property
    def connections(self) -> int:
        """How many clients are connected."""
        return len(self._admitted)

    async def serve(self, path: Path, *, group: int | None = None) -> None:
        """Listen at `path` until `close`.

        Root and the own user may connect, and the members of `group`, which is a number.

        Raises:
            ControlError: a daemon listens there already, or the path cannot be used.
        """
        sock, self._inode = await asyncio.to_thread(listening.bind, path, group)
        self._path, self._group = path, group
        try:
            self._server = await unix_serve(
                self._handle,
                sock=sock,
                backlog=_ACCEPTED_AT_ONCE,
                process_request=self._admit,
                create_connection=self._connection_class(),
                compression=None,
                max_size=LARGEST_REQUEST,
                open_timeout=self._limits.hello,
                close_timeout=_CLOSE_TIMEOUT_S,
                # Whether a client lives, the kernel says; whether it reads, `slow` finds out.
                ping_interval=None,
                logger=_websockets_log,
                server_header=None,
            )
            # asyncio has one number for the sockets that it accepts before it lets others run and
            # for those that may wait; a crowd should wait, not be turned away.
            sock.listen(self._limits.opening)
        except BaseException:
            sock.close()
            raise
        _log.info("listening at %s", path)

    async def close(self) -> None:
        """End all connections and what runs for them, and remove the socket."""
        if self._server is None or self._path is None:
            return
        # First the name, so that a daemon that starts now does not find a socket without a server.
        await asyncio.to_thread(listening.remove, self._path, self._inode)
        self._server.close()
        await self._server.wait_closed()
        self._server = None

    def _connection_class(self) -> type[_Connection]:
        """Return the class of our connections, which tell us when they begin and end."""
        server = self

        class Connection(_Connection):
            def connection_made(self, transport: asyncio.BaseTransport) -> None:
                super().connection_made(transport)
                server._open.add(self)
                if len(server._open) > server._limits.opening:
                    self.transport.abort()

            def connection_lost(self, exc: Exception | None) -> None:
                super().connection_lost(exc)
                server._open.discard(self)
                server._admitted.discard(self)

        return Connection

    def _admit(self, connection: ServerConnection, request: HttpRequest) -> Response | None:
        """Let a client in, or answer its HTTP request with the reason why not."""
        assert isinstance(connection, _Connection)
        peer = self._credentials(connection.transport.get_extra_info("socket"))
        if not may_command(peer, os.getuid(), self._group):
            _log.warning("refused process %d of user %d", peer.pid, peer.uid)
            return _answer(
                connection,
                HTTPStatus.FORBIDDEN,
                ControlError(
                    "refused",
                    f"user {peer.uid} may not command this dorad, which is user {os.getuid()}'s",
                    "be that user, or root, or join the group `dorad` where a whole machine's "
                    "daemon runs",
                ),
            )
        if len(self._admitted) >= self._limits.connections:
            return _answer(
                connection,
                HTTPStatus.SERVICE_UNAVAILABLE,
                ControlError(
                    "busy",
                    f"dorad has {len(self._admitted)} clients, which is as many as it takes",
                    "try again when others have ended",
                ),
            )
        connection.peer = peer
        self._admitted.add(connection)
        return None

    async def _handle(self, connection: ServerConnection) -> None:
        assert isinstance(connection, _Connection)
        session = ClientSession(
            connection, connection.peer, self._handlers, self._version, self._limits
        )
        await session.run()


class _Connection(ServerConnection):
    """A WebSocket connection that knows who is at its other end."""

    peer: Peer

    def eof_received(self) -> None:
        """Drop what the client will not read: it has gone.

        A transport that first sends the rest ends by itself; websockets aborts it all the same,
        which asyncio does not forgive.
        """
        super().eof_received()
        self.transport.abort()


def _answer(connection: _Connection, status: HTTPStatus, error: ControlError) -> Response:
    response = connection.respond(status, codec.encode(as_message(error)).decode())
    del response.headers["Content-Type"]
    response.headers["Content-Type"] = "application/json"
    return response

"""The broker's socket: who connects, and has not yet said which node it is."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from typing import TYPE_CHECKING

from dorad.daemon.broker.connection import Connection
from dorad.node.protocol import Packet, ProtocolError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from dorad.control.peer import Peer


MAX_SILENT = 64
"""Connections of one user that have not said which node they are. A node says so at once; of more
than these, the oldest is closed."""

_log = logging.getLogger(__name__)


class Listener:
    """Accepts connections; `on_hello` gets each that introduces itself, with its packet.

    Every later packet goes to `on_packet`, and its end to `on_end`.
    """

    def __init__(
        self,
        path: Path,
        deadline: float,
        on_hello: Callable[[Connection, Packet], None],
        on_packet: Callable[[Connection, Packet], None],
        on_end: Callable[[Connection], None],
        admits: Callable[[Peer], bool] | None = None,
    ) -> None:
        """`admits` tells whether a process of another user may be a node; None: none may."""
        self._path = path
        self._deadline = deadline
        self._on_hello = on_hello
        self._on_packet = on_packet
        self._on_end = on_end
        self._admits = admits
        self._strangers: dict[Connection, asyncio.TimerHandle] = {}
        self._introduced: dict[Connection, str] = {}
        """Connections that were made for one node each, until it says hello."""
        self._server: socket.socket | None = None

    def open(self, kept: int | None = None) -> int:
        """Listen, on a socket that listens already if one was kept; return its descriptor.

        Raises:
            OSError: the socket cannot be made.
        """
        if kept is None:
            server = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_NONBLOCK)
            self._server = server
            self._path.unlink(missing_ok=True)
            server.bind(os.fspath(self._path))
            self._path.chmod(0o600 if self._admits is None else 0o666)
            server.listen(128)
        else:
            self._server = server = socket.socket(fileno=kept)
            server.setblocking(False)
        asyncio.get_running_loop().add_reader(server.fileno(), self._accept)
        return server.fileno()

    def close(self) -> None:
        """Accept nobody any more, and end the connections that have said nothing."""
        if self._server is not None:
            asyncio.get_running_loop().remove_reader(self._server.fileno())
            self._server.close()
            self._server = None
            self._path.unlink(missing_ok=True)
        for connection in [*self._strangers, *self._introduced]:
            connection.close("the dataflow has ended")

    def take_in(self, sock: socket.socket, sent: int) -> Connection:
        """Return the connection over a kept socket that has introduced itself to another daemon."""
        sock.setblocking(False)
        return Connection(sock, self._heard, self._ended, sent=sent)

    def introduce(self, sock: socket.socket, node_id: str, pid: int) -> None:
        """Listen to a socket that was given to the process `pid`, for this node and no other.

        The socket is owned from here on. It has no deadline: the process may take long to start.
        """
        sock.setblocking(False)
        connection = Connection(sock, self._heard, self._ended, pid=pid, reserved_for=node_id)
        self._introduced[connection] = node_id

    def _accept(self) -> None:
        if self._server is None:
            return
        try:
            sock, _ = self._server.accept()
        except OSError:
            # The other side has given up already, or descriptors are short: it will try again.
            return
        sock.setblocking(False)
        connection = Connection(sock, self._heard, self._ended)
        _log.debug("process %d of user %d connects", connection.pid, connection.peer.uid)
        if not self._may_enter(connection.peer):
            connection.close("another user's process")
            return
        silent = [each for each in self._strangers if each.peer.uid == connection.peer.uid]
        if len(silent) >= MAX_SILENT:
            _log.debug("user %d has %d silent connections", connection.peer.uid, len(silent))
            silent[0].close("others of its user are waiting")
        loop = asyncio.get_running_loop()
        self._strangers[connection] = loop.call_later(
            self._deadline, connection.close, "said nothing"
        )

    def _may_enter(self, peer: Peer) -> bool:
        return peer.uid in (0, os.getuid()) or (self._admits is not None and self._admits(peer))

    def _heard(self, connection: Connection, packet: Packet) -> None:
        if connection not in self._strangers and connection not in self._introduced:
            self._on_packet(connection, packet)
            return
        if packet.kind != "hello":
            raise ProtocolError(f"a {packet.kind!r} where 'hello' was due")
        node_id = packet.text("node")
        packet.number("version")
        expected = self._introduced.pop(connection, None)
        if expected is None:
            self._strangers.pop(connection).cancel()
        elif expected != node_id:
            raise ProtocolError(f"hello of {node_id!r} over the connection of {expected!r}")
        self._on_hello(connection, packet)

    def _ended(self, connection: Connection, _reason: str) -> None:
        handle = self._strangers.pop(connection, None)
        if handle is not None:
            handle.cancel()
        elif self._introduced.pop(connection, None) is None:
            self._on_end(connection)

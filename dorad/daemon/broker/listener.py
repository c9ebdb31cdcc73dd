"""The socket that nodes connect to: its path, and the connections that have not said hello."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
from typing import TYPE_CHECKING

from dorad.daemon.broker.connection import Connection, is_running
from dorad.node.protocol import Packet, ProtocolError
from dorad.shm import rendezvous

if TYPE_CHECKING:
    from pathlib import Path

    from dorad.control.peer import Peer
    from dorad.daemon.broker.admission import Admission, OwnUser
    from dorad.daemon.broker.sessions import Sessions

SOCKETS = "*-d*.sock"
"""The pattern of the names of a background daemon's sockets."""

MAX_UNIDENTIFIED = 64
"""Connections of one user that have not said hello. A node does so at once; beyond this number,
the oldest connection is closed."""

_log = logging.getLogger(__name__)


def daemon_socket(folder: Path, dataflow_id: str) -> Path:
    """Return the path of a dataflow's socket under a background daemon.

    The next daemon gets the same path. Nodes that are started by hand find it by the port; see
    `rendezvous`.

    Raises:
        ValueError: `DORA_DAEMON_LOCAL_LISTEN_PORT` is not a valid port.
    """
    return folder / f"{rendezvous.port()}-d{dataflow_id[:8]}.sock"


def own_socket() -> Path:
    """Return the path of this process's socket, and remove sockets of ended processes.

    Raises:
        OSError: the directory cannot be created, or others can write to it.
        ValueError: `DORA_DAEMON_LOCAL_LISTEN_PORT` is not a valid port.
    """
    path = rendezvous.socket_path(os.getpid(), rendezvous.port())
    for other in path.parent.glob("*-*.sock"):
        pid = other.stem.rpartition("-")[2]
        if other == path or (pid.isdecimal() and not is_running(int(pid))):
            with contextlib.suppress(FileNotFoundError):  # another run may remove it as well
                other.unlink()
    return path


class Listener:
    """Accepts connections, and passes each to the sessions with the first packet, a hello."""

    def __init__(
        self,
        path: Path,
        deadline: float,
        sessions: Sessions,
        users: Admission | OwnUser,
    ) -> None:
        """`users` decides about processes of other users."""
        self._path = path
        self._deadline = deadline
        self._sessions = sessions
        self._users = users
        self._unidentified: dict[Connection, asyncio.TimerHandle] = {}
        """Accepted connections that have not said hello, with their deadlines."""
        self._reserved: dict[Connection, str] = {}
        """Connections created for one observer each, until it says hello."""
        self._server: socket.socket | None = None

    def open(self, kept: int | None = None) -> int:
        """Listen on a new socket, or on the descriptor `kept`; return the descriptor.

        Raises:
            OSError: the socket cannot be created.
        """
        if kept is None:
            server = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_NONBLOCK)
            self._server = server
            self._path.unlink(missing_ok=True)
            server.bind(os.fspath(self._path))
            self._path.chmod(0o666 if self._users.has_others else 0o600)
            server.listen(128)
        else:
            self._server = server = socket.socket(fileno=kept)
            server.setblocking(False)
        asyncio.get_running_loop().add_reader(server.fileno(), self._accept)
        return server.fileno()

    def close(self) -> None:
        """Stop accepting, and close the connections that have not said hello."""
        if self._server is not None:
            asyncio.get_running_loop().remove_reader(self._server.fileno())
            self._server.close()
            self._server = None
            self._path.unlink(missing_ok=True)
        for connection in [*self._unidentified, *self._reserved]:
            connection.close("the dataflow has ended")

    def adopt(self, sock: socket.socket, sent: int) -> Connection:
        """Return a connection over a kept socket, over which a previous daemon got the hello."""
        sock.setblocking(False)
        return Connection(sock, self._packet, self._ended, sent=sent)

    def reserve(self, sock: socket.socket, node_id: str, pid: int) -> None:
        """Reserve a connected socket for an observer, whose process is `pid`.

        Takes ownership of the socket. There is no deadline: the process may take long to start.
        """
        sock.setblocking(False)
        connection = Connection(sock, self._packet, self._ended, pid=pid, reserved_for=node_id)
        self._reserved[connection] = node_id

    def _accept(self) -> None:
        if self._server is None:
            return
        try:
            sock, _ = self._server.accept()
        except OSError as error:
            # The process has closed its end already, or no descriptors are left: it will retry.
            _log.debug("a connection was not accepted: %s", error)
            return
        sock.setblocking(False)
        connection = Connection(sock, self._packet, self._ended)
        _log.debug("process %d of user %d connects", connection.pid, connection.peer.uid)
        if not self._is_admitted(connection.peer):
            connection.close("another user's process")
            return
        waiting = [each for each in self._unidentified if each.peer.uid == connection.peer.uid]
        if len(waiting) >= MAX_UNIDENTIFIED:
            _log.debug(
                "user %d has %d connections without a hello", connection.peer.uid, len(waiting)
            )
            waiting[0].close("too many connections of its user without a hello")
        loop = asyncio.get_running_loop()
        self._unidentified[connection] = loop.call_later(
            self._deadline, connection.close, "no hello in time"
        )

    def _is_admitted(self, peer: Peer) -> bool:
        return peer.uid in (0, os.getuid()) or self._users.admits(peer)

    def _packet(self, connection: Connection, packet: Packet) -> None:
        if connection not in self._unidentified and connection not in self._reserved:
            self._sessions.on_packet(connection, packet)
            return
        if packet.kind != "hello":
            raise ProtocolError(f"the first packet must be 'hello', not {packet.kind!r}")
        node_id = packet.text("node")
        packet.number("version")
        expected = self._reserved.pop(connection, None)
        if expected is None:
            self._unidentified.pop(connection).cancel()
        elif expected != node_id:
            raise ProtocolError(f"hello of {node_id!r} over the connection of {expected!r}")
        self._sessions.on_hello(connection, packet)

    def _ended(self, connection: Connection, _reason: str) -> None:
        handle = self._unidentified.pop(connection, None)
        if handle is not None:
            handle.cancel()
        elif self._reserved.pop(connection, None) is None:
            self._sessions.on_end(connection)

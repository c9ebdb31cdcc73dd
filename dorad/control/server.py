"""The server of the control API: it listens at a Unix or TCP socket and admits clients."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import stat
from collections import Counter
from contextlib import suppress
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, TypeAlias

from websockets.asyncio.server import Server, ServerConnection, serve, unix_serve
from websockets.frames import Frame
from websockets.protocol import Event, State

from dorad.control import codec
from dorad.control.errors import ControlError, as_message
from dorad.control.limits import MAX_REQUEST, Held, IdleFrames, Limits, Usage, check_client
from dorad.control.messages import METHODS, MethodTable
from dorad.control.peer import Peer, local_role, peer_of
from dorad.control.session import Call, ClientSession, Handler, HandlerTable, StreamHandler

if TYPE_CHECKING:
    import ssl
    from collections.abc import Awaitable, Callable, Mapping
    from pathlib import Path

    from websockets.http11 import Request as HttpRequest
    from websockets.http11 import Response


MAX_PATH_BYTES = 107
"""Maximum length of a Unix socket's path."""


def _is_socket(path: Path) -> bool:
    try:
        return stat.S_ISSOCK(path.stat().st_mode)
    except OSError:
        return False


def bind_socket(path: Path, group: int | None) -> tuple[socket.socket, int]:
    """Bind a socket to `path`; return it, not yet listening, and its inode.

    Its mode is 0660 with a group, 0600 without. The socket of a dead daemon is replaced.

    Raises:
        ControlError: a daemon already listens there, or no socket can be created there.
    """
    if len(os.fsencode(path)) > MAX_PATH_BYTES:
        raise ControlError(
            "refused",
            f"{path} is too long for a socket: at most {MAX_PATH_BYTES} bytes are allowed",
            "choose a shorter path",
        )
    _clear(path)
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.bind(str(path))
        path.chmod(0o600)
        if group is not None and path.lstat().st_gid != group:
            os.chown(path, -1, group)
        path.chmod(0o600 if group is None else 0o660)
        return sock, path.stat().st_ino
    except OSError as error:
        sock.close()
        raise ControlError("refused", f"{path} cannot be used: {error.strerror}") from None


def _clear(path: Path) -> None:
    """Remove the socket of a dead daemon. Raises ControlError for anything else."""
    if not path.exists() and not path.is_symlink():
        return
    if not _is_socket(path):
        raise ControlError("refused", f"{path} exists and is not a socket", "move it away")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        # Non-blocking: a daemon that hangs, with a full backlog, counts as running.
        probe.setblocking(False)
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            path.unlink(missing_ok=True)
            return
        except FileNotFoundError:
            return
        except PermissionError:
            raise ControlError("refused", f"{path} belongs to another user") from None
        except BlockingIOError:
            pass
    raise ControlError("exists", f"a daemon already listens at {path}", "end it with `dora down`")


def remove_socket(path: Path, inode: int) -> None:
    """Remove the socket at `path` if it is still the one with this inode."""
    with suppress(FileNotFoundError):
        if path.stat().st_ino == inode:
            path.unlink()


Authenticate: TypeAlias = "Callable[[ServerConnection, HttpRequest], Peer]"
"""Returns who connects. Raises ControlError to refuse the client."""

Accept: TypeAlias = "Callable[[ServerConnection, Peer], Awaitable[None]]"
"""Uses a connection whose peer is the server of the control API. It is closed at the end."""

__all__ = [
    "Accept",
    "Authenticate",
    "Call",
    "ControlServer",
    "Handler",
    "HandlerTable",
    "StreamHandler",
]

_CLOSE_TIMEOUT_S = 1.0
_ACCEPTED_AT_ONCE = 32
_MAX_QUEUE = 4
"""Frames of a client that wait to be handled. Each may have MAX_REQUEST bytes."""

_log = logging.getLogger(__name__)
_websockets_log = logging.getLogger("dorad.control.websockets")
# Below this level the library reports every connection and every mistake of a client.
_websockets_log.setLevel(logging.WARNING)


class ControlServer:
    """Answers requests with handlers, one for each method; a method without one is `unsupported`.

    A client's mistakes affect only that client: it gets an error, or its connection is closed and
    its calls and streams are cancelled.
    """

    def __init__(
        self,
        handlers: Mapping[str, Handler | StreamHandler],
        *,
        version: str,
        limits: Limits | None = None,
        credentials: Callable[[socket.socket], Peer] = peer_of,
        methods: MethodTable = METHODS,
        name: str = "dorad",
        accept: Mapping[str, Accept] | None = None,
    ) -> None:
        """Prepare a server. `name` and `version` are sent to clients.

        `methods` are those of the protocol; `credentials` identifies the peer of a Unix socket.
        `accept` gets the connections to its paths; they do not count as clients.

        Raises:
            ValueError: there is a handler for an unknown method.
        """
        if wrong := handlers.keys() - methods.keys():
            raise ValueError(f"handlers for unknown methods: {', '.join(sorted(wrong))}")
        self._handlers = handlers
        self._methods = methods
        self._name = name
        self._program = f"{name} {version}"
        self._limits = Limits() if limits is None else limits
        self._credentials = credentials
        self._accept = {} if accept is None else accept
        self._authenticate: Authenticate = self._authenticate_peer
        self._group: int | None = None
        self._path: Path | None = None
        self._inode = 0
        self._server: Server | None = None
        self._open: set[ServerConnection] = set()
        self._usage = Usage()
        self._accepted: Counter[str] = Counter()
        """Open connections of peers that are servers themselves, by their owner."""

    @property
    def connections(self) -> int:
        """Number of connected clients."""
        return self._usage.connections.total()

    def change_limits(self, limits: Limits) -> None:
        """Use other limits for all connections from now on."""
        self._limits = limits

    async def serve(self, path: Path, *, group: int | None = None) -> None:
        """Listen at `path` until `close`.

        Root, this process's user and the members of the group with the id `group` may connect.

        Raises:
            ControlError: a daemon already listens there, or the path cannot be used.
        """
        sock, self._inode = await asyncio.to_thread(bind_socket, path, group)
        self._path, self._group = path, group
        await self.serve_unix(sock)
        _log.info("listening at %s", path)

    async def serve_unix(self, sock: socket.socket) -> None:
        """Listen at a bound Unix socket until `close`, which does not remove it."""
        await self._listen(unix_serve, sock)

    async def serve_tcp(
        self,
        sock: socket.socket,
        authenticate: Authenticate,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        """Listen at a bound TCP socket until `close`; `authenticate` admits or refuses clients."""
        self._authenticate = authenticate
        await self._listen(serve, sock, ssl=tls)
        _log.info("listening at %s port %d", *sock.getsockname()[:2])

    async def close(self) -> None:
        """End all connections with their calls and streams, and remove the socket."""
        if self._server is None:
            return
        if self._path is not None:
            # The path first: a daemon that starts now does not find a socket without a server.
            await asyncio.to_thread(remove_socket, self._path, self._inode)
        self._server.close()
        await self._server.wait_closed()
        self._server = None

    async def _listen(
        self, start: Callable[..., Awaitable[Server]], sock: socket.socket, **options: Any
    ) -> None:
        try:
            self._server = await start(
                self._handle,
                sock=sock,
                backlog=_ACCEPTED_AT_ONCE,
                process_request=self._admit,
                create_connection=self._connection_class(),
                compression=None,
                max_size=MAX_REQUEST,
                max_queue=_MAX_QUEUE,
                open_timeout=self._limits.hello,
                close_timeout=_CLOSE_TIMEOUT_S,
                # Not needed: the kernel reports a dead client, `Limits.slow` ends one that hangs.
                ping_interval=None,
                logger=_websockets_log,
                server_header=None,
                **options,
            )
            # asyncio uses `backlog` for two things: sockets accepted at once, and sockets that may
            # wait. Accept few at once, but let many wait instead of refusing them.
            sock.listen(self._limits.opening)
        except BaseException:
            sock.close()
            raise

    def _connection_class(self) -> type[_Connection]:
        """Return a class of connections that register with this server while they are open."""
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
                if self.held is not None:
                    self.held.release()

        return Connection

    def _admit(self, connection: ServerConnection, request: HttpRequest) -> Response | None:
        """Admit a client, or answer its HTTP request with the reason of the refusal."""
        assert isinstance(connection, _Connection)
        if connection not in self._open:
            # It ended meanwhile: nothing would stop counting it.
            return connection.respond(HTTPStatus.SERVICE_UNAVAILABLE, "")
        try:
            peer = self._authenticate(connection, request)
        except ControlError as error:
            return _answer(connection, HTTPStatus.FORBIDDEN, error)
        connection.peer = peer
        try:
            if request.path in self._accept:
                self._check_accepted(peer)
                connection.held = Held(self._accepted, peer.owner)
            else:
                check_client(self._limits, self._name, peer, self._usage)
                connection.held = Held(self._usage.connections, peer.owner)
        except ControlError as error:
            _log.debug("refused %s: %s", peer, error)
            answer = _answer(connection, HTTPStatus.SERVICE_UNAVAILABLE, error)
            answer.headers["Retry-After"] = str(self._limits.retry_after)
            return answer
        _log.debug("admitted %s at %s", peer, request.path)
        return None

    def _check_accepted(self, peer: Peer) -> None:
        """Check that a peer that is a server itself may connect once more. Raises ControlError."""
        if self._accepted[peer.owner] >= self._limits.accepted_each:
            raise ControlError(
                "busy",
                f"`{peer}` has {self._limits.accepted_each} open connections, the maximum",
                "try again when they have ended",
            )

    def _authenticate_peer(self, connection: ServerConnection, request: HttpRequest) -> Peer:
        """Return the process at the other end of a Unix socket. Raises ControlError."""
        del request
        peer = self._credentials(connection.transport.get_extra_info("socket"))
        role = local_role(peer, os.getuid(), self._group)
        if role is None:
            _log.warning("refused process %d of user %d", peer.pid, peer.uid)
            raise ControlError(
                "refused",
                f"user {peer.uid} may not command this dorad, which belongs to user {os.getuid()}",
                "run the command as that user or as root; for the machine's own dorad, join "
                "the group `dorad`",
            )
        return peer._replace(role=role)

    async def _handle(self, connection: ServerConnection) -> None:
        assert isinstance(connection, _Connection)
        assert connection.request is not None
        accept = self._accept.get(connection.request.path)
        if accept is not None:
            await accept(connection, connection.peer)
            return
        session = ClientSession(
            connection,
            connection.peer,
            self._handlers,
            self._methods,
            self._program,
            self._limits,
            self._usage,
        )
        await session.run()


class _Connection(ServerConnection):
    """A WebSocket connection that knows its peer."""

    peer: Peer
    held: Held | None = None
    """Its place among those of its owner, once it is admitted."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._idle = IdleFrames()

    @property
    def state(self) -> State:
        """The state; CLOSING for a client that broke the protocol before it had an answer.

        It cannot be answered any more, and websockets would report that as an internal error.
        """
        state = super().state
        if state is State.CONNECTING and self.protocol.eof_sent:
            return State.CLOSING
        return state

    def process_event(self, event: Event) -> None:
        """Take a frame, or end the connection of a peer that sends too many without a message."""
        if isinstance(event, Frame) and self._idle.too_many(event):
            if not self.transport.is_closing():
                _log.warning("%s sends frames without a message: it is disconnected", self.peer)
            self.transport.abort()
            return
        super().process_event(event)

    def eof_received(self) -> None:
        """Abort the connection: the client has disconnected and reads nothing more.

        Otherwise the transport first sends the rest and then closes itself, and websockets aborts
        it once more, which asyncio reports as an error.
        """
        super().eof_received()
        self.transport.abort()


def _answer(connection: _Connection, status: HTTPStatus, error: ControlError) -> Response:
    response = connection.respond(status, codec.encode(as_message(error)).decode())
    del response.headers["Content-Type"]
    response.headers["Content-Type"] = "application/json"
    return response

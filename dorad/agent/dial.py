"""Connects to the coordinator, and again whenever the connection ends."""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
import time
from contextlib import asynccontextmanager
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING, Any

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import (
    ConnectionClosed,
    InvalidHandshake,
    InvalidMessage,
    InvalidStatus,
    WebSocketException,
)
from websockets.frames import CloseCode, Frame

from dorad import __version__
from dorad.agent.backoff import Backoff, HandshakeTimeout, bounded, fleet_backoff
from dorad.agent.model import ConnectionState, ConnectionStatus
from dorad.control import codec
from dorad.control.errors import ControlError
from dorad.control.limits import MAX_REQUEST, IdleFrames, Limits
from dorad.control.messages import METHODS, Error, LinkTls
from dorad.control.messages.agent import AGENT_METHODS
from dorad.control.peer import Peer
from dorad.control.privatefile import check_private
from dorad.control.session import ClientSession, Handler, StreamHandler
from dorad.control.tls import check_coordinator, client_context
from dorad.jitter import between

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping

    from websockets.datastructures import Headers
    from websockets.protocol import Event

    from dorad.agent.identity import Identity
    from dorad.agent.identitystore import IdentityStore

BASE = "wss://coordinator"
"""The same for every address: certificates name coordinators, not addresses."""
IDENTITY_S = 2.0
"""Seconds between two checks whether the identity has changed."""
CONNECT_S = 10.0
"""Seconds for a connection of TCP; see `HandshakeTimeout` for the handshake."""
PING_S = 5.0
"""Seconds between two pings, and for the answer."""
CHECK_S = 2.0
"""Seconds for the answer to a ping after the network has changed."""
REFUSED_S, LONG_REFUSED_S = 5.0, 60.0
"""Maximum seconds until a coordinator that has refused this robot is tried again; they double."""

LIMITS = Limits(calls=256, streams=256, reply=MAX_REQUEST)
"""A coordinator passes on what all its clients ask for. It would end the connection for a larger
frame, and with it all that its other clients have asked for."""


class _Connection(ClientConnection):
    """A connection that a coordinator cannot use to fill the memory of this robot."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._idle = IdleFrames()

    def process_event(self, event: Event) -> None:
        """Take a frame, or end the connection if too many come without a message."""
        if isinstance(event, Frame) and self._idle.too_many(event):
            if not self.transport.is_closing():
                _log.warning("the coordinator sends frames without a message: disconnecting")
            self.transport.abort()
            return
        super().process_event(event)


OPTIONS: dict[str, Any] = {
    "create_connection": _Connection,
    "ping_interval": PING_S,
    "ping_timeout": PING_S,
    "close_timeout": 1.0,
    "compression": None,
    "max_size": MAX_REQUEST,
    "max_queue": 16,
    "proxy": None,
    "logger": logging.getLogger("dorad.agent.websockets"),
    "user_agent_header": None,
}
"""Of every connection to a coordinator."""

GIVEN_UP = (ConnectionError, ssl.SSLEOFError, InvalidMessage)
"""Errors of a handshake that the coordinator has ended: others waited."""

_log = logging.getLogger(__name__)
_websockets_log = logging.getLogger("dorad.agent.websockets")
# Below this level the library reports every connection that cannot be opened.
_websockets_log.setLevel(logging.WARNING)


class Dialer:
    """Keeps one connection to one of the coordinators. Belongs to one event loop."""

    def __init__(
        self,
        identities: IdentityStore,
        handlers: Mapping[str, Handler | StreamHandler],
        on_change: Callable[[], None],
    ) -> None:
        """`handlers` answer the coordinator; `on_change` is called when the state changes."""
        self._identities = identities
        self._handlers = handlers
        self._on_change = on_change
        self._now = asyncio.Event()
        self._connection: ClientConnection | None = None
        self._check: asyncio.Task[None] | None = None
        self._attached = False
        self._pause = 0.0
        """Seconds over which the coordinator that attached last wants its fleet to spread."""
        self._retry_after = 0.0
        """Minimum seconds until the next try, for a coordinator that is too busy."""
        self._last: tuple[str, int] | None = None
        self._timeouts: dict[tuple[str, int], HandshakeTimeout] = {}
        """By the address of a coordinator."""
        self._at: tuple[str, int] | None = None
        """The coordinator that is tried, or in use."""
        self._address = ""
        self._version = ""
        """Of the identity that is in use."""
        self.status = ConnectionStatus("connecting", "", time.time())

    async def run(self) -> ControlError:
        """Connect, and answer the coordinator; return why this robot has lost its identity."""
        async with asyncio.TaskGroup() as tasks:
            following = tasks.create_task(self._follow_identity(), name="identity")
            try:
                return await self._dial()
            finally:
                following.cancel()

    async def _dial(self) -> ControlError:
        quick, slow = Backoff(), Backoff(first=REFUSED_S, longest=LONG_REFUSED_S)
        while True:
            try:
                self._end_hand_over()
                self._version = self._identities.version
                identity = self._identities.load()
            except ControlError as error:
                return error
            refused = False
            self._timeouts = {
                each: self._timeouts.get(each) or HandshakeTimeout()
                for each in identity.coordinators
            }
            # Try the coordinator that attached last first: a timeout of another one takes long.
            for address in sorted(identity.coordinators, key=lambda each: each != self._last):
                refuses = await self._try(identity, *address)
                refused = refuses or refused
                # One that attaches to learn which machine this is may refuse it then.
                if self._attached and not refuses:
                    self._last = address
                    quick, refused = fleet_backoff(self._pause), False
                    slow = Backoff(first=REFUSED_S, longest=LONG_REFUSED_S)
                    break
            self._now.clear()
            delay = (slow if refused else quick).next()
            # All of them let us wait: the fleet's tries are spread.
            if pause := min((each.pause for each in self._timeouts.values()), default=0.0):
                delay = max(delay, between(pause / 4, pause))
            if self._retry_after:
                delay = max(delay, between(self._retry_after / 2, self._retry_after))
                self._retry_after = 0.0
            _log.debug("the next try is in %.1f s", delay)
            try:
                async with asyncio.timeout(delay):
                    await self._now.wait()
                quick = Backoff()
            except TimeoutError:
                continue

    def _end_hand_over(self) -> None:
        """Drop an authority whose hand-over is over. Raises ControlError."""
        try:
            self._identities.end_hand_over(time.time())
        except OSError as error:
            _log.warning("the old authority cannot be dropped now: %s", error.strerror)

    async def _try(self, identity: Identity, host: str, port: int) -> bool:
        """Answer one coordinator until the connection ends; return True if it refuses us."""
        self._attached = False
        self._at = (host, port)
        self._address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        try:
            await self._connect(identity, host, port)
        except ControlError as error:
            refused = error.code not in ("unavailable", "deadline", "busy")
            self._set("refused" if refused else "unreachable", str(error))
            return refused
        self._set("unreachable", "the connection was lost")
        return False

    async def _follow_identity(self) -> None:
        """Connect again when the identity has changed: renewed, replaced or removed."""
        while True:
            await asyncio.sleep(IDENTITY_S)
            if self._identities.version != self._version:
                _log.info("the identity has changed: connecting again")
                self._version = self._identities.version
                self._now.set()
                if self._connection is not None:
                    await self._connection.close()

    def attached(self, pause: float) -> None:
        """Record that the coordinator has attached, and the pause that it asks its fleet for."""
        self._attached, self._pause = True, bounded(pause)
        self._set("connected", "")

    @asynccontextmanager
    async def beside(
        self, path: str, headers: Mapping[str, str]
    ) -> AsyncIterator[ClientConnection]:
        """Open another connection to the coordinator that has attached.

        Raises:
            ControlError: none has, it does not answer, or it refuses this connection.
        """
        if self._at is None or not self._attached or self._connection is None:
            raise ControlError("unavailable", "no coordinator has attached")
        identity = self._identities.load()
        context = await asyncio.to_thread(_context, identity.tls)
        timeout = self._timeouts[self._at].seconds(self._pause, alone=True)
        sock = await _open(*self._at)
        try:
            async with connect(
                f"{BASE}{path}",
                sock=sock,
                ssl=context,
                additional_headers=headers,
                open_timeout=timeout,
                ssl_handshake_timeout=timeout + 1,
                **OPTIONS,
            ) as connection:
                check_coordinator(connection.transport.get_extra_info("ssl_object"))
                yield connection
        except InvalidStatus as error:
            raise _refusal(error) from None
        except TimeoutError:
            raise ControlError("deadline", f"no answer within {timeout:g} s") from None
        except (OSError, InvalidHandshake) as error:
            raise ControlError("unavailable", _reason(error)) from None

    async def answers(self) -> bool:
        """Return whether the coordinator that has attached answers a ping now."""
        connection = self._connection
        if connection is None or not self._attached:
            return False
        try:
            async with asyncio.timeout(CHECK_S):
                await (await connection.ping())
        except (TimeoutError, ConnectionClosed):
            return False
        return True

    def network_changed(self) -> None:
        """Connect at once, or check that the connection still works."""
        self._now.set()
        if self._connection is not None and (self._check is None or self._check.done()):
            self._check = asyncio.create_task(_check(self._connection), name="check connection")

    async def _connect(self, identity: Identity, host: str, port: int) -> None:
        """Answer one coordinator until the connection ends.

        Raises:
            ControlError: it cannot be reached, or refuses this robot, or must not be obeyed.
        """
        context = await asyncio.to_thread(_context, identity.tls)
        allowed = self._timeouts[host, port]
        timeout = allowed.seconds(self._pause, alone=len(self._timeouts) == 1)
        _log.debug("connecting to %s as %s", self._address, identity.robot)
        sock = await _open(host, port)
        opened = False
        try:
            async with connect(
                f"{BASE}/agent",
                sock=sock,
                ssl=context,
                open_timeout=timeout,
                ssl_handshake_timeout=timeout + 1,
                **OPTIONS,
            ) as connection:
                opened = True
                allowed.answered()
                await self._serve(connection)
        except InvalidStatus as error:
            allowed.answered()
            self._retry_after = max(self._retry_after, retry_after(error.response.headers))
            raise _refusal(error) from None
        except TimeoutError:
            if not opened:
                allowed.expired()
            raise ControlError("deadline", f"no answer within {timeout:g} s") from None
        except (OSError, InvalidHandshake) as error:
            if not opened and isinstance(error, GIVEN_UP):
                allowed.expired()
            raise ControlError("unavailable", _reason(error)) from None
        except WebSocketException as error:
            raise ControlError("unavailable", f"it does not speak WebSocket: {error}") from None

    async def _serve(self, connection: ClientConnection) -> None:
        try:
            coordinator = check_coordinator(connection.transport.get_extra_info("ssl_object"))
        except ControlError as error:
            # That is not our coordinator, which may be back at any time.
            raise ControlError("unavailable", error.message) from None
        peer = Peer(0, -1, -1, name=f"coordinator {coordinator.name}", role="admin")
        session = ClientSession(
            connection,
            peer,
            self._handlers,
            METHODS | AGENT_METHODS,
            f"dorad-agent {__version__}",
            LIMITS,
        )
        self._connection = connection
        try:
            refusal = await session.run()
        finally:
            self._connection = None
        if refusal is not None:
            raise refusal
        if not self._attached or _is_refusal(connection):
            raise _closed(connection)

    def _set(self, state: ConnectionState, reason: str) -> None:
        before, address = self.status, self._address
        if (state, address, reason) == (before.state, before.coordinator, before.reason):
            return
        since = before.since if state == before.state else time.time()
        self.status = ConnectionStatus(state, address, since, reason)
        level = logging.WARNING if state == "refused" else logging.INFO
        _log.log(level, "coordinator %s: %s%s", address, state, reason and f": {reason}")
        self._on_change()


def _context(files: LinkTls) -> ssl.SSLContext:
    """Return the context with which this robot connects. Raises ControlError."""
    key = Path(files.key)
    # dorad, which has the key's group, reads it for the links of dataflows.
    check_private(key, group_reads=True)
    return client_context(Path(files.ca), Path(files.certificate), key)


async def _open(host: str, port: int) -> socket.socket:
    """Return a connection of TCP to the first address of `host` that accepts it.

    Raises:
        ControlError: there is none, or none accepts within `CONNECT_S`.
    """
    loop = asyncio.get_running_loop()
    reason = "it has no address"
    try:
        async with asyncio.timeout(CONNECT_S):
            for family, kind, protocol, _, address in await loop.getaddrinfo(
                host, port, type=socket.SOCK_STREAM
            ):
                sock = socket.socket(family, kind, protocol)
                try:
                    sock.setblocking(False)
                    await loop.sock_connect(sock, address)
                except OSError as error:
                    reason = _reason(error)
                    sock.close()
                except BaseException:
                    sock.close()
                    raise
                else:
                    return sock
    except TimeoutError:
        raise ControlError("deadline", f"no connection within {CONNECT_S:g} s") from None
    except OSError as error:
        raise ControlError("unavailable", _reason(error)) from None
    raise ControlError("unavailable", reason)


async def _check(connection: ClientConnection) -> None:
    """End a connection that does not answer: the network has changed."""
    try:
        async with asyncio.timeout(CHECK_S):
            await (await connection.ping())
        _log.debug("the connection still works")
    except TimeoutError:
        _log.info("the connection no longer works")
        connection.transport.abort()
    except ConnectionClosed:
        return


def retry_after(headers: Headers) -> float:
    """Return the seconds that a server asks to wait before the next try, within bounds."""
    for value in headers.get_all("Retry-After"):
        if value.isascii() and value.isdigit():
            return bounded(float(value[:9]))
    return 0.0


def _refusal(error: InvalidStatus) -> ControlError:
    """Return the error that a coordinator has sent as the answer to the HTTP request."""
    status, body = error.response.status_code, bytes(error.response.body or b"")
    try:
        refusal = ControlError.of(codec.decode(body, Error, "the refusal"))
    except ControlError:
        refusal = ControlError("refused", f"it answers with HTTP status {status}")
    if status == HTTPStatus.SERVICE_UNAVAILABLE:
        refusal.code = "busy"
    return refusal


def _is_refusal(connection: ClientConnection) -> bool:
    received = connection.protocol.close_rcvd
    return received is not None and received.code == CloseCode.POLICY_VIOLATION


def _closed(connection: ClientConnection) -> ControlError:
    """Return the error for a connection that ended before the coordinator had attached."""
    if connection.close_reason:
        return ControlError("refused", f"it closed the connection: {connection.close_reason}")
    return ControlError("unavailable", "it closed the connection")


def _reason(error: Exception) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return (
            f"it is not of the authority that this robot trusts: {error.verify_message}; if the "
            "fleet's authority was handed over while this robot was away: `dorafleet enrol "
            "CLUSTER.yml ROBOT --again`"
        )
    return str(getattr(error, "strerror", None) or error)

"""The web server of the live graph: one page on loopback, and a WebSocket for its figures.

The page itself has no data. Figures go only to a WebSocket that knows the token, which is in the
fragment of the address: a browser sends that to no server.
"""

from __future__ import annotations

import asyncio
import hmac
import logging
import re
import secrets
from collections.abc import Callable, Sequence
from http import HTTPStatus
from typing import Any

import msgspec
from websockets.asyncio.server import ServerConnection, serve
from websockets.datastructures import Headers
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response
from websockets.typing import Subprotocol

from dorad.control.errors import ControlError
from dorad.dataflow.html import live_page
from dorad.view.follow import Follower, Place, Wanted
from dorad.view.loopback import LOOPBACK, listen

PORT = 8766
LIVE = "/live"
PROTOCOL = Subprotocol("dora.graph")
TOKEN_PREFIX = "token."  # noqa: S105 - of a subprotocol

MAX_VIEWERS = 8
MAX_CONNECTIONS = 32
"""Open connections, whatever they have sent."""
MAX_REQUEST = 4096
"""Bytes of one frame from a page."""
MAX_NAME = 512
MAX_THROUGH = 8
ANSWER_S = 10.0
SEND_S = 20.0
"""A viewer that takes nothing for so long is disconnected."""

WRONG_TOKEN = 4401
TOO_MANY = 4429

_HOST = re.compile(r"(?:127\.0\.0\.1|localhost|\[::1\])(?::\d{1,5})?", re.ASCII | re.IGNORECASE)
"""What a browser calls this server. Another name would be one that resolves to loopback, by which
a foreign page could read answers; the port may be that of a forwarding `ssh`."""

_log = logging.getLogger(__name__)


class Ask(msgspec.Struct, tag_field="ask"):
    """A request of a page; its answer has the same `id`."""

    id: int


class AskHistory(Ask, tag="history"):
    """The curves of a node and its edges."""

    node: str


class AskTraces(Ask, tag="traces"):
    """The slowest traces through these nodes and outputs."""

    through: list[str]


_REQUESTS = msgspec.json.Decoder(AskHistory | AskTraces)


class GraphServer:
    """Shows one dataflow to the pages that know the token. It is the audience of its follower."""

    def __init__(self, places: Callable[[], Sequence[Place]], wanted: Wanted) -> None:
        self.token = secrets.token_urlsafe(24)
        self._document = live_page()
        self._follower = Follower(places, wanted, self)
        self._latest: dict[str, bytes] = {}
        """The latest frame of each kind. Pages get no other ones, so none waits for a slow page."""
        self._changed = asyncio.Event()
        self._watched = asyncio.Event()
        self._viewers: set[ServerConnection] = set()
        self._open: set[_Connection] = set()

    async def run(self, port: int | None, announce: Callable[[str], None]) -> None:
        """Serve until cancelled; `announce` gets the address of the page.

        Without a port it is `PORT`, or a free one if that is in use.

        Raises:
            OSError: the port is in use.
        """
        listener = listen(port, PORT)
        options: dict[str, Any] = {
            "select_subprotocol": _subprotocol,
            "process_request": self._answer,
            "create_connection": self._connection,
            "compression": None,
            "max_size": MAX_REQUEST,
            "max_queue": 4,
            "open_timeout": 5,
            "close_timeout": 1,
            "server_header": None,
        }
        async with serve(self._serve, sock=listener, **options), asyncio.TaskGroup() as tasks:
            tasks.create_task(self._follower.run())
            announce(f"http://{LOOPBACK}:{listener.getsockname()[1]}/#{self.token}")

    async def wait(self) -> None:
        """Return when a page looks."""
        await self._watched.wait()

    def show(self, kind: str, message: dict[str, Any]) -> None:
        """Show a message to all pages, in place of the one of this kind before it."""
        if kind == "state":
            self._latest.pop("figures", None)  # they are those of before
        elif kind == "figures":
            self._latest.pop("state", None)
        self._latest[kind] = msgspec.json.encode(message)
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()

    # -- Requests of browsers

    def _connection(self, *arguments: Any, **options: Any) -> ServerConnection:
        return _Connection(self._open, *arguments, **options)

    def _answer(self, connection: ServerConnection, request: Request) -> Response | None:
        """Answer with the page, or refuse; None opens a WebSocket."""
        hosts = request.headers.get_all("Host")
        if len(hosts) != 1 or not _HOST.fullmatch(hosts[0]):
            _log.warning("refused a request for the host %.200r", hosts)
            return connection.respond(HTTPStatus.MISDIRECTED_REQUEST, "another host is meant\n")
        path = request.path.partition("?")[0]
        if path == "/":
            return self._page(hosts[0])
        if path != LIVE:
            return connection.respond(HTTPStatus.NOT_FOUND, "there is only /\n")
        origins = request.headers.get_all("Origin")
        if origins not in ([], [f"http://{hosts[0]}"]):
            _log.warning("refused a page of %.200r", origins)
            return connection.respond(HTTPStatus.FORBIDDEN, "another page asks\n")
        return None

    def _page(self, host: str) -> Response:
        body = self._document.text.encode()
        policy = f"{self._document.policy}; connect-src ws://{host}; frame-ancestors 'none'"
        headers = {
            "Content-Type": "text/html; charset=utf-8",
            "Content-Length": str(len(body)),
            "Content-Security-Policy": policy,
            "Cache-Control": "no-store",
            "Connection": "close",
            "Cross-Origin-Opener-Policy": "same-origin",
            "Cross-Origin-Resource-Policy": "same-origin",
            "Referrer-Policy": "no-referrer",
            "X-Content-Type-Options": "nosniff",
            "X-Frame-Options": "DENY",
        }
        return Response(HTTPStatus.OK, "OK", Headers(headers), body)

    async def _serve(self, connection: ServerConnection) -> None:
        if not self._knows_token(connection):
            _log.warning("a page without the token was refused")
            await connection.close(WRONG_TOKEN, "the address lacks the token")
            return
        if len(self._viewers) >= MAX_VIEWERS:
            await connection.close(TOO_MANY, f"{MAX_VIEWERS} pages are connected")
            return
        _log.debug("page %s connects", connection.id)
        self._viewers.add(connection)
        self._watched.set()
        sending = asyncio.create_task(self._send_all(connection))
        try:
            async for frame in connection:
                await connection.send(await self._reply(frame), text=True)
        except ConnectionClosed as error:
            _log.debug("page %s: %s", connection.id, error)
        finally:
            sending.cancel()
            await asyncio.wait({sending})
            self._viewers.discard(connection)
            if not self._viewers:
                self._watched.clear()
                self._latest.pop("figures", None)
            _log.debug("page %s has left", connection.id)

    def _knows_token(self, connection: ServerConnection) -> bool:
        assert connection.request is not None
        offered = ", ".join(connection.request.headers.get_all("Sec-WebSocket-Protocol"))
        given = [
            name.strip().removeprefix(TOKEN_PREFIX)
            for name in offered.split(",")
            if name.strip().startswith(TOKEN_PREFIX)
        ]
        expected = self.token.encode()
        return len(given) == 1 and hmac.compare_digest(given[0].encode(), expected)

    async def _send_all(self, connection: ServerConnection) -> None:
        """Send what is shown, and what is shown later, until the connection ends."""
        sent: dict[str, bytes] = {}
        try:
            while True:
                changed = self._changed
                for kind in ("graph", "figures", "state"):
                    frame = self._latest.get(kind)
                    if frame is not None and sent.get(kind) is not frame:
                        async with asyncio.timeout(SEND_S):
                            await connection.send(frame, text=True)
                        sent[kind] = frame
                await changed.wait()
        except TimeoutError:
            _log.warning("a page takes nothing and is disconnected")
            connection.transport.abort()
        except ConnectionClosed:
            pass  # who reads sees it, too

    async def _reply(self, frame: str | bytes) -> bytes:
        """Answer a request; a wrong one has an answer, too."""
        id_ = None
        try:
            request = _REQUESTS.decode(frame)
            id_ = request.id
            async with asyncio.timeout(ANSWER_S):
                if isinstance(request, AskHistory):
                    _check_names([request.node])
                    answer = await self._follower.history(request.node)
                else:
                    _check_names(request.through)
                    answer = await self._follower.traces(request.through)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            answer = {"type": "error", "error": f"invalid request: {error}"[:1000]}
        except ControlError as error:
            answer = {"type": "error", "error": str(error)}
        except TimeoutError:
            answer = {"type": "error", "error": f"no answer within {ANSWER_S:g} s"}
        return msgspec.json.encode({"id": id_, **answer})


def _check_names(names: Sequence[str]) -> None:
    if len(names) > MAX_THROUGH or any(len(name) > MAX_NAME for name in names):
        raise ControlError("bad-request", "too many names, or too long ones")


def _subprotocol(_: ServerConnection, offered: Sequence[Subprotocol]) -> Subprotocol | None:
    return PROTOCOL if PROTOCOL in offered else None


class _Connection(ServerConnection):
    """A connection that counts from its first byte; one too many is closed at once."""

    def __init__(self, connections: set[_Connection], *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._connections = connections

    def connection_made(self, transport: Any) -> None:
        """Take a place among the open connections."""
        super().connection_made(transport)
        if len(self._connections) >= MAX_CONNECTIONS:
            _log.warning("refused a connection: %d are open", MAX_CONNECTIONS)
            transport.abort()
        else:
            self._connections.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        """Give the place back."""
        self._connections.discard(self)
        super().connection_lost(exc)

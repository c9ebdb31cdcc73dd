"""A client of the coordinator on this machine, for commands: one call after the other."""

from __future__ import annotations

import asyncio
import os
import socket
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from websockets.asyncio.client import connect as connect_websocket
from websockets.exceptions import ConnectionClosed, InvalidStatus, WebSocketException

from dorad import __version__
from dorad.control import codec
from dorad.control.connecting import OPTIONS
from dorad.control.errors import ControlError
from dorad.control.messages import Error, Struct
from dorad.control.pending import PendingRequests, check_welcome, hello
from dorafleet.coordinator.messages import METHODS
from dorafleet.coordinator.token import read_token

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from websockets.asyncio.client import ClientConnection

_LISTENING = "0A"
_REACHED_BY_LOOPBACK = ("0100007F", "00000000")

R = TypeVar("R", bound=Struct)

CONNECT_S = 5.0
"""Seconds until the coordinator's welcome."""

CALL_S = 70.0
"""Seconds for a call; the coordinator itself gives up after 60."""


class CoordinatorClient:
    """An open connection. `connect` makes it."""

    def __init__(self, connection: ClientConnection) -> None:
        self._connection = connection
        self._requests = PendingRequests(METHODS)

    async def call(self, method: str, params: Struct, kind: type[R]) -> R:
        """Call a method and return its result, which is of this type. Raises ControlError."""
        request, frame = self._requests.add(method, params)
        try:
            async with asyncio.timeout(CALL_S):
                await self._connection.send(frame, text=True)
                while not len(request):
                    self._requests.dispatch(await self._connection.recv())
        except TimeoutError:
            message = f"the coordinator did not answer `{method}` within {CALL_S:g} s"
            raise ControlError("deadline", message) from None
        except ConnectionClosed:
            raise ControlError("unavailable", "the coordinator has ended the connection") from None
        result = request.take()
        assert isinstance(result, kind)
        return result


@asynccontextmanager
async def connect(state: Path, port: int) -> AsyncIterator[CoordinatorClient]:
    """Connect to the coordinator at a port of loopback, with the token in its folder.

    Raises:
        ControlError: there is none, or it refuses this client.
    """
    headers = {"Authorization": f"Bearer {read_token(state / 'token')}"}
    url = f"ws://127.0.0.1:{port}/"
    sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        async with asyncio.timeout(CONNECT_S):
            await asyncio.get_running_loop().sock_connect(sock, ("127.0.0.1", port))
        check_listener(port, os.geteuid())
        connection = await connect_websocket(
            url, sock=sock, additional_headers=headers, open_timeout=CONNECT_S, **OPTIONS
        )
    except ControlError:
        sock.close()
        raise
    except InvalidStatus as error:
        raise _refusal(port, bytes(error.response.body or b"")) from None
    except (OSError, WebSocketException) as error:
        sock.close()
        # asyncio puts the address where the reason would be.
        number = error.errno if isinstance(error, OSError) else None
        reason = "it does not answer" if number is None else os.strerror(number)
        raise ControlError(
            "unavailable",
            f"no coordinator at 127.0.0.1 port {port}: {reason}",
            "start one with `dorafleet serve`, or name its port with `--port`",
        ) from None
    async with connection:
        try:
            async with asyncio.timeout(CONNECT_S):
                await connection.send(hello(f"dorafleet {__version__}"), text=True)
                check_welcome(await connection.recv())
        except (TimeoutError, ConnectionClosed):
            message = f"the coordinator at port {port} does not answer"
            raise ControlError("unavailable", message) from None
        yield CoordinatorClient(connection)


def check_listener(port: int, user: int) -> None:
    """Check that a port of loopback belongs to this user or root, before it gets the token.

    Another user of the machine may listen there while no coordinator does.

    Raises:
        ControlError: it belongs to another user, or to nobody known.
    """
    # Fields: number, local address, remote address, state, queues, timer, retransmissions, user.
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    owners = {int(row[7]) for row in rows if row[3] == _LISTENING and _listens(row[1], port)}
    if not owners or owners - {0, user}:
        whose = f"users {sorted(owners)}" if owners else "nobody known"
        raise ControlError(
            "refused",
            f"127.0.0.1 port {port} belongs to {whose}, not to you; the token was not sent",
            "start your own coordinator at another port with `--port`",
        )


def _listens(address: str, port: int) -> bool:
    host, _, number = address.partition(":")
    return int(number, 16) == port and host in _REACHED_BY_LOOPBACK


def _refusal(port: int, body: bytes) -> ControlError:
    try:
        return ControlError.of(codec.decode(body, Error, "the refusal"))
    except ControlError:
        return ControlError(
            "unavailable", f"what listens at port {port} does not answer like a coordinator"
        )

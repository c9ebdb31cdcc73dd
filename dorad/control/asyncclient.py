"""The client of the control API for asyncio: one connection to a daemon, for many tasks."""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, Self, TypeAlias, TypeVar, cast

from websockets.asyncio.client import unix_connect
from websockets.exceptions import ConnectionClosed, InvalidStatus, WebSocketException

from dorad import __version__
from dorad.control import faults
from dorad.control.arrays import to_message
from dorad.control.asyncmethods import AsyncMethods
from dorad.control.connecting import (
    ANSWER_S,
    CALL_S,
    CONNECT_S,
    OPTIONS,
    SILENCE_S,
    open_socket,
)
from dorad.control.errors import ControlError, NoDaemonError
from dorad.control.limits import time_allowed
from dorad.control.listening import places
from dorad.control.messages import Struct
from dorad.control.pending import END, PendingRequests, check_welcome, exactly, hello

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    import pyarrow as pa
    from websockets.asyncio.client import ClientConnection

    from dorad.control.messages import TopicHeader, TopicSubscribe
    from dorad.control.pending import PendingRequest

__all__ = ["AsyncArrays", "AsyncClient", "AsyncStream", "ControlError", "NoDaemonError"]

R = TypeVar("R", bound=Struct)
T = TypeVar("T")

NAME = f"dorad-client {__version__}"


class AsyncClient(AsyncMethods):
    """A connection to a daemon, to be used in an `async with` block, or with `open` and `close`.

    Tasks may share it. A stream that is not read, while others wait for what they asked for,
    keeps its events, and is ended with `too-slow` when they become too many.
    """

    def __init__(
        self, path: str | Path | None = None, *, name: str = NAME, timeout: float = CALL_S
    ) -> None:
        """For the daemon at `path`; without it, for the one in the usual places.

        `name` tells the daemon who speaks; `timeout` is for calls that do not ask for more.
        """
        self._given = None if path is None else Path(path)
        self._name = name
        self._timeout = timeout
        self._exchange = PendingRequests()
        self._reading = False
        self._moved = asyncio.Event()
        self._broken: ControlError | None = None
        self._since = time.monotonic()
        """When the last frame came, or the ping was sent that is not answered yet."""
        self._ping: asyncio.Future[float] | None = None
        self._connection: ClientConnection
        self.path: Path
        """The daemon's socket, once connected."""
        self.daemon: str
        """What the daemon calls itself, such as `dorad 0.1.0`."""

    async def __aenter__(self) -> Self:
        return await self.open()

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()

    async def open(self) -> Self:
        """Connect.

        Raises:
            NoDaemonError: there is no daemon.
            ControlError: with code `deadline` (it does not answer), `unavailable` (it ends),
                `refused`, `busy` or `version`.
        """
        self.path, self._pid, sock = await asyncio.to_thread(
            open_socket, places() if self._given is None else (self._given,)
        )
        give_up = time.monotonic() + CONNECT_S
        try:
            self._connection = await unix_connect(sock=sock, open_timeout=CONNECT_S, **OPTIONS)
        except TimeoutError:
            raise faults.hung(self.path, self._pid, CONNECT_S) from None
        except (OSError, WebSocketException) as error:
            body = error.response.body if isinstance(error, InvalidStatus) else b""
            raise faults.not_opened(error, self.path, bytes(body or b"")) from None
        try:
            async with asyncio.timeout(give_up - time.monotonic()):
                await self._connection.send(hello(self._name), text=True)
                self.daemon = check_welcome(await self._connection.recv())
        except BaseException as error:
            await self.close()
            if isinstance(error, TimeoutError):
                raise faults.hung(self.path, self._pid, CONNECT_S) from None
            if isinstance(error, ConnectionClosed):
                raise faults.closed(_code(error)) from None
            raise
        return self

    async def close(self) -> None:
        """End the connection, and with it all calls and streams."""
        await self._connection.close()

    async def call(self, method: str, params: Struct, kind: type[R]) -> R:
        """Return the result of a method, which is of this type.

        Raises:
            ControlError: the daemon's, or one of our own: `deadline` when it does not answer in
                time, `unavailable` when the connection ends.
        """
        seconds = time_allowed(params, self._timeout)
        ask = await self._ask(method, params)
        try:
            async with asyncio.timeout(seconds):
                await self._await(ask)
            result = ask.take()
        except TimeoutError:
            raise faults.late(method, seconds or 0) from None
        finally:
            await self._drop(ask)
        assert isinstance(result, kind)
        return result

    def stream(self, method: str, params: Struct, kind: type[R]) -> AsyncStream[R]:
        """Return the events of a method, which are of this type; see `AsyncStream`."""
        return AsyncStream(self, method, params, exactly(kind))

    def arrays(self, params: TopicSubscribe) -> AsyncArrays:
        """Return the messages of `topic.subscribe`; see `AsyncStream`."""
        return AsyncStream(self, "topic.subscribe", params, to_message)

    async def _ask(self, method: str, params: Struct) -> PendingRequest:
        if self._broken is not None:
            raise self._broken
        ask, frame = self._exchange.ask(method, params)
        await self._send(frame)
        return ask

    async def _send(self, frame: bytes) -> None:
        try:
            async with asyncio.timeout(CALL_S):
                await self._connection.send(frame, text=True)
        except TimeoutError:
            raise faults.hung(self.path, self._pid, CALL_S) from None
        except ConnectionClosed as error:
            raise faults.closed(_code(error)) from None

    async def _drop(self, ask: PendingRequest) -> None:
        """Forget a request; if it is not over, end it."""
        frame = self._exchange.drop(ask)
        if frame is not None and self._broken is None:
            # If the connection is gone, so is what we would end.
            with suppress(ControlError):
                await self._send(frame)

    async def _await(self, ask: PendingRequest) -> None:
        """Return when something has arrived for `ask`.

        Of the tasks that wait one reads, for all of them.

        Raises:
            ControlError: the connection has ended.
        """
        while not len(ask):
            if self._broken is not None:
                raise self._broken
            if self._reading:
                await self._moved.wait()
                continue
            self._reading = True
            try:
                frame = await self._read()
                answer = None if frame is None else self._exchange.arrive(frame)
            except ControlError as error:
                self._broken = error
                raise
            finally:
                self._reading = False
                self._moved.set()
                self._moved = asyncio.Event()
            if answer is not None:
                await self._send(answer)

    async def _read(self) -> str | bytes | None:
        """Return the next frame; None if there was none for a while.

        Raises:
            ControlError: there will be none.
        """
        try:
            with suppress(TimeoutError):
                async with asyncio.timeout(SILENCE_S):
                    frame = await self._connection.recv()
                self._heard()
                return frame
            if self._ping is None:
                if time.monotonic() - self._since >= SILENCE_S:
                    answered = await self._connection.ping()
                    self._ping = cast("asyncio.Future[float]", answered)
                    self._since = time.monotonic()
                return None
        except ConnectionClosed as error:
            raise faults.closed(_code(error)) from None
        if self._ping.done():
            self._heard()
        elif time.monotonic() - self._since >= ANSWER_S:
            raise faults.hung(self.path, self._pid, ANSWER_S)
        return None

    def _heard(self) -> None:
        self._ping, self._since = None, time.monotonic()


class AsyncStream(Generic[T]):
    """The events of a stream, for an `async for` loop.

    It is asked for when an `async with` block is entered, or else with the first event; it ends
    when the block, or the client, is left.
    """

    def __init__(
        self, client: AsyncClient, method: str, params: Struct, convert: Callable[[Any], T]
    ) -> None:
        self._client = client
        self._method = method
        self._params = params
        self._convert = convert
        self._ask: PendingRequest | None = None
        self._over = False

    async def __aenter__(self) -> Self:
        await self._start()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> T:
        if self._over:
            raise StopAsyncIteration
        ask = await self._start()
        try:
            await self._client._await(ask)
            event = ask.take()
        except ControlError:
            self._over = True
            raise
        if event is END:
            self._over = True
            raise StopAsyncIteration
        return self._convert(event)

    async def close(self) -> None:
        """End the stream; nothing is wrong if it has ended already."""
        self._over = True
        if self._ask is not None:
            await self._client._drop(self._ask)

    async def _start(self) -> PendingRequest:
        if self._ask is None:
            self._ask = await self._client._ask(self._method, self._params)
        return self._ask


AsyncArrays: TypeAlias = "AsyncStream[tuple[TopicHeader, pa.Array | None]]"
"""Messages of outputs: what is known of each, and its Arrow array."""


def _code(error: ConnectionClosed) -> int | None:
    return None if error.rcvd is None else error.rcvd.code

"""The client of the control API for asyncio: one connection to a server, for many tasks."""

from __future__ import annotations

import asyncio
import time
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple, Self, TypeVar, cast

from websockets.asyncio.client import ClientConnection
from websockets.asyncio.client import connect as connect_websocket
from websockets.exceptions import ConnectionClosed, InvalidStatus, WebSocketException
from websockets.protocol import State

from dorad import __version__
from dorad.control import faults
from dorad.control.asyncstream import AsyncFrames, AsyncStream
from dorad.control.client import targets_of
from dorad.control.connecting import (
    OPTIONS,
    Attempts,
    Deadline,
    Opened,
    Opening,
    open_failed,
    open_socket,
)
from dorad.control.errors import ControlError, NoDaemonError
from dorad.control.messages import (
    TOPIC_SUBSCRIBE,
    AnyMethod,
    CallMethod,
    StreamMethod,
    Struct,
    TopicHeader,
    TopicSubscribe,
)
from dorad.control.methods import Methods
from dorad.control.pending import PendingRequest, PendingRequests, check_welcome, hello
from dorad.control.requests import A, Call, Request, StreamCall
from dorad.control.target import NEAR, ROBOT, Accepted, Targets, Tcp, Timing, UnixSocket

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Mapping
    from pathlib import Path

    from websockets.asyncio.connection import Connection

    from dorad.control.faults import Server
    from dorad.control.messages.method import P, R

__all__ = ["AsyncClient", "AsyncStream", "ControlError", "NoDaemonError"]

T = TypeVar("T")

NAME = f"dorad-client {__version__}"


class AsyncClient(Methods):
    """A connection to a server. Use it in an `async with` block, or with `open` and `close`.

    Tasks may share it. While other tasks wait for answers, a stream that is not read keeps its
    events; with too many of them it ends with the error `too-slow`.
    """

    def __init__(
        self,
        target: str | Path | UnixSocket | Tcp | Targets | Accepted | None = None,
        *,
        name: str = NAME,
        timeout: float | None = None,
    ) -> None:
        """Prepare a connection: a daemon's socket, a coordinator, or by default as `chosen` says.

        A robot that has connected itself is a server, too. `name` identifies this client to the
        server; `timeout` limits calls whose parameters do not request more.
        """
        self._target = target
        self._name = name
        self._timeout = timeout
        self._timing = NEAR
        self._pace = target.pace if isinstance(target, Accepted) else None
        self._requests = PendingRequests(self._pace)
        self._reading = False
        self._arrival = asyncio.Event()
        self._broken: ControlError | None = None
        self._last_sign = time.monotonic()
        """When the last frame arrived, or the ping was sent that is not answered yet."""
        self._ping: asyncio.Future[float] | None = None
        self._answer_by: Deadline
        """When the ping must be answered."""
        self._connection: Connection
        self._at: UnixSocket | Tcp | None = None
        """The one of the targets that has answered."""
        self.server: Server
        """Where the server is, for messages, once connected."""
        self.daemon: str
        """The server's name and version, such as `dorad 0.1.0`."""
        self.role = ""
        """What this client may do there; empty if an older server does not say so."""

    async def __aenter__(self) -> Self:
        return await self.open()

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def open(self) -> Self:
        """Connect.

        Raises:
            NoDaemonError: no daemon is running.
            ControlError: with code `deadline` (it does not answer), `unavailable` (it is ending),
                `refused`, `busy` or `version`.
        """
        if isinstance(self._target, Accepted):
            server = faults.agent_of(self._target.robot)
            deadline = Deadline(server, ROBOT.connect)
            greeted = await _greet(self._target.connection, server, ROBOT, deadline, self._name)
        else:
            targets = await asyncio.to_thread(targets_of, self._target)
            self._at, greeted = await _first_greeted(targets, self._name)
        self.server, self._timing, self._connection, self.daemon, self.role = greeted
        return self

    @asynccontextmanager
    async def beside(self, path: str, headers: Mapping[str, str]) -> AsyncIterator[Connection]:
        """Open another connection to the same server at a path, for what is no request.

        Raises:
            ControlError: the server does not answer, or refuses it.
        """
        assert self._at is not None, "a robot has connected itself"
        async with connected(self._at, path, headers) as connection:
            yield connection

    @property
    def connected(self) -> bool:
        """Whether the connection is open, as far as is known."""
        return self._broken is None and self._connection.state is State.OPEN

    async def answers(self, seconds: float) -> bool:
        """Return whether the server answers a ping within this time."""
        try:
            async with asyncio.timeout(seconds):
                await (await self._connection.ping())
        except (TimeoutError, ConnectionClosed):
            return False
        return True

    async def close(self) -> None:
        """End the connection, and with it all calls and streams."""
        try:
            await self._connection.close()
        except asyncio.CancelledError:
            self._connection.transport.abort()
            raise

    async def call(self, method: CallMethod[P, R], params: P) -> R:
        """Call a method and return its result.

        Raises:
            ControlError: the server's own error, `deadline` if it does not answer in time, or
                `unavailable` if the connection ends.
        """
        usual = self._timing.call if self._timeout is None else self._timeout
        seconds = method.time_allowed(params, usual)
        request = await self._send_request(method, params)
        try:
            async with asyncio.timeout(seconds):
                await self._wait_for(request)
            result = request.take()
        except TimeoutError:
            raise faults.call_timed_out(self.server, method.name, seconds or 0) from None
        finally:
            await self._cancel(request)
        assert isinstance(result, method.result)
        return result

    async def perform(self, call: Call[A, T], *args: A.args, **kwargs: A.kwargs) -> T:
        """Call the method of a request that `call` makes, and return the result."""
        if call.reads_files:
            request = await asyncio.to_thread(call.request, self, *args, **kwargs)
        else:
            request = call.request(self, *args, **kwargs)
        return request.convert(await self.call(request.method, request.params))

    def stream(self, method: StreamMethod[P, R], params: P) -> AsyncStream[R]:
        """Return a stream of the events of a method; see `AsyncStream`."""
        return self._open(Request(method, params))

    def open_stream(
        self, call: StreamCall[A, T], *args: A.args, **kwargs: A.kwargs
    ) -> AsyncStream[T]:
        """Return the stream that a request opens which `call` makes; see `AsyncStream`."""
        return self._open(call.request(self, *args, **kwargs))

    def frames(self, params: TopicSubscribe) -> AsyncFrames:
        """Request the messages of `topic.subscribe`, and return them without decoding the data."""
        return self._open(Request(TOPIC_SUBSCRIBE, params, _undecoded))

    def _open(self, request: Request[T]) -> AsyncStream[T]:
        send = partial(self._send_request, request.method, request.params)
        return AsyncStream(send, self._wait_for, self._cancel, request.convert)

    async def _send_request(self, method: AnyMethod, params: Struct) -> PendingRequest:
        if self._broken is not None:
            raise self._broken
        request, frame = self._requests.add(method, params)
        await self._send(frame)
        return request

    async def _send(self, frame: bytes) -> None:
        try:
            async with asyncio.timeout(self._timing.call):
                await self._connection.send(frame, text=True)
        except TimeoutError:
            raise faults.not_responding(self.server, self._timing.call) from None
        except ConnectionClosed as error:
            raise faults.connection_closed(self.server, _code(error)) from None

    async def _cancel(self, request: PendingRequest) -> None:
        """Forget a request, and cancel it in the server if it is still running."""
        frame = self._requests.drop(request)
        if frame is not None and self._broken is None:
            # A lost connection has ended the request already.
            with suppress(ControlError):
                await self._send(frame)

    async def _wait_for(self, request: PendingRequest) -> None:
        """Wait until something has arrived for `request`.

        One of the waiting tasks reads from the socket, for all of them.

        Raises:
            ControlError: the connection has ended.
        """
        while not len(request):
            if self._broken is not None:
                raise self._broken
            if self._reading:
                await self._arrival.wait()
                continue
            self._reading = True
            try:
                frame = await self._read()
                answer = None if frame is None else self._requests.dispatch(frame)
            except ControlError as error:
                self._broken = error
                raise
            finally:
                self._reading = False
                self._arrival.set()
                self._arrival = asyncio.Event()
            if answer is not None:
                await self._send(answer)

    async def _read(self) -> str | bytes | None:
        """Return the next frame, or None if none arrived for a while.

        Raises:
            ControlError: the connection has ended, or the server does not respond.
        """
        if self._pace is not None and (seconds := self._pace.pause()):
            # Before a frame is taken: a task that is cancelled now loses none.
            await asyncio.sleep(seconds)
        try:
            with suppress(TimeoutError):
                async with asyncio.timeout(self._timing.silence):
                    frame = await self._connection.recv()
                self._mark_alive()
                return frame
            if self._ping is None:
                if time.monotonic() - self._last_sign >= self._timing.silence:
                    answered = await self._connection.ping()
                    self._ping = cast("asyncio.Future[float]", answered)
                    self._last_sign = time.monotonic()
                    self._answer_by = Deadline(self.server, self._timing.answer)
                return None
        except ConnectionClosed as error:
            raise faults.connection_closed(self.server, _code(error)) from None
        if self._ping.done():
            self._mark_alive()
        elif self._answer_by.left() <= 0 and not self._answer_by.extended():
            raise faults.not_responding(self.server, self._timing.answer)
        return None

    def _mark_alive(self) -> None:
        self._ping, self._last_sign = None, time.monotonic()


class _Greeted(NamedTuple):
    """A server that has answered the hello."""

    server: Server
    timing: Timing
    connection: Connection
    daemon: str
    role: str


async def _first_greeted(targets: Targets, name: str) -> tuple[UnixSocket | Tcp, _Greeted]:
    """Return the first of these servers that answers the hello. Raises ControlError.

    No other connection stays open, at whatever moment this is cancelled.
    """
    greetings: set[asyncio.Task[_Greeted]] = set()
    answered: tuple[UnixSocket | Tcp, _Greeted] | None = None

    def abandon(greeting: asyncio.Task[_Greeted]) -> None:
        if greeting.cancelled() or greeting.exception() is not None:
            return
        if answered is None or greeting.result() is not answered[1]:
            greeting.result().connection.transport.abort()

    try:
        first = await _race(targets, name, greetings)
        await _cancel(greetings)
        answered = first  # from here on, nothing waits
        return answered
    finally:
        for greeting in greetings:
            greeting.add_done_callback(abandon)
        await _cancel(greetings)


async def _race(
    targets: Targets, name: str, greetings: set[asyncio.Task[_Greeted]]
) -> tuple[UnixSocket | Tcp, _Greeted]:
    """Try servers until one has answered; the caller ends the `greetings` of the others.

    Raises:
        ControlError: none of them answers.
    """
    loop = asyncio.get_running_loop()

    async def greet(opened: Opened) -> _Greeted:
        if over:
            opened.sock.close()
            raise ControlError("cancelled", "another server has answered")
        greeting = asyncio.create_task(_open_and_greet(opened, name))
        greetings.add(greeting)
        return await greeting

    def attempt(target: UnixSocket | Tcp) -> _Greeted | None:
        opened = open_socket(target)
        if opened is None:
            return None
        if loop.is_closed():
            opened.sock.close()
            return None
        return asyncio.run_coroutine_threadsafe(greet(opened), loop).result()

    attempts, over = Attempts(targets), False
    # What comes too late needs no closing here: the caller aborts all greetings but the first.
    opening = Opening(targets, attempt, lambda _: None)
    try:
        while (outcome := await asyncio.to_thread(next, opening, None)) is not None:
            target, greeted = outcome
            if isinstance(greeted, _Greeted):
                return target, greeted
            attempts.failed(target, greeted)
        raise await asyncio.to_thread(attempts.error)
    finally:
        over = True
        opening.close()


async def _cancel(greetings: set[asyncio.Task[_Greeted]]) -> None:
    """Cancel those that are not done, and wait for their ends."""
    left = {each for each in greetings if not each.done()}
    for each in left:
        each.cancel()
    if left:
        await asyncio.wait(left)


async def _open_and_greet(opened: Opened, name: str) -> _Greeted:
    deadline = Deadline(opened.server, opened.timing.connect)
    connection = await _open(opened, deadline)
    return await _greet(connection, opened.server, opened.timing, deadline, name)


async def _greet(
    connection: Connection, server: Server, timing: Timing, deadline: Deadline, name: str
) -> _Greeted:
    """Say hello on a connection; close it if there is no welcome. Raises ControlError."""
    try:
        await connection.send(hello(name), text=True)
        frame = await _within(deadline, connection.recv())
        welcome = check_welcome(frame, server)
    except asyncio.CancelledError:
        connection.transport.abort()
        raise
    except BaseException as error:
        await connection.close()
        if isinstance(error, TimeoutError):
            raise faults.not_responding(server, timing.connect) from None
        if isinstance(error, ConnectionClosed):
            raise faults.connection_closed(server, _code(error)) from None
        raise
    return _Greeted(server, timing, connection, welcome.welcome, welcome.role)


@asynccontextmanager
async def connected(
    target: UnixSocket | Tcp, path: str, headers: Mapping[str, str]
) -> AsyncIterator[Connection]:
    """Open a connection to a server at a path, for what is no request.

    Raises:
        ControlError: the server does not answer, or refuses it.
    """
    opened = await asyncio.to_thread(open_socket, target)
    if opened is None:
        raise ControlError("unavailable", f"nothing listens at {target}")
    opened = opened._replace(headers={**opened.headers, **headers})
    connection = await _open(opened, Deadline(opened.server, opened.timing.connect), path)
    try:
        yield connection
    finally:
        await connection.close()


def _undecoded(event: Any) -> tuple[TopicHeader, memoryview]:
    header, data = event
    return header, data


def _code(error: ConnectionClosed) -> int | None:
    return None if error.rcvd is None else error.rcvd.code


class _Coordinator(ClientConnection):
    """A connection that sends nothing, not even its token, before it knows the server."""

    async def handshake(self, *args: Any, **kwargs: Any) -> None:
        """Check the certificate of the server, then open the WebSocket."""
        from dorad.control.tls import check_coordinator

        check_coordinator(self.transport.get_extra_info("ssl_object"))
        await super().handshake(*args, **kwargs)


async def _within(deadline: Deadline, answer: Awaitable[T]) -> T:
    """Wait for an answer until the deadline, which may be postponed.

    Raises:
        TimeoutError: the deadline has passed.
    """
    task = asyncio.ensure_future(answer)
    try:
        while not (await asyncio.wait({task}, timeout=deadline.left()))[0]:
            if not deadline.extended():
                raise TimeoutError
        return task.result()
    finally:
        if task.cancel():
            await asyncio.wait({task})


def _abort(opening: asyncio.Future[ClientConnection]) -> None:
    if not opening.cancelled() and opening.exception() is None:
        opening.result().transport.abort()


async def _open(opened: Opened, deadline: Deadline, path: str = "/") -> ClientConnection:
    """Open the WebSocket on a connected socket. Raises ControlError."""
    given = dict(OPTIONS)
    if opened.tls is not None:
        given |= {"ssl": opened.tls, "create_connection": _Coordinator}
    websocket = connect_websocket(
        f"ws{'s' if opened.tls else ''}://{opened.host}{path}",
        sock=opened.sock,
        additional_headers=opened.headers,
        open_timeout=None,
        **given,
    )
    opening = asyncio.ensure_future(websocket)
    try:
        return await _within(deadline, opening)
    except asyncio.CancelledError:
        opening.add_done_callback(_abort)  # it may have opened just then
        raise
    except TimeoutError:
        raise faults.not_responding(opened.server, opened.timing.connect) from None
    except (OSError, WebSocketException) as error:
        body = error.response.body if isinstance(error, InvalidStatus) else b""
        raise open_failed(opened, error, bytes(body or b"")) from None

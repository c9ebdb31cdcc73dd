"""The client of the control API: one connection to a server, for any number of threads."""

from __future__ import annotations

import threading
import time
from contextlib import closing, suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, Self, TypeVar

from dorad import __version__
from dorad.control import faults
from dorad.control.connecting import (
    Attempts,
    Deadline,
    Opened,
    Opening,
    open_failed,
    open_socket,
)
from dorad.control.errors import ControlError, NoDaemonError
from dorad.control.limits import MAX_REPLY
from dorad.control.methods import Methods
from dorad.control.pending import PendingRequest, PendingRequests, check_welcome, hello
from dorad.control.requests import A, Call, Request, StreamCall
from dorad.control.stream import Stream
from dorad.control.target import Targets, Tcp, Timing, UnixSocket
from dorad.control.transport import SocketTransport, Transport
from dorad.control.websocket import ClosedError, NotOpenedError, WebSocket

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable

    from dorad.control.faults import Server
    from dorad.control.messages import AnyMethod, CallMethod, StreamMethod, Struct
    from dorad.control.messages.method import P, R

__all__ = ["Client", "ControlError", "NoDaemonError", "Stream"]

T = TypeVar("T")

NAME = f"dorad-client {__version__}"


class Client(Methods):
    """A connection to a server. Use it in a `with` block, or close it with `close`.

    Threads may share it. While other threads wait for answers, a stream that is not read keeps its
    events; with too many of them it ends with the error `too-slow`.
    """

    def __init__(
        self,
        target: str | Path | UnixSocket | Tcp | Targets | None = None,
        *,
        name: str = NAME,
        timeout: float | None = None,
    ) -> None:
        """Connect to a server: a daemon's socket, a coordinator, or by default as `chosen` says.

        Of several, the first that answers is used.

        `name` identifies this client to the server; `timeout` limits calls whose parameters do not
        request more.

        Raises:
            NoDaemonError: no daemon is running.
            ControlError: with code `deadline` (it does not answer), `unavailable` (it is ending),
                `refused`, `busy` or `version`.
        """
        self._requests = PendingRequests()
        self._condition = threading.Condition()
        self._reading = False
        self._broken: ControlError | None = None
        self._pinged_at: float | None = None
        """When the last ping was sent."""
        self._answer_by: Deadline | None = None
        """When it must be answered."""
        self.server: Server
        """Where the server is, for messages."""
        self._timing: Timing
        self._connection: WebSocket
        self.daemon: str
        """The server's name and version, such as `dorad 0.1.0`."""
        self.target, self.skipped = self._connect(targets_of(target), name)
        """The server that has answered, and why coordinators before it did not."""
        self._timeout = self._timing.call if timeout is None else timeout

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the connection, and with it all calls and streams."""
        self._connection.close()

    def call(self, method: CallMethod[P, R], params: P) -> R:
        """Call a method and return its result.

        Raises:
            ControlError: the server's own error, `deadline` if it does not answer in time, or
                `unavailable` if the connection ends.
        """
        seconds = method.time_allowed(params, self._timeout)
        request = self._send_request(method, params)
        try:
            self._wait_for(request, seconds)
            result = request.take()
        except TimeoutError:
            raise faults.call_timed_out(self.server, method.name, seconds or 0) from None
        finally:
            self._cancel(request)
        assert isinstance(result, method.result)
        return result

    def perform(self, call: Call[A, T], *args: A.args, **kwargs: A.kwargs) -> T:
        """Call the method of a request that `call` makes, and return the result."""
        request = call.request(self, *args, **kwargs)
        return request.convert(self.call(request.method, request.params))

    def stream(self, method: StreamMethod[P, R], params: P) -> Stream[R]:
        """Request a stream of the events of a method at once, and return it."""
        return self._open(Request(method, params))

    def open_stream(self, call: StreamCall[A, T], *args: A.args, **kwargs: A.kwargs) -> Stream[T]:
        """Send a request that `call` makes at once, and return the stream."""
        return self._open(call.request(self, *args, **kwargs))

    def _open(self, request: Request[T]) -> Stream[T]:
        pending = self._send_request(request.method, request.params)
        return Stream(pending, self._wait_for, self._cancel, request.convert)

    def _connect(self, targets: Targets, name: str) -> tuple[UnixSocket | Tcp, tuple[str, ...]]:
        """Connect to the first of these servers that answers. Raises ControlError."""
        attempts = Attempts(targets)
        greeting = Opening(targets, partial(_greet, name), _Greeted.close)
        with closing(greeting):
            for target, greeted in greeting:
                if isinstance(greeted, _Greeted):
                    self.server, self._timing, self._connection, self.daemon = greeted
                    return target, attempts.skipped(target)
                attempts.failed(target, greeted)
        raise attempts.error()

    def _send_request(self, method: AnyMethod, params: Struct) -> PendingRequest:
        with self._condition:
            if self._broken is not None:
                raise self._broken
            request, frame = self._requests.add(method, params)
        self._send(frame)
        return request

    def _send(self, frame: bytes) -> None:
        try:
            self._connection.send(frame, text=True)
        except ClosedError as error:
            raise faults.connection_closed(self.server, error.code) from None

    def _cancel(self, request: PendingRequest) -> None:
        """Forget a request, and cancel it in the server if it is still running."""
        with self._condition:
            frame = self._requests.drop(request)
        if frame is not None and self._broken is None:
            # A lost connection has ended the request already.
            with suppress(ControlError):
                self._send(frame)

    def _wait_for(self, request: PendingRequest, seconds: float | None) -> None:
        """Wait until something has arrived for `request`.

        One of the waiting threads reads from the socket, for all of them.

        Raises:
            TimeoutError: nothing arrived within `seconds`.
            ControlError: the connection has ended.
        """
        deadline = None if seconds is None else time.monotonic() + seconds
        with self._condition:
            while not len(request):
                if self._broken is not None:
                    raise self._broken
                left = None if deadline is None else deadline - time.monotonic()
                if left is not None and left <= 0:
                    raise TimeoutError
                if self._reading:
                    self._condition.wait(left)
                    continue
                self._reading = True
                try:
                    # Inside `try`, so that after a Ctrl-C here `finally` acquires it again.
                    self._condition.release()
                    frame = self._read(left)
                except ControlError as error:
                    self._broken = error
                    raise
                finally:
                    self._condition.acquire()
                    self._reading = False
                    self._condition.notify_all()
                if frame is not None:
                    self._dispatch(frame)

    def _dispatch(self, frame: str | bytes) -> None:
        """Hand a frame to its request, and send what it must be answered with."""
        try:
            answer = self._requests.dispatch(frame)
            if answer is not None:
                self._send(answer)
        except ControlError as error:
            self._broken = error

    def _read(self, seconds: float | None) -> str | bytes | None:
        """Return the next frame, or None if none arrived for a while.

        Raises:
            ControlError: the connection has ended, or the server does not respond.
        """
        try:
            with suppress(TimeoutError):
                silence = self._timing.silence
                return self._connection.receive(
                    silence if seconds is None else min(seconds, silence)
                )
            self._check_alive()
        except ClosedError as error:
            raise faults.connection_closed(self.server, error.code) from None
        return None

    def _check_alive(self) -> None:
        """Ping a server that is silent.

        Raises:
            ControlError: it has not answered the ping in time.
            ClosedError: the connection has ended.
        """
        now = time.monotonic()
        if self._pinged_at is not None and self._connection.last_received < self._pinged_at:
            assert self._answer_by is not None
            if self._answer_by.left() <= 0 and not self._answer_by.extended():
                raise faults.not_responding(self.server, self._timing.answer)
        elif now - self._connection.last_received >= self._timing.silence:
            self._pinged_at = now
            self._answer_by = Deadline(self.server, self._timing.answer)
            self._connection.ping()


class _Greeted(NamedTuple):
    """A server that has answered the hello."""

    server: Server
    timing: Timing
    connection: WebSocket
    daemon: str
    """Its name and version."""

    def close(self) -> None:
        self.connection.close()


def _greet(name: str, target: UnixSocket | Tcp) -> _Greeted | None:
    """Say hello to a server; return None if nothing listens there. Raises ControlError."""
    opened = open_socket(target)
    if opened is None:
        return None
    server, timing = opened.server, opened.timing
    deadline = Deadline(server, timing.connect)
    connection = _open(opened, deadline)
    try:
        connection.send(hello(name), text=True)
        frame = _within(deadline, connection.receive)
        return _Greeted(server, timing, connection, check_welcome(frame, server).welcome)
    except BaseException as error:
        connection.close()
        if isinstance(error, TimeoutError):
            raise faults.not_responding(server, timing.connect) from None
        if isinstance(error, ClosedError):
            raise faults.connection_closed(server, error.code) from None
        raise


def targets_of(
    given: str | Path | UnixSocket | Tcp | Targets | None,
) -> Targets:
    """Return the servers to try: the given ones, or those that the user has chosen."""
    if given is None:
        from dorad.control.choosing import chosen

        return chosen()
    if isinstance(given, (str, Path)):
        return (UnixSocket(Path(given)),)
    return (given,) if isinstance(given, (UnixSocket, Tcp)) else given


def _within(deadline: Deadline, step: Callable[[float], T]) -> T:
    """Call `step` with the seconds left, and again if the deadline is postponed.

    Raises:
        TimeoutError: the deadline has passed.
    """
    while True:
        try:
            return step(deadline.left())
        except TimeoutError:
            if not deadline.extended():
                raise


def _open(opened: Opened, deadline: Deadline) -> WebSocket:
    """Open the WebSocket on a connected socket. Raises ControlError."""
    below = SocketTransport(opened.sock)
    try:
        transport = below if opened.tls is None else _encrypted(below, opened.tls, deadline.left())
        connection = WebSocket(transport, max_size=MAX_REPLY, masked=opened.server.path is None)
        connection.request(opened.host, opened.headers)
        _within(deadline, connection.open)
    except BaseException as error:
        below.close()
        if isinstance(error, TimeoutError):
            raise faults.not_responding(opened.server, opened.timing.connect) from None
        if isinstance(error, (OSError, NotOpenedError)):
            raise open_failed(opened, error, getattr(error, "body", b"")) from None
        raise
    return connection


def _encrypted(below: SocketTransport, context: ssl.SSLContext, seconds: float) -> Transport:
    # Most connections are to a daemon on this machine, and need none of this.
    from dorad.control.tlstransport import TlsTransport

    return TlsTransport(below, context, seconds)

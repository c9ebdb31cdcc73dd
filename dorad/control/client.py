"""The client of the control API: one connection to a daemon, for any number of threads."""

from __future__ import annotations

import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, Self, TypeAlias, TypeVar

from dorad import __version__
from dorad.control import faults
from dorad.control.arrays import to_message
from dorad.control.connecting import (
    ANSWER_S,
    CALL_S,
    CONNECT_S,
    SILENCE_S,
    open_socket,
)
from dorad.control.errors import ControlError, NoDaemonError
from dorad.control.limits import LARGEST_REPLY, time_allowed
from dorad.control.listening import places
from dorad.control.messages import Struct
from dorad.control.methods import Methods
from dorad.control.pending import END, PendingRequests, check_welcome, exactly, hello
from dorad.control.websocket import ClosedError, NotOpenedError, WebSocket

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    import pyarrow as pa

    from dorad.control.messages import TopicHeader, TopicSubscribe
    from dorad.control.pending import PendingRequest

__all__ = ["Arrays", "Client", "ControlError", "NoDaemonError", "Stream"]

R = TypeVar("R", bound=Struct)
T = TypeVar("T")

NAME = f"dorad-client {__version__}"


class Client(Methods):
    """A connection to a daemon, to be used in a `with` block or closed with `close`.

    Threads may share it. A stream that is not read, while others wait for what they asked for,
    keeps its events, and is ended with `too-slow` when they become too many.
    """

    def __init__(
        self, path: str | Path | None = None, *, name: str = NAME, timeout: float = CALL_S
    ) -> None:
        """Connect to the daemon at `path`; without it, to the one in the usual places.

        `name` tells the daemon who speaks; `timeout` is for calls that do not ask for more.

        Raises:
            NoDaemonError: there is none.
            ControlError: with code `deadline` (it does not answer), `unavailable` (it ends),
                `refused`, `busy` or `version`.
        """
        self._timeout = timeout
        self._exchange = PendingRequests()
        self._turn = threading.Condition()
        self._reading = False
        self._broken: ControlError | None = None
        self._asked: float | None = None
        """When the ping was sent that is not answered yet."""
        self.path, self._pid, sock = open_socket(places() if path is None else (Path(path),))
        """The daemon's socket."""
        give_up = time.monotonic() + CONNECT_S
        self._connection = WebSocket(sock, max_size=LARGEST_REPLY)
        try:
            self._connection.open(CONNECT_S)
        except (OSError, NotOpenedError) as error:
            self._connection.close()
            if isinstance(error, TimeoutError):
                raise faults.hung(self.path, self._pid, CONNECT_S) from None
            raise faults.not_opened(error, self.path, getattr(error, "body", b"")) from None
        self.daemon = self._shake_hands(name, give_up)
        """What the daemon calls itself, such as `dorad 0.1.0`."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the connection, and with it all calls and streams."""
        self._connection.close()

    def call(self, method: str, params: Struct, kind: type[R]) -> R:
        """Return the result of a method, which is of this type.

        Raises:
            ControlError: the daemon's, or one of our own: `deadline` when it does not answer in
                time, `unavailable` when the connection ends.
        """
        seconds = time_allowed(params, self._timeout)
        ask = self._ask(method, params)
        try:
            self._await(ask, seconds)
            result = ask.take()
        except TimeoutError:
            raise faults.late(method, seconds or 0) from None
        finally:
            self._drop(ask)
        assert isinstance(result, kind)
        return result

    def stream(self, method: str, params: Struct, kind: type[R]) -> Stream[R]:
        """Return the events of a method, which are of this type; it is asked at once."""
        return Stream(self, self._ask(method, params), exactly(kind))

    def arrays(self, params: TopicSubscribe) -> Arrays:
        """Return the messages of `topic.subscribe`; it is asked at once."""
        return Stream(self, self._ask("topic.subscribe", params), to_message)

    def _shake_hands(self, name: str, give_up: float) -> str:
        try:
            self._connection.send(hello(name), text=True)
            return check_welcome(self._connection.receive(give_up - time.monotonic()))
        except BaseException as error:
            self.close()
            if isinstance(error, TimeoutError):
                raise faults.hung(self.path, self._pid, CONNECT_S) from None
            if isinstance(error, ClosedError):
                raise faults.closed(error.code) from None
            raise

    def _ask(self, method: str, params: Struct) -> PendingRequest:
        with self._turn:
            if self._broken is not None:
                raise self._broken
            ask, frame = self._exchange.ask(method, params)
        self._send(frame)
        return ask

    def _send(self, frame: bytes) -> None:
        try:
            self._connection.send(frame, text=True)
        except ClosedError as error:
            raise faults.closed(error.code) from None

    def _drop(self, ask: PendingRequest) -> None:
        """Forget a request; if it is not over, end it."""
        with self._turn:
            frame = self._exchange.drop(ask)
        if frame is not None and self._broken is None:
            # If the connection is gone, so is what we would end.
            with suppress(ControlError):
                self._send(frame)

    def _await(self, ask: PendingRequest, seconds: float | None) -> None:
        """Return when something has arrived for `ask`.

        Of the threads that wait one reads, for all of them.

        Raises:
            TimeoutError: nothing came within `seconds`.
            ControlError: the connection has ended.
        """
        give_up = None if seconds is None else time.monotonic() + seconds
        with self._turn:
            while not len(ask):
                if self._broken is not None:
                    raise self._broken
                left = None if give_up is None else give_up - time.monotonic()
                if left is not None and left <= 0:
                    raise TimeoutError
                if self._reading:
                    self._turn.wait(left)
                    continue
                self._reading = True
                try:
                    # Within, so that a Ctrl-C right here finds the turn taken again at the end.
                    self._turn.release()
                    frame = self._read(left)
                except ControlError as error:
                    self._broken = error
                    raise
                finally:
                    self._turn.acquire()
                    self._reading = False
                    self._turn.notify_all()
                if frame is not None:
                    self._sort(frame)

    def _sort(self, frame: str | bytes) -> None:
        """Give a frame to the request that it belongs to."""
        try:
            answer = self._exchange.arrive(frame)
            if answer is not None:
                self._send(answer)
        except ControlError as error:
            self._broken = error

    def _read(self, seconds: float | None) -> str | bytes | None:
        """Return the next frame; None if there was none for a while.

        Raises:
            ControlError: there will be none.
        """
        try:
            with suppress(TimeoutError):
                return self._connection.receive(
                    SILENCE_S if seconds is None else min(seconds, SILENCE_S)
                )
            self._check_alive()
        except ClosedError as error:
            raise faults.closed(error.code) from None
        return None

    def _check_alive(self) -> None:
        """Ping the daemon when it is silent.

        Raises:
            ControlError: it has not answered for `ANSWER_S`.
            ClosedError: the connection has ended.
        """
        now = time.monotonic()
        if self._asked is not None and self._connection.heard < self._asked:
            if now - self._asked >= ANSWER_S:
                raise faults.hung(self.path, self._pid, ANSWER_S)
        elif now - self._connection.heard >= SILENCE_S:
            self._asked = now
            self._connection.ping()


class Stream(Generic[T]):
    """The events of a stream, for a `for` loop; closing it, or its client, ends the stream."""

    def __init__(self, client: Client, ask: PendingRequest, convert: Callable[[Any], T]) -> None:
        self._client = client
        self._ask: PendingRequest | None = ask
        self._convert = convert

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> T:
        return self.next()

    def next(self, timeout: float | None = None) -> T:
        """Return the next event.

        Raises:
            StopIteration: the stream has ended.
            TimeoutError: none came within `timeout` seconds; the stream goes on.
            ControlError: an error ended the stream.
        """
        if self._ask is None:
            raise StopIteration
        try:
            self._client._await(self._ask, timeout)
            event = self._ask.take()
        except ControlError:
            self._ask = None
            raise
        if event is END:
            self._ask = None
            raise StopIteration
        return self._convert(event)

    def close(self) -> None:
        """End the stream; nothing is wrong if it has ended already."""
        if self._ask is not None:
            self._client._drop(self._ask)
            self._ask = None


Arrays: TypeAlias = "Stream[tuple[TopicHeader, pa.Array | None]]"
"""Messages of outputs: what is known of each, and its Arrow array."""

"""The running requests of a client, and their queued answers. Does no input or output."""

from __future__ import annotations

from collections import deque
from itertools import count
from typing import TYPE_CHECKING, Any, Final, TypeAlias, TypeVar

from dorad.control import codec
from dorad.control.errors import ControlError
from dorad.control.faults import Server, connect_failed
from dorad.control.limits import MAX_REQUEST
from dorad.control.messages import PROTOCOL, AnyMethod, Cancel, Hello, Struct, TopicHeader, Welcome

if TYPE_CHECKING:
    from collections.abc import Callable

    import msgspec

    from dorad.control.pace import Pace

MAX_WAITING = 1024
"""Maximum number of events queued for a stream that is not being read."""

MAX_BYTES_WAITING = 64 << 20
"""Maximum size of such events."""

DECODED = 8
"""Bytes of memory for each byte of JSON, once it is decoded."""

T = TypeVar("T")


class End:
    """Marks the regular end of a stream."""


END: Final = End()


Arrival: TypeAlias = "Struct | tuple[TopicHeader, memoryview] | End | ControlError"
"""A result, an event (text or binary), the end of a stream, or an error."""


class PendingRequest:
    """One request, with its queue of results and events that were not taken yet."""

    def __init__(self, id_: int, method: AnyMethod) -> None:
        self.id = id_
        self.method = method
        self._arrived: deque[tuple[Arrival, int]] = deque()
        self._size = 0

    def __len__(self) -> int:
        return len(self._arrived)

    @property
    def full(self) -> bool:
        """Whether the queue is too long because the stream is not being read."""
        return len(self) >= MAX_WAITING or self._size >= MAX_BYTES_WAITING

    def put(self, arrival: Arrival, size: int = 0) -> None:
        """Queue a result or event that takes `size` bytes of memory."""
        self._arrived.append((arrival, size))
        self._size += size

    def take(self) -> Arrival:
        """Return the oldest entry of the queue; raise it if it is an error."""
        arrival, size = self._arrived.popleft()
        self._size -= size
        if isinstance(arrival, ControlError):
            raise arrival
        return arrival

    def clear(self) -> None:
        """Discard the queue."""
        self._arrived.clear()


class PendingRequests:
    """The requests of one connection by their ids."""

    def __init__(self, pace: Pace | None = None) -> None:
        """`pace` counts the frames of the server."""
        self._pace = pace
        self._ids = count(1)
        self._requests: dict[int, PendingRequest] = {}

    def add(self, method: AnyMethod, params: Struct) -> tuple[PendingRequest, bytes]:
        """Register a new request; return it and the frame to send for it.

        Raises:
            ControlError: the request is too large.
        """
        request = PendingRequest(next(self._ids), method)
        frame = codec.encode_request(request.id, method.name, params)
        if len(frame) > MAX_REQUEST:
            raise ControlError(
                "too-large",
                f"a `{method.name}` with {len(frame)} bytes is too large; "
                f"{MAX_REQUEST} are allowed",
            )
        self._requests[request.id] = request
        return request, frame

    def drop(self, request: PendingRequest) -> bytes | None:
        """Forget a request; return the frame that cancels it, or None if it has ended already."""
        request.clear()
        return None if self._requests.pop(request.id, None) is None else self._cancel(request.id)

    def _cancel(self, id_: int) -> bytes:
        return codec.encode_request(next(self._ids), "cancel", Cancel(id=id_))

    def dispatch(self, frame: str | bytes) -> bytes | None:
        """Queue a frame from the daemon at its request; return a frame to send back, if any.

        Raises:
            ControlError: an error that belongs to no request: the daemon could not read a frame.
        """
        if isinstance(frame, bytes):
            header, data = codec.decode_data(frame)
            request = self._requests.get(header.stream)
            self._count(request, frame)
            if request is None:
                return None
            event: Arrival = (header, data) if request.method.binary else _misplaced(request)
            return self._event(request, event, len(frame))
        arrived = codec.decode(frame, codec.Arrived, "the daemon's answer")
        if arrived.id is None:
            raise unexpected(arrived)
        request = self._requests.get(arrived.id)
        self._count(request, frame)
        if request is None:
            return None
        if len(arrived.event):
            due = request.method.stream and not request.method.binary
            event = _decode(arrived.event, request, "an event") if due else _misplaced(request)
            return self._event(request, event, DECODED * len(frame))
        del self._requests[request.id]
        if arrived.error is not None:
            request.put(ControlError.of(arrived.error))
        elif arrived.end and request.method.stream:
            request.put(END)
        elif len(arrived.result) and not request.method.stream:
            request.put(_decode(arrived.result, request, "the result"))
        else:
            request.put(_misplaced(request))
        return None

    def _count(self, request: PendingRequest | None, frame: str | bytes) -> None:
        if self._pace is not None:
            self._pace.took("" if request is None else request.method.name, len(frame))

    def _event(self, request: PendingRequest, event: Arrival, size: int) -> bytes | None:
        if request.full:
            event = ControlError(
                "too-slow",
                f"{len(request)} events of `{request.method.name}` were waiting to be read",
                "read faster, or request less",
            )
        request.put(event, size)
        if not isinstance(event, ControlError):
            return None
        del self._requests[request.id]
        return self._cancel(request.id)


def _misplaced(request: PendingRequest) -> ControlError:
    """Return the error that ends a request which got the answer of one of another kind."""
    return ControlError(
        "bad-request",
        f"the answer to `{request.method.name}` is of another kind than was asked for",
    )


def _decode(content: msgspec.Raw, request: PendingRequest, what: str) -> Struct | ControlError:
    """Return a result or an event, or the error that ends this request if it cannot be read."""
    method = request.method
    try:
        decoded: Struct = codec.decode(content, method.result, f"{what} of `{method.name}`")
    except ControlError as error:
        return error
    return decoded


def hello(name: str) -> bytes:
    """Return the first frame of a client."""
    return codec.encode(Hello(hello=name))


def check_welcome(frame: str | bytes, server: Server) -> Welcome:
    """Return the name and version of a server, and this client's role, from its first frame.

    Raises:
        ControlError: the server refuses this client, speaks another version of the protocol, or
            something else.
    """
    try:
        if isinstance(frame, bytes):
            raise ControlError("bad-request", "its first frame is not text")
        arrived = codec.decode(frame, codec.Arrived, "its first frame")
        if arrived.welcome is None and arrived.error is None:
            raise ControlError("bad-request", "its first frame is no welcome")
    except ControlError as error:
        raise connect_failed(server, error) from None
    if arrived.welcome is None:
        raise unexpected(arrived)
    if arrived.protocol != PROTOCOL:
        raise ControlError(
            "version",
            f"{arrived.welcome} speaks version {arrived.protocol} of the control protocol, "
            f"this client version {PROTOCOL}",
            "install the same version of both",
        )
    return Welcome(welcome=arrived.welcome, role=arrived.role)


def unexpected(arrived: codec.Arrived) -> ControlError:
    """Return the error in a frame that belongs to no request."""
    if arrived.error is not None:
        return ControlError.of(arrived.error)
    return ControlError("bad-request", "the daemon sent a frame that is not an answer")


def checked_as(kind: type[T]) -> Callable[[Any], T]:
    """Return a function that returns its argument after checking that it is of this type."""

    def check(event: Any) -> T:
        assert isinstance(event, kind), f"{type(event).__name__} where {kind.__name__} was due"
        return event

    return check

"""What a client has asked and what has come back for it; knows nothing of sockets."""

from __future__ import annotations

from collections import deque
from itertools import count
from typing import TYPE_CHECKING, Any, Final, TypeAlias, TypeVar

from dorad.control import codec
from dorad.control.errors import ControlError
from dorad.control.limits import LARGEST_REQUEST
from dorad.control.messages import METHODS, PROTOCOL, Cancel, Hello

if TYPE_CHECKING:
    from collections.abc import Callable

    import msgspec

    from dorad.control.messages import Method, Struct, TopicHeader

MAX_WAITING = 1024
"""Events that are kept for a stream that nobody reads while others of the client are read."""

MAX_BYTES_WAITING = 64 << 20


T = TypeVar("T")


class End:
    """A stream has ended as it should."""


END: Final = End()


Arrival: TypeAlias = "Struct | tuple[TopicHeader, memoryview] | End | ControlError"
"""A result, an event of either kind, the end of a stream, or what came instead."""


class PendingRequest:
    """One request, and what has arrived for it and was not taken yet."""

    def __init__(self, id_: int, method: Method, name: str) -> None:
        self.id = id_
        self.name = name
        self.method = method
        self._arrived: deque[tuple[Arrival, int]] = deque()
        self._bytes = 0

    def __len__(self) -> int:
        return len(self._arrived)

    @property
    def full(self) -> bool:
        """Whether nobody seems to read what arrives."""
        return len(self) >= MAX_WAITING or self._bytes >= MAX_BYTES_WAITING

    def put(self, arrival: Arrival, size: int = 0) -> None:
        """Add what came in a frame of `size` bytes."""
        self._arrived.append((arrival, size))
        self._bytes += size

    def take(self) -> Arrival:
        """Return what came first; an error is raised instead."""
        arrival, size = self._arrived.popleft()
        self._bytes -= size
        if isinstance(arrival, ControlError):
            raise arrival
        return arrival

    def clear(self) -> None:
        """Forget what was not taken."""
        self._arrived.clear()


class PendingRequests:
    """The requests of one connection by their ids."""

    def __init__(self) -> None:
        self._ids = count(1)
        self._asks: dict[int, PendingRequest] = {}

    def ask(self, name: str, params: Struct) -> tuple[PendingRequest, bytes]:
        """Return a new request and the frame to send for it.

        Raises:
            ControlError: the method is unknown, has other parameters, or the request is too large.
        """
        method = METHODS.get(name)
        if method is None:
            raise codec.unknown_method(name)
        if type(params) is not method.params:
            raise ControlError(
                "bad-request",
                f"`{name}` takes {method.params.__name__}, not {type(params).__name__}",
            )
        ask = PendingRequest(next(self._ids), method, name)
        frame = codec.encode_request(ask.id, name, params)
        if len(frame) > LARGEST_REQUEST:
            raise ControlError(
                "too-large",
                f"a `{name}` with {len(frame)} bytes is too large; {LARGEST_REQUEST} are allowed",
            )
        self._asks[ask.id] = ask
        return ask, frame

    def drop(self, ask: PendingRequest) -> bytes | None:
        """Forget a request; return the frame that ends it, None if it has ended already."""
        ask.clear()
        return None if self._asks.pop(ask.id, None) is None else self._cancel(ask.id)

    def _cancel(self, id_: int) -> bytes:
        return codec.encode_request(next(self._ids), "cancel", Cancel(id=id_))

    def arrive(self, frame: str | bytes) -> bytes | None:
        """Sort a frame from the daemon to its request; return a frame to send, if any.

        Raises:
            ControlError: the daemon refused a frame that it could not even understand.
        """
        if isinstance(frame, bytes):
            header, data = codec.decode_data(frame)
            return self._event(header.stream, (header, data), len(frame))
        arrived = codec.decode(frame, codec.Arrived, "the daemon's answer")
        if arrived.id is None:
            raise unexpected(arrived)
        ask = self._asks.get(arrived.id)
        if ask is None:
            return None
        if len(arrived.event):
            event = _decode(arrived.event, ask, "an event")
            return self._event(ask.id, event, len(frame))
        del self._asks[ask.id]
        if arrived.error is not None:
            ask.put(ControlError.of(arrived.error))
        elif len(arrived.result):
            ask.put(_decode(arrived.result, ask, "the result"))
        else:
            ask.put(END)
        return None

    def _event(self, id_: int, event: Arrival, size: int) -> bytes | None:
        ask = self._asks.get(id_)
        if ask is None:
            return None
        if ask.full:
            event = ControlError(
                "too-slow",
                f"{len(ask)} events of `{ask.name}` were waiting to be read",
                "read faster, or ask for less",
            )
        ask.put(event, size)
        if not isinstance(event, ControlError):
            return None
        del self._asks[id_]
        return self._cancel(id_)


def _decode(content: msgspec.Raw, ask: PendingRequest, what: str) -> Struct | ControlError:
    """Return a result or an event; what cannot be read ends its request and no other."""
    try:
        return codec.decode(content, ask.method.result, f"{what} of `{ask.name}`")
    except ControlError as error:
        return error


def hello(name: str) -> bytes:
    """Return the first frame of a client."""
    return codec.encode(Hello(hello=name))


def check_welcome(frame: str | bytes) -> str:
    """Return what the daemon calls itself, from its first frame.

    Raises:
        ControlError: it refuses us, or speaks another version.
    """
    if isinstance(frame, bytes):
        raise ControlError("bad-request", "the daemon's first frame is no text")
    arrived = codec.decode(frame, codec.Arrived, "the daemon's first frame")
    if arrived.welcome is None:
        raise unexpected(arrived)
    if arrived.protocol != PROTOCOL:
        raise ControlError(
            "version",
            f"{arrived.welcome} speaks version {arrived.protocol} of the control protocol, "
            f"this client version {PROTOCOL}",
            "install the same version of both",
        )
    return arrived.welcome


def unexpected(arrived: codec.Arrived) -> ControlError:
    """Return the error that the daemon gave without saying for which request."""
    if arrived.error is not None:
        return ControlError.of(arrived.error)
    return ControlError("bad-request", "the daemon sent a frame that is no answer")


def exactly(kind: type[T]) -> Callable[[Any], T]:
    """Return a function that gives back what it gets, which must be of this type."""

    def check(event: Any) -> T:
        assert isinstance(event, kind), f"{type(event).__name__} where {kind.__name__} was due"
        return event

    return check

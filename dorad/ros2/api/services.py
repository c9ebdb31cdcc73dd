"""Services of a ROS 2 node in Python: a client that calls, a server that is polled."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Any

from dorad.node.arguments import checked_timeout
from dorad.ros2.api.runtime import plain_errors
from dorad.ros2.api.topics import as_array
from dorad.ros2.counts import Count
from dorad.ros2.decode import CdrError, decoder
from dorad.ros2.encode import encoder
from dorad.ros2.lastsent import LastAnswer
from dorad.ros2.objects import from_array, to_array

if TYPE_CHECKING:
    from collections.abc import Callable

    import pyarrow as pa

    from dorad.ros2.definitions import Message

SERVER_TIMEOUT_S = 20.0
"""How long the creation of a client waits for a server."""
CALL_TIMEOUT_S = 30.0
TAKE_TIMEOUT_S = 1.0
MAX_PENDING = 1000
"""Requests that were taken and not answered; the oldest are given up."""


def seconds(timeout_s: float | None, default: float) -> float:
    """Return a timeout in seconds. Raises ValueError if it is negative or not finite."""
    return default if timeout_s is None else checked_timeout(timeout_s)


class Requester:
    """The client of one service: sends a message object, and waits for its response."""

    def __init__(self, ros: Any, kind: Any, name: str, profile: Any) -> None:
        """`kind` is the class of the service in rclpy. Raises RuntimeError."""
        with plain_errors():
            self._client = ros.create_client(kind, name, qos_profile=profile)
        self.name = name

    def wait_for_server(self, timeout_s: float) -> bool:
        """Return True as soon as there is a server, False after the timeout."""
        return bool(self._client.wait_for_service(timeout_s))

    def call(self, request: Any, timeout_s: float) -> Any:
        """Return the response, None after the timeout. Raises RuntimeError of rclpy."""
        answered = threading.Event()
        with plain_errors():
            future = self._client.call_async(request)
        future.add_done_callback(lambda _: answered.set())
        if not answered.wait(timeout_s):
            self._client.remove_pending_request(future)
            return None
        with plain_errors():
            return future.result()

    def answer(self, request: Any, timeout_s: float) -> Any:
        """Return the response. Raises RuntimeError after the timeout, or if rclpy does."""
        response = self.call(request, timeout_s)
        if response is None:
            raise RuntimeError(f"{self.name} has not answered within {timeout_s:g} s")
        return response


class Responder:
    """The server of one service, whose requests stay in the middleware until they are taken."""

    def __init__(self, ros: Any, kind: Any, name: str, profile: Any) -> None:
        """`kind` is the class of the service in rclpy. Raises RuntimeError."""
        from rclpy.impl.implementation_singleton import rclpy_implementation
        from rclpy.type_support import check_for_type_support

        with plain_errors():
            check_for_type_support(kind)
            self.name = ros.resolve_service_name(name)
            with ros.handle, ros.context.handle:
                self._handle = rclpy_implementation.Service(
                    ros.handle, kind, self.name, profile.get_c_qos_profile()
                )
                # Room for one service.
                self._wait_set = rclpy_implementation.WaitSet(0, 0, 0, 0, 1, 0, ros.context.handle)
        self._request = kind.Request
        self._lock = threading.Lock()
        self._last = LastAnswer()
        self._refused = Count(f"requests to {self.name} refused")

    def take(self, timeout_s: float) -> tuple[Any, Any] | None:
        """Return the next request and its header, None after the timeout."""
        deadline_s = time.monotonic() + timeout_s
        with self._lock, self._handle:
            while True:
                try:
                    request, header = self._handle.service_take_request(self._request)
                except RuntimeError as error:  # of rcl: malformed bytes of any process
                    self._refused.add(1, str(error).partition("\n")[0])
                    header = None
                if header is not None:
                    return request, header
                left_s = deadline_s - time.monotonic()
                if left_s <= 0:
                    return None
                self._wait_set.clear_entities()
                self._wait_set.add_service(self._handle)
                self._wait_set.wait(int(left_s * 1e9))

    def refuse(self, why: str) -> None:
        """Count a request that cannot be used."""
        self._refused.add(1, why)

    def respond(self, header: Any, response: Any) -> None:
        """Send the response to a request. Raises RuntimeError."""
        self._last.sent()
        with plain_errors(), self._handle:
            self._handle.service_send_response(response, header.request_id)

    def settled(self) -> bool:
        """Return True if all responses have been sent."""
        return self._last.settled()

    def close(self) -> None:
        """Report the count, and leave the graph."""
        self._refused.close()
        self._wait_set.destroy_when_not_in_use()
        self._handle.destroy_when_not_in_use()


def from_data(data: Any, encode: Callable[[Any], bytes], kind: Any) -> Any:
    """Return the object of a class of rclpy for what a user sends. Raises RuntimeError."""
    with plain_errors():
        return from_array(as_array(data), encode, kind)


class Ros2ServiceClient:
    """A client of a service, from `Ros2Node.create_service_client`."""

    def __init__(
        self, ros: Any, name: str, kind: Any, parts: tuple[Message, Message], profile: Any
    ) -> None:
        """Wait for a server. Raises RuntimeError if none appears within 20 s."""
        self._encode, self._decode = encoder(parts[0]), decoder(parts[1])
        self._kind = kind
        self._requester = Requester(ros, kind, name, profile)
        if not self._requester.wait_for_server(SERVER_TIMEOUT_S):
            raise RuntimeError(f"the service {name} has no server after {SERVER_TIMEOUT_S:g} s")

    def call(self, request: Any, timeout_s: float | None = None) -> pa.Array:
        """Send a request and return its response, both struct arrays of length 1.

        `timeout_s` is 30 seconds by default. Any thread may call meanwhile.

        Raises:
            RuntimeError: there was no response in time, or the request does not fit its type.
            TypeError: the request is no array, dictionary or struct scalar.
            ValueError: the timeout is negative or not finite.
        """
        timeout_s = seconds(timeout_s, CALL_TIMEOUT_S)
        message = from_data(request, self._encode, self._kind.Request)
        response = self._requester.answer(message, timeout_s)
        with plain_errors():
            return to_array(response, self._decode)


class Ros2ServiceServer:
    """The server of a service, from `Ros2Node.create_service_server`."""

    def __init__(
        self, ros: Any, name: str, kind: Any, parts: tuple[Message, Message], profile: Any
    ) -> None:
        """Raises RuntimeError."""
        self._decode, self._encode = decoder(parts[0]), encoder(parts[1])
        self._kind = kind
        self.title = name
        self._responder = Responder(ros, kind, name, profile)
        self._given_up = Count(f"requests to {name} given up, since they were not answered")
        self._pending: dict[int, Any] = {}
        self._next_id = 0

    def take_request(self, timeout_s: float | None = None) -> tuple[int, pa.Array] | None:
        """Return the id and the array of the next request, None after `timeout_s`, 1 s by default.

        Raises:
            ValueError: the timeout is negative or not finite.
        """
        deadline_s = time.monotonic() + seconds(timeout_s, TAKE_TIMEOUT_S)
        while True:
            taken = self._responder.take(max(0.0, deadline_s - time.monotonic()))
            if taken is None:
                return None
            request, header = taken
            try:
                array = to_array(request, self._decode)
            except CdrError as error:
                self._responder.refuse(f"it {error}")
                continue
            if len(self._pending) >= MAX_PENDING:
                del self._pending[next(iter(self._pending))]
                self._given_up.add(1)
            number, self._next_id = self._next_id, self._next_id + 1
            self._pending[number] = header
            return number, array

    def send_response(self, request_id: int, response: Any) -> None:
        """Answer a request that was taken.

        Raises:
            RuntimeError: it was answered or given up, or the response does not fit its type.
            TypeError: the response is no array, dictionary or struct scalar.
        """
        if request_id not in self._pending:
            raise RuntimeError(
                f"there is no request {request_id}: it was answered, given up or never taken"
            )
        message = from_data(response, self._encode, self._kind.Response)
        self._responder.respond(self._pending.pop(request_id), message)

    def settled(self) -> bool:
        """Return True if all responses have been sent."""
        return self._responder.settled()

    def close(self) -> None:
        """Report the counts, and leave the graph."""
        self._responder.close()
        self._given_up.close()

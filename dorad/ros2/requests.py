"""Requests and responses of ROS 2 with their headers, for answers that come later.

rclpy answers a request with what its callback returns, and polls a callback that waits. So these
take requests and responses from the middleware themselves; an answer may come from any thread.
"""

from __future__ import annotations

import logging
import threading
from typing import TYPE_CHECKING, Any, NamedTuple

from rclpy.impl.implementation_singleton import rclpy_implementation as _rclpy
from rclpy.type_support import check_for_type_support
from rclpy.waitable import NumberOfEntities, Waitable

from dorad.ros2.lastsent import LastAnswer

if TYPE_CHECKING:
    from collections.abc import Callable

_log = logging.getLogger(__name__)
_TURN = 100
"""Messages of one side before another one has its turn."""


class _Side(Waitable):  # type: ignore[misc]
    """One end of a service, in the wait set of the executor."""

    kind: str
    make: Callable[..., Any]
    """The class of rclpy's handle."""

    def __init__(
        self, ros: Any, service: Any, name: str, profile: Any, on_refused: Callable[[str], None]
    ) -> None:
        """`service` is a class of rclpy, `name` absolute."""
        super().__init__(ros.default_callback_group)
        check_for_type_support(service)
        with ros.handle:
            self._handle = self.make(ros.handle, service, name, profile.get_c_qos_profile())
        self._ros = ros
        self._on_refused = on_refused
        self._index: int | None = None
        ros.add_waitable(self)

    def take(self) -> bool:
        """Take and handle one message; return False if there is none. Raises RuntimeError."""
        raise NotImplementedError

    def __enter__(self) -> None:
        self._handle.__enter__()

    def __exit__(self, *error: object) -> None:
        self._handle.__exit__(*error)

    def add_to_wait_set(self, wait_set: Any) -> None:
        """See Waitable."""
        add = wait_set.add_client if self.kind == "client" else wait_set.add_service
        self._index = add(self._handle)

    def get_num_entities(self) -> Any:
        """See Waitable."""
        return NumberOfEntities(**{f"num_{self.kind}s": 1})

    def is_ready(self, wait_set: Any) -> bool:
        """See Waitable."""
        return self._index is not None and bool(wait_set.is_ready(self.kind, self._index))

    def take_data(self) -> None:
        """Handle what has come: malformed messages of other processes are no reason to end."""
        for _ in range(_TURN):
            try:
                if not self.take():
                    return
            except RuntimeError as error:  # of rcl: the middleware cannot read it
                self._on_refused(str(error))
                return

    async def execute(self, taken: None) -> None:
        """Do nothing: `take_data` has done it."""

    def close(self) -> None:
        """Leave the graph; nothing comes afterwards."""
        self._ros.remove_waitable(self)
        self._handle.destroy_when_not_in_use()


class _Sent(NamedTuple):
    tag: Any
    servers: frozenset[bytes]
    """Those known at the time, empty if the middleware does not tell."""


class Requester(_Side):
    """Sends requests, and hands each response to `on_response` with the tag of its request."""

    kind = "client"
    make = _rclpy.Client

    def __init__(
        self,
        ros: Any,
        service: Any,
        name: str,
        profile: Any,
        on_response: Callable[[Any, Any], None],
        on_refused: Callable[[str], None],
    ) -> None:
        """See `_Side`."""
        self.name = name
        self._response = service.Response
        self._on_response = on_response
        self._lock = threading.Lock()
        self._sent: dict[int, _Sent] = {}
        super().__init__(ros, service, name, profile, on_refused)

    def pending(self) -> int:
        """Return how many requests have no response."""
        return len(self._sent)

    def has_server(self) -> bool:
        """Return True if requests and responses get through."""
        with self._handle:
            return bool(self._handle.service_server_is_available())

    def send(self, request: Any, tag: Any) -> None:
        """Send a request; its response may come before this returns."""
        servers = self._servers()
        with self._lock, self._handle:
            self._sent[self._handle.send_request(request)] = _Sent(tag, servers)

    def abandoned(self) -> list[Any]:
        """Return the tags of requests whose servers have ended, and forget them."""
        if not self._sent:
            return []
        present, has_server = self._servers(), self.has_server()
        with self._lock:
            gone = [
                number
                for number, sent in self._sent.items()
                if not has_server or (sent.servers and sent.servers.isdisjoint(present))
            ]
            return [self._sent.pop(number).tag for number in gone]

    def oldest(self) -> list[Any]:
        """Return the tag of the oldest request, and forget it; nothing if there is none."""
        with self._lock:
            return [self._sent.pop(number).tag for number in list(self._sent)[:1]]

    def _servers(self) -> frozenset[bytes]:
        # This is the topic of the responses for a middleware that is DDS. A new server of the same
        # name has another identity.
        infos = self._ros.get_publishers_info_by_topic(f"rr{self.name}Reply", no_mangle=True)
        return frozenset(bytes(each.endpoint_gid) for each in infos)

    def take(self) -> bool:
        """Take one response."""
        with self._handle:
            header, response = self._handle.take_response(self._response)
        if header is None:
            return False
        with self._lock:
            sent = self._sent.pop(header.request_id.sequence_number, None)
        if sent is None:
            _log.debug("%s: a response that nobody waits for", self.name)
        else:
            self._on_response(sent.tag, response)
        return True


class Responder(_Side):
    """Receives requests; `on_request` gets each with the header that its response needs."""

    kind = "service"
    make = _rclpy.Service

    def __init__(
        self,
        ros: Any,
        service: Any,
        name: str,
        profile: Any,
        on_request: Callable[[Any, Any], None],
        on_refused: Callable[[str], None],
    ) -> None:
        """See `_Side`."""
        self._request = service.Request
        self._last = LastAnswer()
        self._on_request = on_request
        super().__init__(ros, service, name, profile, on_refused)

    def take(self) -> bool:
        """Take one request."""
        with self._handle:
            request, header = self._handle.service_take_request(self._request)
        if header is None:
            return False
        self._on_request(request, header)
        return True

    def respond(self, header: Any, response: Any) -> None:
        """Send the response to a request; a client that has gone away is no error."""
        self._last.sent()
        try:
            with self._handle:
                self._handle.service_send_response(response, header.request_id)
        except RuntimeError as error:  # of rcl
            _log.debug("a response did not get through: %s", error)

    def settled(self) -> bool:
        """Return True if all responses have been sent."""
        return self._last.settled()

"""The services of a bridge: one that the dataflow calls, and one that it answers.

A message to or from the dataflow is that of `node.call` and `node.serve`: it has a `request_id`,
and an answer that failed has the error in its metadata.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from typing import TYPE_CHECKING, Any, NamedTuple

import pyarrow as pa

from dorad.node.correlation import REQUEST_ID, id_in, uuid7
from dorad.node.patterns.calls import ERROR, ERROR_TYPE
from dorad.ros2 import qos
from dorad.ros2.arrowtypes import ConversionError
from dorad.ros2.counts import Count
from dorad.ros2.decode import CdrError, decoder
from dorad.ros2.definitions import Message, Number, Text
from dorad.ros2.encode import encoder
from dorad.ros2.objects import from_array, ros_class, to_array
from dorad.ros2.requests import Requester, Responder

if TYPE_CHECKING:
    from collections.abc import Mapping

    from dorad.node.events import Event
    from dorad.ros2.dataflow import Dataflow
    from dorad.ros2.definitions import Definitions

_log = logging.getLogger(__name__)

SERVER_TIMEOUT_S = 10.0
"""How long a request waits for a server."""
MAX_PENDING = 1000
"""Requests without an answer; the oldest ones are given up."""


class _Waiting(NamedTuple):
    request: Any
    request_id: str | None
    deadline_s: float


class ServiceClient:
    """Calls a service of ROS 2 for the dataflow, any number of requests at once."""

    def __init__(
        self, ros: Any, endpoint: Mapping[str, Any], definitions: Definitions, dataflow: Dataflow
    ) -> None:
        """Look for servers. Raises DefinitionError."""
        request, response = definitions.service(endpoint["type"])
        self._encode, self._decode = encoder(request), decoder(response)
        self._class = ros_class(endpoint["type"], "srv")
        self._ros = ros
        self._type = endpoint["type"]
        self._dataflow = dataflow
        self._output = endpoint["outputs"][0]
        self.title = ros.resolve_service_name(endpoint["name"])
        self._failed = Count(f"requests to {self.title} failed")
        self._lock = threading.Lock()
        self._waiting: deque[_Waiting] = deque()
        self._requester = Requester(
            ros,
            self._class,
            self.title,
            qos.to_rclpy(qos.offered(endpoint["qos"])),
            self._respond,
            self._refuse,
        )

    def has_peer(self) -> bool:
        """Return True if the service has a server."""
        return self._requester.has_server()

    def open(self) -> None:
        """Do nothing: it is open."""

    def take(self, event: Event) -> None:
        """Send a request of the dataflow, once there is a server."""
        request_id = id_in(event["metadata"], REQUEST_ID)
        try:
            request = from_array(event["value"], self._encode, self._class.Request)
        except ConversionError as error:
            self._dataflow.count_refused(event["id"], failed=False)
            self._fail(request_id, "ConversionError", str(error))
            return
        waiting = _Waiting(request, request_id, time.monotonic() + SERVER_TIMEOUT_S)
        given_up: list[str | None] = []
        with self._lock:
            self._waiting.append(waiting)
            if len(self._waiting) + self._requester.pending() > MAX_PENDING:
                given_up = self._requester.oldest() or [self._waiting.popleft().request_id]
        for each in given_up:
            why = f"no answer, and {MAX_PENDING} newer requests wait for theirs"
            self._fail(each, "NoAnswerError", why)
        self._send_waiting()

    def check(self) -> None:
        """Send what a server has appeared for; fail what can have no answer any more."""
        self._send_waiting()
        now = time.monotonic()
        expired = []
        with self._lock:
            while self._waiting and self._waiting[0].deadline_s <= now:
                expired.append(self._waiting.popleft().request_id)
        for request_id in expired:
            wanted = self._type.replace("/", "/srv/")
            self._fail(
                request_id, "NoServerError", no_server("service", self.title, wanted, self._ros)
            )
        for request_id in self._requester.abandoned():
            self._fail(request_id, "ServerLostError", f"the server of {self.title} has ended")

    def interrupted(self, why: str) -> None:
        """Do nothing: who has asked will not wait."""

    def settled(self) -> bool:
        """Return True if the servers have had all requests."""
        return not self._waiting and not self._requester.pending()

    def close(self) -> None:
        """Report the counts, and leave the graph."""
        if self._waiting:
            self._failed.add(len(self._waiting), "the dataflow has ended")
            self._dataflow.failed |= any(each.request_id is None for each in self._waiting)
        self._requester.close()
        self._failed.close()

    def _send_waiting(self) -> None:
        with self._lock:
            if not self._waiting or not self._requester.has_server():
                return
            while self._waiting:
                waiting = self._waiting.popleft()
                _log.debug("%s: request %s", self.title, waiting.request_id)
                self._requester.send(waiting.request, waiting.request_id)

    def _respond(self, request_id: str | None, response: Any) -> None:
        try:
            array = to_array(response, self._decode)
        except CdrError as error:
            self._fail(request_id, "CdrError", f"the response {error}")
            return
        _log.debug("%s: response to %s", self.title, request_id)
        marked = {} if request_id is None else {REQUEST_ID: request_id}
        self._dataflow.send(self._output, array, marked)

    def _refuse(self, why: str) -> None:
        self._failed.add(1, why)
        self._dataflow.count_lost((self._output,), 1)

    def _fail(self, request_id: str | None, kind: str, why: str) -> None:
        self._failed.add(1, why)
        if request_id is None:
            self._dataflow.failed = True
            return
        marked = {REQUEST_ID: request_id, ERROR: why, ERROR_TYPE: kind}
        self._dataflow.send(self._output, pa.nulls(0), marked)


def no_server(what: str, title: str, wanted: str, ros: Any) -> str:
    """Return why nothing answers to a name: there is no server, or one of another type."""
    probe = title if what == "service" else f"{title}/_action/send_goal"
    suffix = "" if what == "service" else "_SendGoal"
    for name, types in ros.get_service_names_and_types():
        others = [each.removesuffix(suffix) for each in types if each != wanted + suffix]
        if name == probe and others:
            return f"{title} is of the type {others[0]}, not {wanted}"
    return f"the {what} {title} has no server"


class ServiceServer:
    """Answers the clients of a service of ROS 2 with what the dataflow sends."""

    def __init__(
        self, ros: Any, endpoint: Mapping[str, Any], definitions: Definitions, dataflow: Dataflow
    ) -> None:
        """Raises DefinitionError."""
        request, self._response = definitions.service(endpoint["type"])
        self._encode, self._decode = encoder(self._response), decoder(request)
        self._class = ros_class(endpoint["type"], "srv")
        self._ros = ros
        self._profile = qos.to_rclpy(qos.offered(endpoint["qos"]))
        self._dataflow = dataflow
        self._output = endpoint["outputs"][0]
        self.title = ros.resolve_service_name(endpoint["name"])
        self._failed = Count(f"requests of {self.title} failed")
        self._refused = Count(f"requests of {self.title} refused")
        self._silent = Count(
            f"requests of {self.title} have no answer: its response has no `success` and `message`"
        )
        self._unknown = Count(f"answers to {self.title} have no request that waits for them")
        self._lock = threading.Lock()
        self._pending: dict[str, Any] = {}
        self._responder: Responder | None = None

    def has_peer(self) -> bool:
        """Return True: clients come and go."""
        return True

    def open(self) -> None:
        """Serve: the dataflow can answer now."""
        self._responder = Responder(
            self._ros,
            self._class,
            self.title,
            self._profile,
            self._request,
            self._refuse,
        )

    def take(self, event: Event) -> None:
        """Respond with what the dataflow has sent."""
        metadata = event["metadata"]
        request_id = id_in(metadata, REQUEST_ID)
        with self._lock:
            header = self._pending.pop(request_id or "", None)
        if request_id is None:
            self._unknown.add(1, "no request_id in its metadata")
            self._dataflow.count_refused(event["id"])
            return
        if header is None:
            self._unknown.add(1, "given up, or answered")
            return
        if ERROR in metadata:
            self._fail(header, f"{metadata.get(ERROR_TYPE, 'Error')}: {metadata[ERROR]}")
            return
        try:
            response = from_array(event["value"], self._encode, self._class.Response)
        except ConversionError as error:
            self._dataflow.count_refused(event["id"], failed=False)
            self._fail(header, str(error))
            return
        _log.debug("%s: response to %s", self.title, request_id)
        assert self._responder is not None
        self._responder.respond(header, response)

    def check(self) -> None:
        """Do nothing: nothing expires."""

    def interrupted(self, why: str) -> None:
        """Give up all requests: who was to answer them cannot."""
        with self._lock:
            pending, self._pending = list(self._pending.values()), {}
        for header in pending:
            self._fail(header, why)

    def settled(self) -> bool:
        """Return True if the clients have their responses."""
        return self._responder is None or self._responder.settled()

    def close(self) -> None:
        """Report the counts, and leave the graph."""
        if self._responder is not None:
            self._responder.close()
        for each in (self._failed, self._refused, self._silent, self._unknown):
            each.close()

    def _request(self, request: Any, header: Any) -> None:
        try:
            array = to_array(request, self._decode)
        except CdrError as error:
            self._refuse(str(error))
            self._fail(header, f"the request {error}")
            return
        request_id = uuid7()
        given_up = None
        with self._lock:
            self._pending[request_id] = header
            if len(self._pending) > MAX_PENDING:
                given_up = self._pending.pop(next(iter(self._pending)))
        if given_up is not None:
            self._fail(given_up, f"no answer, and {MAX_PENDING} newer requests wait for theirs")
        _log.debug("%s: request %s", self.title, request_id)
        self._dataflow.send(self._output, array, {REQUEST_ID: request_id})

    def _refuse(self, why: str) -> None:
        self._refused.add(1, why)
        self._dataflow.count_lost((self._output,), 1)

    def _fail(self, header: Any, why: str) -> None:
        """Respond with the error, if the type of the response has a place for it."""
        self._failed.add(1, why)
        array = error_response(self._response, why)
        if array is None:
            self._silent.add(1)
            self._dataflow.failed = True
            return
        assert self._responder is not None
        self._responder.respond(header, from_array(array, self._encode, self._class.Response))


def error_response(response: Message, why: str) -> Any:
    """Return the response that tells an error by `success` and `message`, as std_srvs has them.

    None if a response has no such fields: services of ROS 2 know no errors.
    """
    fields = {each.name: each for each in response.fields if each.many is None}
    success, message = fields.get("success"), fields.get("message")
    if success is None or message is None:
        return None
    if success.item != Number("bool") or not isinstance(message.item, Text):
        return None
    return pa.array([{"success": False, "message": why[: message.item.limit or None]}])

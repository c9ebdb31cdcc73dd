"""`MockNode`: a node for unit tests, without a dataflow and without processes."""

from __future__ import annotations

from collections import deque
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, NoReturn

from dorad.node import events
from dorad.node.arguments import check, check_log, checked_timeout
from dorad.node.busy import NoLeases
from dorad.node.correlation import GOAL_ID, GOAL_STATUS, uuid7
from dorad.node.extensions import OwnTable
from dorad.node.node import Node
from dorad.node.params import Params
from dorad.node.patterns.helpers import Patterns

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable, Iterator, Mapping, Sequence

    from numpy.typing import DTypeLike, NDArray

    from dorad.node.events import Event


class MockGoal:
    """A substitute for `Goal` that never waits."""

    def __init__(self, output: str, answers: Sequence[Any] | None) -> None:
        """`answers` are the feedback and, last, the result or an exception."""
        self.id = uuid7()
        self.status: str | None = None
        self.canceled = False
        self._output = output
        self._answers = None if answers is None else deque(answers)

    def __iter__(self) -> Iterator[Event]:
        """Yield each feedback event."""
        while self._answers is not None and len(self._answers) > 1:
            yield self._event(self._answers.popleft(), {})

    async def __aiter__(self) -> AsyncIterator[Event]:
        """Yield each feedback event."""
        for event in self:
            yield event

    def result(self, timeout: float | None = None) -> Event:
        """Return the result; its status is `canceled` after `cancel`.

        Raises:
            NoAnswerError: no result was prepared.
            RemoteError: an exception was prepared.
        """
        from dorad.node.patterns.errors import NoAnswerError, RemoteError

        if not self._answers:
            raise NoAnswerError(f"service_responses have no result for goals on `{self._output}`")
        last = self._answers[-1]
        self.status = "canceled" if self.canceled else "succeeded"
        if isinstance(last, Exception):
            self.status = "aborted"
            raise RemoteError(type(last).__name__, str(last))
        return self._event(last, {GOAL_STATUS: self.status})

    async def result_async(self, timeout: float | None = None) -> Event:
        """Return the result like `result`."""
        return self.result(timeout)

    def cancel(self, data: Any = b"") -> None:
        """Set `canceled`."""
        self.canceled = True

    def _event(self, value: Any, metadata: dict[str, Any]) -> Event:
        metadata = {GOAL_ID: self.id, **metadata}
        return {"type": "INPUT", "id": self._output, "value": value, "metadata": metadata}


class MockNode(Node):
    """A substitute for `Node`: it returns prepared events and records what the node sends.

    `outputs` maps an output's id to the list of values sent on it, without metadata. `logs` has a
    dictionary with `level`, `message`, `target` and `fields` for each log line. `service_requests`
    and `service_responses_sent` have the arguments of the service methods. Receiving never waits.
    Wrong types of ids, metadata, timeouts and log lines raise what `Node` raises.
    """

    def __init__(
        self,
        inputs: Iterable[tuple[str, Any] | dict[str, Any]],
        metadata: Mapping[str, Any] | None = None,
        *,
        dataflow_descriptor: Mapping[str, Any] | None = None,
        dataflow_id: str | None = None,
        node_config: Mapping[str, Any] | None = None,
        is_restart: bool = False,
        restart_count: int = 0,
        service_responses: Mapping[str, Iterable[Any]] | None = None,
        params: Mapping[str, Any] | None = None,
    ) -> None:
        """Prepare the events.

        Each of `inputs` is a tuple of an input's id and a value, which gets a copy of `metadata`,
        or an event dictionary, which is returned unchanged. A STOP follows, unless they contain
        one. `service_responses` are the replies to requests on an output, in order; `call` raises
        those that are exceptions. For `send_goal` each is a list: feedback and, last, the result.
        `params` are the node's parameters until a PARAM event among the inputs changes them.
        """
        self._events: deque[Event] = deque(_event(item, metadata or {}) for item in inputs)
        if not any(event.get("type") == "STOP" for event in self._events):
            self._events.append({"type": "STOP", "id": events.ALL_INPUTS_CLOSED})
        self._dataflow_descriptor = dict(dataflow_descriptor or {})
        self._dataflow_id = dataflow_id or ""
        self._node_config = dict(node_config or {})
        self._is_restart = is_restart
        self._restart_count = restart_count
        self._replies = {key: deque(values) for key, values in (service_responses or {}).items()}
        self._extensions = OwnTable()
        self._leases = NoLeases()
        self._params = Params(params or {})
        self._patterns = Patterns(None)
        self.outputs: dict[str, list[Any]] = {}
        self.logs: list[dict[str, Any]] = []
        self.service_requests: list[dict[str, Any]] = []
        self.service_responses_sent: list[dict[str, Any]] = []

    def next(self, timeout: float | None = None) -> Event | None:
        """Return the next event, None after the last; `timeout` is checked and has no effect."""
        if timeout is not None:
            checked_timeout(timeout)
        if not self._events:
            return None
        event = self._events.popleft()
        if event.get("type") == "PARAM_UPDATE":
            self._params.set(event["id"], event["value"])
        elif event.get("type") == "PARAM_DELETED":
            self._params.drop(event["id"])
        return event

    def __next__(self) -> Event:
        event = self.next()
        if event is None:
            raise StopIteration
        return event

    async def recv_async(self, timeout: float | None = None) -> Event | None:
        """Return the next event like `next`."""
        return self.next(timeout)

    def try_recv(self) -> Event | None:
        """Return the next event like `next`."""
        return self.next()

    def drain(self) -> list[Event]:
        """Return all remaining events."""
        left = []
        while (event := self.next()) is not None:
            left.append(event)
        return left

    def is_empty(self) -> bool:
        """Return True if no event is left."""
        return not self._events

    def merge_external_events(self, subscription: Any) -> NoReturn:
        """Raise NotImplementedError: a mock has no events but its inputs.

        Raises:
            NotImplementedError: always.
        """
        raise NotImplementedError(
            "MockNode merges no events: give it those of ROS 2 as inputs, such as"
            ' {"kind": "external", "type": "EXTERNAL", "value": array}'
        )

    def send_output(
        self, output_id: str, data: Any, metadata: dict[str, Any] | None = None
    ) -> None:
        """Append `data` to `outputs`."""
        check("output_id", output_id, str)
        check("metadata", metadata, dict, optional=True)
        self.outputs.setdefault(output_id, []).append(data)

    def send_output_raw(
        self, output_id: str, data_length: int, metadata: dict[str, Any] | None = None
    ) -> NoReturn:
        """Raise NotImplementedError: there is no shared memory.

        Raises:
            NotImplementedError: always.
        """
        raise NotImplementedError("MockNode has no shared memory; use send_output in unit tests")

    def empty(self, shape: int | tuple[int, ...], dtype: DTypeLike = "uint8") -> NDArray[Any]:
        """Return an uninitialised numpy array, in ordinary memory."""
        import numpy as np

        return np.empty(shape, dtype)

    def send_service_request(
        self, output_id: str, data: Any, metadata: dict[str, Any] | None = None
    ) -> str:
        """Record the request and return its new `request_id`.

        The next of the output's `service_responses` arrives as an input with the output's id,
        before the STOP.
        """
        check("output_id", output_id, str)
        check("metadata", metadata, dict, optional=True)
        request_id = uuid7()
        self.service_requests.append(
            {
                "output_id": output_id,
                "data": data,
                "metadata": dict(metadata or {}),
                "request_id": request_id,
            }
        )
        replies = self._replies.get(output_id)
        if replies:
            reply = _reply(output_id, replies.popleft(), request_id)
            stops = [at for at, event in enumerate(self._events) if event.get("type") == "STOP"]
            self._events.insert(stops[0] if stops else len(self._events), reply)
        return request_id

    def send_service_response(self, output_id: str, data: Any, metadata: dict[str, Any]) -> None:
        """Append the response to `service_responses_sent`."""
        check("output_id", output_id, str)
        check("metadata", metadata, dict)
        self.service_responses_sent.append(
            {
                "output_id": output_id,
                "data": data,
                "metadata": dict(metadata),
                "request_id": metadata.get("request_id"),
            }
        )

    def call(
        self,
        output: str,
        data: Any,
        metadata: dict[str, Any] | None = None,
        timeout: float | None = None,
        *,
        reply: str | None = None,
    ) -> Event:
        """Record the request and return the next of the output's `service_responses`.

        Raises:
            NoAnswerError: no response is left.
            RemoteError: the response is an exception.
        """
        from dorad.node.patterns.calls import checked
        from dorad.node.patterns.errors import NoAnswerError

        request_id = self.send_service_request(output, data, metadata)
        for event in self._events:
            if (event.get("metadata") or {}).get("request_id") == request_id:
                self._events.remove(event)
                return checked(event)
        raise NoAnswerError(f"service_responses have no answer left for output `{output}`")

    async def call_async(
        self,
        output: str,
        data: Any,
        metadata: dict[str, Any] | None = None,
        timeout: float | None = None,
        *,
        reply: str | None = None,
    ) -> Event:
        """Return the reply like `call`."""
        return self.call(output, data, metadata, timeout, reply=reply)

    def send_goal(  # type: ignore[override]  # a MockGoal has what a Goal has
        self,
        output: str,
        data: Any,
        metadata: dict[str, Any] | None = None,
        timeout: float | None = None,
        *,
        feedback: str | None = None,
        result: str | None = None,
        cancel: str | None = None,
    ) -> MockGoal:
        """Append the goal to `outputs`; its answers are the next of the `service_responses`."""

        self.send_output(output, data, metadata)
        replies = self._replies.get(output)
        return MockGoal(output, replies.popleft() if replies else None)

    def log(
        self,
        level: str,
        message: str,
        target: str | None = None,
        fields: dict[str, Any] | None = None,
    ) -> None:
        """Append the entry to `logs`."""
        check_log(level, message, target, fields)
        self.logs.append(
            {"level": level, "message": message, "target": target, "fields": dict(fields or {})}
        )

    def dataflow_descriptor(self) -> dict[str, Any]:
        """Return the given descriptor, or an empty one."""
        return dict(self._dataflow_descriptor)

    def dataflow_id(self) -> str:
        """Return the given id, or an empty one."""
        return self._dataflow_id

    def node_config(self) -> dict[str, Any]:
        """Return the given configuration, or an empty one."""
        return dict(self._node_config)

    def is_restart(self) -> bool:
        """Return the given value."""
        return self._is_restart

    def restart_count(self) -> int:
        """Return the given value."""
        return self._restart_count

    def timestamp(self) -> datetime:
        """Return the current time, UTC."""
        return datetime.now(UTC)


def _reply(output_id: str, reply: Any, request_id: str) -> Event:
    if not isinstance(reply, Exception):
        return _event((output_id, reply), {"request_id": request_id})
    from dorad.node.patterns.calls import error_metadata

    return _event((output_id, None), {"request_id": request_id, **error_metadata(reply)})


def _event(item: tuple[str, Any] | dict[str, Any], metadata: Mapping[str, Any]) -> Event:
    if isinstance(item, dict):
        return dict(item)
    input_id, value = item
    return {"type": "INPUT", "id": input_id, "value": value, "metadata": dict(metadata)}

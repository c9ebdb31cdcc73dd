"""The server side: the loop that receives requests and goals and calls their handlers."""

from __future__ import annotations

import logging
import traceback
from typing import TYPE_CHECKING, Any

from dorad.node.correlation import REQUEST_ID, id_in
from dorad.node.events import Event, timed_out
from dorad.node.patterns.calls import error_metadata
from dorad.node.patterns.goalserver import (
    GoalService,
    await_handler,
    call_handler,
    empty_for,
    split_result,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Container

    from dorad.node.node import Node
    from dorad.node.patterns.goalturns import GoalTurns

_log = logging.getLogger(__name__)

_MAX_UNKNOWN = 1000
"""Maximum number of cancels that wait for their goals."""


class Service:
    """Replies to the requests of one input."""

    def __init__(self, node: Node, handler: Any, request: str, response: str) -> None:
        self._node = node
        self._handler = handler
        self._request = request
        self._response = response

    def answer(self, event: Event) -> None:
        """Call the handler and send its return value."""
        request_id = self._id(event)
        if request_id is None:
            return
        try:
            result = call_handler(self._handler, event)
        except Exception as error:  # noqa: BLE001 - sent to the caller
            self._fail(request_id, error)
        else:
            self._reply(request_id, result)

    async def answer_async(self, event: Event) -> None:
        """Call the handler, await a coroutine, and send the return value."""
        request_id = self._id(event)
        if request_id is None:
            return
        try:
            result = await await_handler(self._handler, event)
        except Exception as error:  # noqa: BLE001 - sent to the caller
            self._fail(request_id, error)
        else:
            self._reply(request_id, result)

    def _id(self, event: Event) -> str | None:
        request_id = id_in(event.get("metadata") or {}, REQUEST_ID)
        if request_id is None:
            self._node.log(
                "warn",
                f"a message on input `{self._request}` has no request_id in its metadata: it "
                "cannot be answered (send requests with `call` or `send_service_request`)",
            )
        return request_id

    def _reply(self, request_id: str, result: Any) -> None:
        data, metadata = split_result(result)
        try:
            self._send(request_id, data, metadata)
        except (RuntimeError, TypeError, OverflowError) as error:
            # The return value cannot be sent: send the error, so that the caller stops waiting.
            self._fail(request_id, error)

    def _fail(self, request_id: str, error: Exception) -> None:
        text = "".join(traceback.format_exception(error)).rstrip()
        self._node.log("error", f"a request on input `{self._request}` failed: {text}")
        self._send(request_id, None, error_metadata(error))

    def _send(self, request_id: str, data: Any, metadata: dict[str, Any]) -> None:
        sent = {**metadata, REQUEST_ID: request_id}
        self._node.send_service_response(self._response, empty_for(data), sent)


class Server:
    """The services and goal handlers of one node."""

    def __init__(
        self, node: Any, outputs: Container[str] | None, turns: GoalTurns | None = None
    ) -> None:
        """`outputs` are those that replies may use, None for any; `turns` if it is stepped."""
        self._node: Node = node
        self._turns = turns
        self._outputs = outputs
        self._services: dict[str, Service] = {}
        self._goals: dict[str, GoalService] = {}
        self._cancels: dict[str, list[GoalService]] = {}
        self._unknown: list[tuple[Event, list[GoalService]]] = []

    @staticmethod
    def decorator(add: Callable[..., None], *args: Any) -> Callable[[Any], Any]:
        """Return a decorator that passes its function to `add`, followed by `args`."""

        def decorate(handler: Any) -> Any:
            add(handler, *args)
            return handler

        return decorate

    def add_service(self, handler: Any, request: str, response: str) -> None:
        """Add a service. Raises ValueError if the output is not declared."""
        self._check(response)
        self._services[request] = Service(self._node, handler, request, response)

    def add_goals(
        self,
        handler: Any,
        goal: str,
        result: str,
        feedback: str | None,
        cancel: str | None,
        concurrent: int,
    ) -> None:
        """Add a goal handler. Raises ValueError for an undeclared output or `concurrent` < 1."""
        self._check(result)
        if feedback is not None:
            self._check(feedback)
        if concurrent < 1:
            raise ValueError(f"concurrent must be at least 1, not {concurrent}")
        service = GoalService(self._node, handler, goal, result, feedback, concurrent, self._turns)
        self._goals[goal] = service
        if cancel is not None:
            self._cancels.setdefault(cancel, []).append(service)

    def _check(self, output: str) -> None:
        if self._outputs is not None and output not in self._outputs:
            raise ValueError(f"output `{output}` is not among the outputs of this node")

    def run(self, others: Callable[[Event], Any] | None) -> Event | None:
        """Serve until STOP, which is returned, or the last event."""
        self._check_served()
        try:
            while (event := self._next()) is not None:
                service = self._service_of(event)
                if service is not None:
                    service.answer(event)
                elif not self._take_goal(event, None):
                    if others is not None:
                        others(event)
                    if event["type"] == "STOP":
                        return event
                if self._unknown:
                    self._settle_cancels()
            return None
        finally:
            self._end_goals()
            for goals in self._goals.values():
                goals.join()

    def _next(self) -> Event | None:
        """Return the next event; while the node is stepped, let goals go on meanwhile."""
        if self._turns is None:
            return self._node.next()
        while True:
            left = self._turns.run_due()
            while sum(goals.start_next() for goals in self._goals.values()):
                left = self._turns.run_due()
            event = self._node.next(left)
            if left is None or event != timed_out(left):
                return event

    async def run_async(self, others: Callable[[Event], Any] | None) -> Event | None:
        """Serve like `run`; each request and goal is a task."""
        import asyncio

        self._check_served()
        tasks: set[asyncio.Task[Any]] = set()

        def start(work: Any) -> None:
            task = asyncio.ensure_future(work)
            tasks.add(task)
            task.add_done_callback(tasks.discard)

        try:
            while (event := await self._node.recv_async()) is not None:
                service = self._service_of(event)
                if service is not None:
                    start(service.answer_async(event))
                elif not self._take_goal(event, start):
                    if others is not None:
                        result = others(event)
                        if hasattr(result, "__await__"):
                            await result
                    if event["type"] == "STOP":
                        return event
                if self._unknown:
                    self._settle_cancels()
            return None
        finally:
            self._end_goals()
            while tasks:
                await asyncio.wait(tasks)

    def _check_served(self) -> None:
        if not (self._services or self._goals):
            raise ValueError("nothing to serve: give an input, an output and a handler")

    def _service_of(self, event: Event) -> Service | None:
        return self._services.get(event["id"]) if event["type"] == "INPUT" else None

    def _take_goal(self, event: Event, start: Callable[[Any], None] | None) -> bool:
        """Handle a goal or a cancel; return False if the event is neither."""
        if event["type"] != "INPUT":
            return False
        goals = self._goals.get(event["id"])
        if goals is not None:
            goals.begin(event, start)
            return True
        cancels = self._cancels.get(event["id"])
        if cancels is None:
            return False
        canceled = [goals.cancel(event) for goals in cancels]
        if not any(canceled):
            self._unknown.append((event, cancels))
        return True

    def _settle_cancels(self) -> None:
        """Retry cancels that may have overtaken their goals, which come on another input.

        A goal is sent before its cancel. So once the queues are empty, the goal was received.
        """
        left = []
        for event, cancels in self._unknown:
            canceled = [goals.cancel(event) for goals in cancels]
            if not any(canceled):
                left.append((event, cancels))
        self._unknown = left
        _log.debug("%d cancels without a goal so far", len(left))
        if left and (self._node.is_empty() or len(left) > _MAX_UNKNOWN):
            self._unknown = []
            for event, cancels in left:
                cancels[0].warn_of_cancel(event)

    def _end_goals(self) -> None:
        for goals in self._goals.values():
            goals.end()
        if self._turns is not None:
            self._turns.run_due()

"""Action goals at the client: send one, receive its feedback and result, cancel it."""

from __future__ import annotations

import logging
from collections import deque
from typing import TYPE_CHECKING, Any

from dorad.node.correlation import GOAL_ID, GOAL_STATUS, uuid7
from dorad.node.patterns.errors import NoPeerError, RemoteError
from dorad.node.patterns.exchange import Exchange, ReplyRoute, Sink, receivers, timed_out

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

    from dorad.node.events import Event

_log = logging.getLogger(__name__)

SUCCEEDED = "succeeded"
ABORTED = "aborted"
CANCELED = "canceled"
STATUSES = (SUCCEEDED, ABORTED, CANCELED)

ERROR = "goal_error"
"""The metadata key of a result whose handler failed; its value is the error text."""
ERROR_TYPE = "goal_error_type"

MAX_FEEDBACK = 1000
"""Maximum number of unread feedback events per goal; the oldest are dropped."""


class _GoalSink(Sink):
    def __init__(self, key: str, route: ReplyRoute) -> None:
        super().__init__(key, route)
        self.events = deque(maxlen=MAX_FEEDBACK)

    def take(self, event: Event) -> None:
        """Take feedback, or the result."""
        if event["metadata"].get(GOAL_STATUS) in STATUSES:
            if self.last is None:
                self.last = event
        else:
            self.events.append(event)


class Goal:
    """A goal that was sent.

    `for` and `async for` yield its feedback up to the result; then `result` returns at once. A goal
    may be used from several threads or tasks.
    """

    def __init__(
        self,
        exchange: Exchange,
        send: Callable[[str, Any, dict[str, Any]], None],
        output: str,
        data: Any,
        metadata: dict[str, Any] | None,
        timeout: float | None,
        inputs: tuple[str, ...],
        cancel: str | None,
    ) -> None:
        """Send the goal; see `Node.send_goal`."""
        self._exchange = exchange
        self._send = send
        self._timeout = timeout
        self._cancel = cancel
        route = exchange.route(output, inputs, "`feedback` and `result`", several=True)
        self._sink = _GoalSink(uuid7(), route)
        self._deadline = exchange.sharing.deadline_of(timeout)
        marked = {**(metadata or {}), GOAL_ID: self._sink.key}
        _log.debug("output %s: goal %s", output, self.id)
        exchange.begin(self._sink, lambda: send(output, data, marked))

    def __del__(self) -> None:
        if hasattr(self, "_sink"):
            self._exchange.forget(self._sink)

    @property
    def id(self) -> str:
        """The goal's id, a UUIDv7."""
        return self._sink.key

    @property
    def status(self) -> str | None:
        """`succeeded`, `aborted` or `canceled`; None before the result."""
        last = self._sink.last
        return None if last is None else str(last["metadata"][GOAL_STATUS])

    def __iter__(self) -> Iterator[Event]:
        """Yield each feedback event until the result comes.

        Raises:
            NoAnswerError: the timeout of the goal is over.
            ExchangeError: no result can come; see `Node.call`.
        """
        while True:
            self._wait(self._has_event, self._deadline)
            if self._sink.events:
                yield self._sink.events.popleft()
            elif self._ended("result"):
                return

    async def __aiter__(self) -> AsyncIterator[Event]:
        """Yield each feedback event until the result comes; raises as `__iter__` does."""
        while True:
            await self._wait_async(self._has_event, self._deadline)
            if self._sink.events:
                yield self._sink.events.popleft()
            elif self._ended("result"):
                return

    def _has_event(self) -> bool:
        return bool(self._sink.events) or self._sink.last is not None

    def result(self, timeout: float | None = None) -> Event:
        """Wait for the result and return its event; then `status` is set.

        Raises:
            dora.patterns.NoAnswerError: `timeout` seconds, or those of `send_goal`, are over.
            dora.patterns.RemoteError: the goal's handler raised an exception.
            dora.patterns.PeerLostError, StoppingError: no result can come; see `Node.call`.
        """
        self._wait(self._has_result, self._until(timeout))
        return self._result(timeout)

    async def result_async(self, timeout: float | None = None) -> Event:
        """Wait for the result like `result`, without blocking the event loop."""
        await self._wait_async(self._has_result, self._until(timeout))
        return self._result(timeout)

    def _has_result(self) -> bool:
        return self._sink.last is not None

    def _until(self, timeout: float | None) -> int | None:
        own = self._exchange.sharing.deadline_of(timeout)
        deadlines = [end for end in (self._deadline, own) if end is not None]
        return min(deadlines, default=None)

    def _result(self, timeout: float | None) -> Event:
        self._ended("result", timeout)
        event = self._sink.last
        assert event is not None
        metadata = event["metadata"]
        if ERROR in metadata:
            raise RemoteError(str(metadata.get(ERROR_TYPE, "Error")), str(metadata[ERROR]))
        return event

    def _ended(self, what: str, timeout: float | None = None) -> bool:
        """Return True if the result has come, else raise the reason."""
        sink = self._sink
        if sink.last is not None:
            self._exchange.forget(sink)
            return True
        if sink.error is not None:
            self._exchange.forget(sink)
            raise sink.error
        given = [seconds for seconds in (timeout, self._timeout) if seconds is not None]
        raise timed_out(what, min(given, default=None), sink.route, 0)

    def _wait(self, enough: Callable[[], bool], deadline: int | None) -> None:
        over = self._exchange.settled(self._sink, enough)
        self._exchange.sharing.wait(over, self._sink.waiters, deadline)

    async def _wait_async(self, enough: Callable[[], bool], deadline: int | None) -> None:
        over = self._exchange.settled(self._sink, enough)
        await self._exchange.sharing.wait_async(over, self._sink.waiters, deadline)

    def cancel(self, data: Any = b"") -> None:
        """Request that the goal be canceled; its result still comes, `canceled` or not.

        Raises:
            NoPeerError: no output for cancels goes to the node that has the goal.
        """
        if self._sink.last is None:
            if self._cancel is None:
                self._cancel = cancel_output(self._exchange, self._sink.route)
            _log.debug("goal %s: cancel on output %s", self.id, self._cancel)
            self._send(self._cancel, data, {GOAL_ID: self.id})


def cancel_output(exchange: Exchange, route: ReplyRoute) -> str:
    """Return the output for cancels: the other output to the same node, or `cancel`.

    Raises:
        NoPeerError: there is no such output, or it is ambiguous.
    """
    connection = exchange.connection
    others = [
        output
        for output in connection.config["outputs"]
        if output != route.output and not route.peers.isdisjoint(receivers(connection, output))
    ]
    if "cancel" in others:
        return "cancel"
    if len(others) == 1:
        return str(others[0])
    choices = ", ".join(f"`{output}`" for output in others) or "there is none"
    raise NoPeerError(
        f"which output cancels goals of `{route.output}`? Outputs to the same node: {choices}; "
        "select one with `cancel`"
    )

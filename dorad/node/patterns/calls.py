"""Service calls: one request and its reply."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from dorad.node.correlation import REQUEST_ID, uuid7
from dorad.node.patterns.errors import ExchangeError, RemoteError
from dorad.node.patterns.exchange import Exchange, Sink, timed_out

if TYPE_CHECKING:
    from collections.abc import Callable

    from dorad.node.events import Event

_log = logging.getLogger(__name__)

ERROR = "request_error"
"""The metadata key of a reply whose request failed; its value is the error text."""
ERROR_TYPE = "request_error_type"


class Call:
    """One request in flight."""

    def __init__(
        self,
        exchange: Exchange,
        send: Callable[[str, Any, dict[str, Any]], None],
        output: str,
        data: Any,
        metadata: dict[str, Any] | None,
        timeout: float | None,
        reply: str | None,
    ) -> None:
        """Send the request. Raises what `Exchange.route` and `send` raise."""
        self._exchange = exchange
        self._timeout = timeout
        inputs = () if reply is None else (reply,)
        route = exchange.route(output, inputs, "`reply`", several=False)
        self._sink = Sink(uuid7(), route)
        self._unmarked = self._count_unmarked()
        self._deadline = exchange.sharing.deadline_of(timeout)
        marked = {**(metadata or {}), REQUEST_ID: self._sink.key}
        _log.debug("output %s: request %s", output, self._sink.key)
        exchange.begin(self._sink, lambda: send(output, data, marked))

    def _count_unmarked(self) -> int:
        unmarked = self._exchange.unmarked
        return sum(unmarked.get(item, 0) for item in self._sink.route.inputs)

    def _over(self) -> Callable[[], bool]:
        sink = self._sink

        def enough() -> bool:
            # Without a deadline, a reply that lacks its id ends the wait with an error.
            return sink.last is not None or (
                self._deadline is None and self._count_unmarked() > self._unmarked
            )

        return self._exchange.settled(sink, enough)

    def wait(self) -> Event:
        """Wait for the reply and return it, or raise an `ExchangeError`."""
        sharing = self._exchange.sharing
        try:
            sharing.wait(self._over(), self._sink.waiters, self._deadline)
            return self._answer()
        finally:
            self._exchange.forget(self._sink)

    async def wait_async(self) -> Event:
        """Wait like `wait`, without blocking the event loop."""
        sharing = self._exchange.sharing
        try:
            await sharing.wait_async(self._over(), self._sink.waiters, self._deadline)
            return self._answer()
        finally:
            self._exchange.forget(self._sink)

    def _answer(self) -> Event:
        sink = self._sink
        if sink.last is not None:
            return checked(sink.last)
        if sink.error is not None:
            raise sink.error
        raise timed_out(
            "answer", self._timeout, sink.route, self._count_unmarked() - self._unmarked
        )


def checked(event: Event) -> Event:
    """Return a reply, or raise the `RemoteError` that it carries."""
    metadata = event.get("metadata") or {}
    if ERROR in metadata:
        raise RemoteError(str(metadata.get(ERROR_TYPE, "Error")), str(metadata[ERROR]))
    return event


def error_metadata(error: BaseException) -> dict[str, Any]:
    """Return the metadata of a reply that carries an exception."""
    if isinstance(error, RemoteError):
        return {ERROR: error.text, ERROR_TYPE: error.kind}
    return {ERROR: str(error), ERROR_TYPE: type(error).__name__}


__all__ = ["ERROR", "ERROR_TYPE", "Call", "ExchangeError", "checked", "error_metadata"]

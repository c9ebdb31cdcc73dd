"""The service, action and streaming methods of a node.

Their implementation is imported at the first call: a node that uses none of them pays nothing.
"""

from __future__ import annotations

import threading
import weakref
from typing import TYPE_CHECKING, Any, overload

from dorad.node.arguments import checked_timeout

if TYPE_CHECKING:
    from collections.abc import Callable

    from dorad.node.events import Event
    from dorad.node.patterns.calls import Call
    from dorad.node.patterns.exchange import Exchange
    from dorad.node.patterns.goals import Goal
    from dorad.node.patterns.server import Server
    from dorad.node.patterns.streams import StreamReader, StreamSender

_making = threading.Lock()

Handler = Any
"""A function of one argument, plain or async."""


class PatternMethods:
    """The service, action and streaming methods of a node."""

    _attachment: Any
    _server: Server | None = None

    send_output: Callable[[str, Any, dict[str, Any]], None]
    log: Callable[..., None]

    def call(
        self,
        output: str,
        data: Any,
        metadata: dict[str, Any] | None = None,
        timeout: float | None = None,
        *,
        reply: str | None = None,
    ) -> Event:
        """Send a request on `output` and wait for its reply, up to `timeout` seconds.

        The reply is the INPUT event with the same `request_id`. It comes on the input whose source
        is the node that receives `output`, or on the input `reply`. Other events stay queued.
        May be used from several threads at once, and while another thread receives.

        Raises:
            dora.patterns.NoPeerError: no node can reply, or it is ambiguous on which input.
            dora.patterns.NoAnswerError: the timeout is over; it is also a TimeoutError.
            dora.patterns.PeerLostError: the replying node has ended or was restarted.
            dora.patterns.StoppingError: the node is being stopped; STOP is not received yet.
            dora.patterns.RemoteError: the remote handler raised an exception.
            ValueError: `timeout` is negative or not finite.
            RuntimeError: the base of all of these but ValueError; and what `send_output` raises.
        """
        return self._begin_call(output, data, metadata, timeout, reply).wait()

    async def call_async(
        self,
        output: str,
        data: Any,
        metadata: dict[str, Any] | None = None,
        timeout: float | None = None,
        *,
        reply: str | None = None,
    ) -> Event:
        """Send a request and wait for its reply like `call`, without blocking the event loop."""
        return await self._begin_call(output, data, metadata, timeout, reply).wait_async()

    def send_goal(
        self,
        output: str,
        data: Any,
        metadata: dict[str, Any] | None = None,
        timeout: float | None = None,
        *,
        feedback: str | None = None,
        result: str | None = None,
        cancel: str | None = None,
    ) -> Goal:
        """Send a goal on `output`; iterate over the goal for feedback, and call its `result`.

        Feedback and result come on the inputs whose source is the node that receives `output`, or
        on the named inputs. `cancel` is the output for cancels: by default the other output to that
        node. All waits for the goal end `timeout` seconds from now.

        Raises what `call` does.
        """
        from dorad.node.patterns.goals import Goal

        if timeout is not None:
            checked_timeout(timeout)
        inputs = tuple(item for item in (feedback, result) if item is not None)
        exchange = self._exchange(output)
        return Goal(exchange, self.send_output, output, data, metadata, timeout, inputs, cancel)

    def _begin_call(
        self,
        output: str,
        data: Any,
        metadata: dict[str, Any] | None,
        timeout: float | None,
        reply: str | None,
    ) -> Call:
        from dorad.node.patterns.calls import Call

        if timeout is not None:
            checked_timeout(timeout)
        exchange = self._exchange(output)
        return Call(exchange, self.send_output, output, data, metadata, timeout, reply)

    def _exchange(self, output: str) -> Exchange:
        """Return the exchange of this node, created at the first use."""
        from dorad.node.patterns.errors import NoPeerError

        attachment = self._attachment
        if output not in attachment.outputs:
            raise NoPeerError(f"output `{output}` is not among the outputs of this node")
        if getattr(attachment, "exchange", None) is None:
            from dorad.node.patterns.exchange import Exchange

            if not hasattr(attachment, "ring_receiver"):
                raise NoPeerError(
                    "there is no dataflow with nodes that could reply; in a test, use "
                    "dora.testing.MockNode with service_responses"
                )
            with _making:
                if attachment.exchange is None:
                    attachment.exchange = Exchange(
                        attachment.config["node_id"],
                        attachment.ring_receiver,
                        attachment.connection,
                    )
        exchange: Exchange = attachment.exchange
        return exchange

    @overload
    def serve(self, *, others: Callable[[Event], Any] | None = None) -> Event | None: ...
    @overload
    def serve(self, request: str, response: str) -> Callable[[Handler], Handler]: ...
    @overload
    def serve(
        self,
        request: str,
        response: str,
        handler: Handler,
        *,
        others: Callable[[Event], Any] | None = None,
    ) -> Event | None: ...
    def serve(
        self,
        request: str | None = None,
        response: str | None = None,
        handler: Handler | None = None,
        *,
        others: Callable[[Event], Any] | None = None,
    ) -> Any:
        """Reply to requests on the input `request` with messages on the output `response`.

        `handler` gets each request's event and returns the data of the reply, or a tuple of data
        and metadata; None is an empty reply. An exception becomes an error at the caller. `others`
        gets all other events. Returns the STOP event, or None after the last event.

        With two arguments it decorates a handler. Without arguments it serves all handlers that
        were decorated with it and with `serve_goals`.

        Raises:
            ValueError: there is no handler, or the output `response` is not declared.
        """
        server = self._serving()
        if request is None:
            return server.run(others)
        if response is None:
            raise ValueError("serve also needs the output for replies")
        if handler is None:
            return server.decorator(server.add_service, request, response)
        server.add_service(handler, request, response)
        return server.run(others)

    async def serve_async(
        self,
        request: str | None = None,
        response: str | None = None,
        handler: Handler | None = None,
        *,
        others: Callable[[Event], Any] | None = None,
    ) -> Event | None:
        """Serve like `serve`; handlers may be coroutine functions, and each request is a task."""
        server = self._serving()
        if request is not None:
            if response is None or handler is None:
                raise ValueError(
                    "serve_async needs an input, an output and a handler, or no argument"
                )
            server.add_service(handler, request, response)
        return await server.run_async(others)

    def serve_goals(
        self,
        goal: str,
        result: str,
        *,
        feedback: str | None = None,
        cancel: str | None = None,
        concurrent: int = 8,
    ) -> Callable[[Handler], Handler]:
        """Decorate a handler of goals from the input `goal`; `serve` runs it.

        The handler gets a `ServedGoal`, and its return value is sent on the output `result`. Up to
        `concurrent` goals run at once, in threads (tasks with `serve_async`); further goals are
        queued. Cancels come on the input `cancel`.

        Raises:
            ValueError: an output is not declared, or `concurrent` is less than 1.
        """
        server = self._serving()
        return server.decorator(server.add_goals, goal, result, feedback, cancel, concurrent)

    def _serving(self) -> Server:
        if self._server is None:
            from dorad.node.patterns.server import Server

            # A weak reference, because the node ends with its author's last reference.
            self._server = Server(weakref.proxy(self), self._declared_outputs())
        return self._server

    def _declared_outputs(self) -> Any:
        """Return the declared outputs; None if they are unknown."""
        return self._attachment.outputs

    def open_stream(self, output: str, session_id: str | None = None) -> StreamSender:
        """Start a stream session on an output; its id is a UUIDv7 unless given."""
        from dorad.node.patterns.streams import StreamSender

        return StreamSender(self.send_output, output, session_id)

    def read_stream(self, input_id: str) -> StreamReader:
        """Return a reader of the stream sessions on an input; pass it every event."""
        from dorad.node.patterns.streams import StreamReader

        return StreamReader(input_id)

"""What a node needs for services, actions and streams.

The implementation is imported at the first call: a node that uses none of them pays nothing.
"""

from __future__ import annotations

import threading
import weakref
from typing import TYPE_CHECKING, Any

from dorad.node.arguments import checked_timeout
from dorad.shm import stepping

if TYPE_CHECKING:
    from collections.abc import Callable

    from dorad.node.patterns.calls import Call
    from dorad.node.patterns.exchange import Exchange
    from dorad.node.patterns.goals import Goal
    from dorad.node.patterns.server import Server

_making = threading.Lock()


class Patterns:
    """The calls, goals and handlers of one node."""

    def __init__(self, attachment: Any) -> None:
        """`attachment` is None for a node without a dataflow, whose outputs are unknown."""
        self._attachment = attachment
        self._server: Server | None = None

    def call(
        self,
        send: Callable[[str, Any, dict[str, Any]], None],
        output: str,
        data: Any,
        metadata: dict[str, Any] | None,
        timeout: float | None,
        reply: str | None,
    ) -> Call:
        """Send a request and return the call, which waits for its reply."""
        from dorad.node.patterns.calls import Call

        if timeout is not None:
            checked_timeout(timeout)
        return Call(self._exchange(output), send, output, data, metadata, timeout, reply)

    def goal(
        self,
        send: Callable[[str, Any, dict[str, Any]], None],
        output: str,
        data: Any,
        metadata: dict[str, Any] | None,
        timeout: float | None,
        inputs: tuple[str | None, ...],
        cancel: str | None,
    ) -> Goal:
        """Send a goal whose answers come on `inputs`, without the ones that are None."""
        from dorad.node.patterns.goals import Goal

        if timeout is not None:
            checked_timeout(timeout)
        named = tuple(item for item in inputs if item is not None)
        exchange = self._exchange(output)
        return Goal(exchange, send, output, data, metadata, timeout, named, cancel)

    def server(self, node: Any) -> Server:
        """Return the server of the node's handlers, created at the first use."""
        if self._server is None:
            from dorad.node.patterns.server import Server

            # A weak reference, because the node ends with its author's last reference.
            outputs = None if self._attachment is None else self._attachment.outputs
            turns = None
            if stepping.may_be_stepped:
                from dorad.node.patterns.goalturns import GoalTurns  # only in a replay

                turns = GoalTurns(self._attachment.clock.monotonic_ns)
            self._server = Server(weakref.proxy(node), outputs, turns)
        return self._server

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

"""The calls and goals of a node that are in flight, and who replies to them."""

from __future__ import annotations

import logging
from collections import deque
from typing import TYPE_CHECKING

from dorad.node import logbridge
from dorad.node.correlation import CORRELATING, GOAL_ID, REQUEST_ID, id_in
from dorad.node.patterns.errors import (
    ExchangeError,
    NoAnswerError,
    NoPeerError,
    PeerLostError,
    StoppingError,
)
from dorad.node.patterns.sharing import Sharing

if TYPE_CHECKING:
    from collections.abc import Callable

    from dorad.node.connection import DaemonConnection
    from dorad.node.events import Event
    from dorad.node.receiver import Receiver, Waiter

_log = logging.getLogger(__name__)

MAX_ABANDONED = 4096
"""Maximum number of abandoned ids, whose late replies are dropped."""


class Sink:
    """Collects the replies to one request or goal."""

    def __init__(self, key: str, route: ReplyRoute) -> None:
        self.key = key
        self.route = route
        self.waiters: set[Waiter] = set()
        self.events: deque[Event] = deque()
        self.last: Event | None = None
        self.error: ExchangeError | None = None

    def take(self, event: Event) -> None:
        """Store a reply; called in the thread that receives it."""
        self.last = event


class ReplyRoute:
    """The nodes that reply to an output and the inputs of their replies, as of the request."""

    def __init__(
        self,
        connection: DaemonConnection,
        output: str,
        peers: frozenset[str],
        inputs: frozenset[str],
    ) -> None:
        daemon_events = connection.daemon_events
        self.output = output
        self.peers = peers
        self.inputs = inputs
        self._connection = connection
        self._restarts = {node: daemon_events.restarts.get(node, 0) for node in peers}
        self._breaks = {item: daemon_events.breaks.get(item, 0) for item in inputs}

    def failure(self) -> ExchangeError | None:
        """Return why a reply is impossible now, or None."""
        connection, daemon_events = self._connection, self._connection.daemon_events
        if connection.lost:
            return PeerLostError("the daemon has closed the connection; no reply can come")
        for node in sorted(self.peers):
            if node in daemon_events.failed:
                return PeerLostError(f"node `{node}` has failed: {daemon_events.failed[node]}")
            if daemon_events.restarts.get(node, 0) != self._restarts[node]:
                return PeerLostError(
                    f"node `{node}` was restarted before its reply; the request is lost"
                )
        if daemon_events.stopping:
            return StoppingError("the node is being stopped; no reply can come")
        names = " and ".join(f"`{item}`" for item in sorted(self.inputs))
        peers = " and ".join(f"node `{node}`" for node in sorted(self.peers)) or "its source"
        if all(daemon_events.closed(item) for item in self.inputs):
            return PeerLostError(f"input {names} is closed: {peers} has ended")
        for item in sorted(self.inputs):
            if daemon_events.breaks.get(item, 0) != self._breaks[item]:
                return PeerLostError(f"nothing came on input `{item}` within its input_timeout")
        if daemon_events.ending:
            return StoppingError("all inputs are closed; no reply can come")
        if not receivers(connection, self.output):
            return PeerLostError(
                f"output `{self.output}` no longer has a receiver: {peers} has ended"
            )
        return None


def receivers(connection: DaemonConnection, output: str) -> list[str]:
    """Return the nodes that receive an output now, without observers."""
    return [node for node in connection.receivers.get(output, ()) if not node.startswith(".")]


class Exchange:
    """The calls and goals of one node that have not ended."""

    def __init__(self, node_id: str, receiver: Receiver, connection: DaemonConnection) -> None:
        """Share the inputs of a node between its receiver and its waiting calls."""
        self._node_id = node_id
        self.connection = connection
        self._sinks: dict[str, Sink] = {}
        self._abandoned: dict[str, None] = {}
        self.unmarked: dict[str, int] = {}
        self.sharing = Sharing(receiver, self._dispatch, self.warn)

    def warn(self, text: str) -> None:
        """Log a warning of this node."""
        logbridge.emit(logbridge.line(self._node_id, "warn", text))

    def route(
        self, output: str, inputs: tuple[str, ...], option: str, *, several: bool
    ) -> ReplyRoute:
        """Return the nodes that reply to an output, and the inputs of their replies.

        `inputs` are the inputs that the caller has named with `option`. With `several`, replies may
        come on several inputs.

        Raises:
            NoPeerError: no node can reply, or it is ambiguous which one.
            ExchangeError: a reply is already known to be impossible.
        """
        connection = self.connection
        connection.refresh()
        present = receivers(connection, output)
        sources = connection.daemon_events.sources()
        if not present:
            ended = subscribers(connection, output)
            if ended:
                raise PeerLostError(
                    f"output `{output}` no longer has a receiver: node `{ended[0]}`, or its "
                    "operator, has ended"
                )
            raise NoPeerError(
                f"output `{output}` has no receiver: give the node that replies an input with the "
                f"source `{self._node_id}/{output}`"
            )
        if inputs:
            peers = {node for item, node in sources if item in inputs and node is not None}
            missing = [item for item in inputs if item not in {known for known, _ in sources}]
            if missing:
                raise NoPeerError(f"{option}: this node has no input `{missing[0]}`")
            peers = peers & set(present) or peers
            reply_route = ReplyRoute(connection, output, frozenset(peers), frozenset(inputs))
        else:
            reply_route = self._find(output, present, option, several=several)
        failure = reply_route.failure()
        if failure is not None:
            raise failure
        _log.debug("output %s: replies come on %s", output, ", ".join(sorted(reply_route.inputs)))
        for item in reply_route.inputs:
            self.sharing.add_reply_input(item)
        return reply_route

    def _find(self, output: str, present: list[str], option: str, *, several: bool) -> ReplyRoute:
        sources = self.connection.daemon_events.sources()
        back = sorted({(item, node) for item, node in sources if node in present})
        peers = {node for _, node in back if node is not None}
        if not back:
            nodes = " and ".join(f"`{node}`" for node in present)
            raise NoPeerError(
                f"output `{output}` goes to {nodes}, but no output comes back: give this node an "
                f"input with an output of `{present[0]}` as its source"
            )
        if len(peers) > 1 or (len(back) > 1 and not several):
            choices = ", ".join(f"`{item}` from `{node}`" for item, node in back)
            raise NoPeerError(
                f"several inputs may carry the reply to output `{output}`: {choices}; select one "
                f"with {option}"
            )
        items = frozenset(item for item, _ in back)
        return ReplyRoute(self.connection, output, frozenset(peers), items)

    def expect(self, sink: Sink) -> None:
        """Pass replies to a sink from now on."""
        if self._sinks:
            self.sharing.poll()
        self._sinks[sink.key] = sink

    def begin(self, sink: Sink, send: Callable[[], None]) -> None:
        """Register a sink, then send its request; unregister it if sending fails."""
        self.expect(sink)
        try:
            send()
        except BaseException:
            self.forget(sink)
            raise

    def forget(self, sink: Sink) -> None:
        """Unregister a sink; later replies to it are dropped."""
        if self._sinks.pop(sink.key, None) is not None:
            self._abandoned[sink.key] = None
            while len(self._abandoned) > MAX_ABANDONED:
                self._abandoned.pop(next(iter(self._abandoned)), None)

    def _dispatch(self, event: Event) -> bool:
        """Pass a reply to its sink; return False if the event is not a reply."""
        if event["type"] != "INPUT":
            # An unreadable message.
            return False
        metadata = event["metadata"]
        for name in (REQUEST_ID, GOAL_ID):
            key = id_in(metadata, name)
            if key is None:
                continue
            sink = self._sinks.get(key)
            if sink is not None:
                sink.take(event)
                self.sharing.wake(sink.waiters)
                return True
            if key in self._abandoned:
                _log.debug("input %s: dropped a late reply to %s", event["id"], key)
                return True
        if CORRELATING.isdisjoint(metadata):
            self.unmarked[event["id"]] = self.unmarked.get(event["id"], 0) + 1
            for sink in list(self._sinks.values()):
                self.sharing.wake(sink.waiters)
        return False

    def settled(self, sink: Sink, enough: Callable[[], bool]) -> Callable[[], bool]:
        """Return a function that is True once a wait is over: `enough()`, or a failure."""
        connection, sharing = self.connection, self.sharing

        def over() -> bool:
            if enough() or sink.error is not None:
                return True
            failure = sink.route.failure()
            # A reply sent before the failure still counts: poll the inputs once more first.
            if failure is None or connection.packets_received != sharing.polled_packets or enough():
                return enough()
            _log.debug("%s has failed: %s", sink.key, failure)
            sink.error = failure
            return True

        return over


def subscribers(connection: DaemonConnection, output: str) -> list[str]:
    """Return the nodes that receive an output according to the dataflow file."""
    me = connection.config["node_id"]
    nodes: list[str] = []
    for node in connection.config["descriptor"].get("nodes") or ():
        bodies = [node, node.get("operator") or {}, *(node.get("operators") or ())]
        for inputs in [body.get("inputs") or {} for body in bodies]:
            for item in inputs.values() if isinstance(inputs, dict) else ():
                source = item.get("source") if isinstance(item, dict) else item
                if source == f"{me}/{output}" and node["id"] not in nodes:
                    nodes.append(node["id"])
    return nodes


def timed_out(what: str, timeout: float | None, route: ReplyRoute, unmarked: int) -> NoAnswerError:
    """Return the error of a wait that was too long."""
    peers = " and ".join(f"`{node}`" for node in sorted(route.peers))
    text = f"no {what} from {peers} within {timeout:g} s" if timeout is not None else f"no {what}"
    return NoAnswerError(text + _hint(route, unmarked))


def _hint(route: ReplyRoute, unmarked: int) -> str:
    if not unmarked:
        return ""
    names = " and ".join(f"`{item}`" for item in sorted(route.inputs))
    count = f"{unmarked} message{'s' if unmarked > 1 else ''}"
    return (
        f"; {count} without request_id or goal_id came on {names}: a reply must have the id from "
        "the metadata of its request"
    )

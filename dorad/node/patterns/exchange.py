"""What is in flight between a node and those that are to answer it."""

from __future__ import annotations

import time
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
from dorad.node.patterns.shared import Sharing

if TYPE_CHECKING:
    from collections.abc import Callable

    from dorad.node.connection import DaemonConnection
    from dorad.node.events import Event
    from dorad.node.patterns.waiters import Waiter
    from dorad.node.receiver import Receiver

MAX_GIVEN_UP = 4096
"""Ids of exchanges that were given up, whose late answers are thrown away."""


class Sink:
    """Where the answers to one request or goal go."""

    def __init__(self, key: str, route: ReplyRoute) -> None:
        self.key = key
        self.route = route
        self.waiters: set[Waiter] = set()
        self.events: deque[Event] = deque()
        self.last: Event | None = None
        self.error: ExchangeError | None = None

    def take(self, event: Event) -> None:
        """Take an answer; called by whoever has received it."""
        self.last = event


class ReplyRoute:
    """Who answers what is sent on an output, and on which inputs; and whether that still holds."""

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

    def trouble(self) -> ExchangeError | None:
        """Return why no answer can come any more, as far as is known."""
        connection, daemon_events = self._connection, self._connection.daemon_events
        if connection.lost:
            return PeerLostError("the daemon is gone; no answer can come")
        for node in sorted(self.peers):
            if node in daemon_events.failed:
                return PeerLostError(f"node `{node}` has failed: {daemon_events.failed[node]}")
            if daemon_events.restarts.get(node, 0) != self._restarts[node]:
                return PeerLostError(
                    f"node `{node}` was restarted while it was to answer; what it was doing is lost"
                )
        if daemon_events.stopping:
            return StoppingError("the node is being stopped; no answer can come")
        names = " and ".join(f"`{item}`" for item in sorted(self.inputs))
        whom = " and ".join(f"node `{node}`" for node in sorted(self.peers)) or "its source"
        if all(daemon_events.closed(item) for item in self.inputs):
            return PeerLostError(f"input {names} is closed: {whom} has ended")
        for item in sorted(self.inputs):
            if daemon_events.breaks.get(item, 0) != self._breaks[item]:
                return PeerLostError(f"nothing came on input `{item}` within its input_timeout")
        if daemon_events.ending:
            return StoppingError("all inputs are closed; no answer can come")
        if not receivers(connection, self.output):
            return PeerLostError(
                f"nobody receives output `{self.output}` any more: {whom} has ended"
            )
        return None


def receivers(connection: DaemonConnection, output: str) -> list[str]:
    """Return the nodes that receive an output now; whoever only looks on is none."""
    return [node for node in connection.receivers.get(output, ()) if not node.startswith(".")]


class Exchange:
    """All exchanges of one node that have not ended."""

    def __init__(self, node_id: str, receiver: Receiver, connection: DaemonConnection) -> None:
        """Share the receiver of a node between its events and its answers."""
        self._node_id = node_id
        self.connection = connection
        self._sinks: dict[str, Sink] = {}
        self._given_up: dict[str, None] = {}
        self.unmarked: dict[str, int] = {}
        self.sharing = Sharing(receiver, connection, self._divert, self.warn)

    def warn(self, text: str) -> None:
        """Tell the user something about this node."""
        logbridge.emit(logbridge.line(self._node_id, "warn", text))

    # -- who answers -------------------------------------------------------------------------

    def route(
        self, output: str, inputs: tuple[str, ...], option: str, *, several: bool
    ) -> ReplyRoute:
        """Find who answers what is sent on an output, and on which inputs.

        `inputs` are those that the caller has named, with `option`. `several` tells whether answers
        may come on several inputs.

        Raises:
            NoPeerError: there is nobody, or it is not clear who.
            ExchangeError: it is known already that no answer can come.
        """
        connection = self.connection
        connection.refresh()
        there = receivers(connection, output)
        sources = connection.daemon_events.sources()
        if not there:
            ended = subscribers(connection, output)
            if ended:
                raise PeerLostError(
                    f"nobody receives output `{output}` any more: node `{ended[0]}`, or its "
                    "operator, has ended"
                )
            raise NoPeerError(
                f"nobody receives output `{output}`: give the node that is to answer an input with "
                f"the source `{self._node_id}/{output}`"
            )
        if inputs:
            peers = {node for item, node in sources if item in inputs and node is not None}
            missing = [item for item in inputs if item not in {known for known, _ in sources}]
            if missing:
                raise NoPeerError(f"{option}: this node has no input `{missing[0]}`")
            peers = peers & set(there) or peers
            found = ReplyRoute(connection, output, frozenset(peers), frozenset(inputs))
        else:
            found = self._find(output, there, option, several=several)
        trouble = found.trouble()
        if trouble is not None:
            raise trouble
        for item in found.inputs:
            self.sharing.divert_input(item)
        return found

    def _find(self, output: str, there: list[str], option: str, *, several: bool) -> ReplyRoute:
        sources = self.connection.daemon_events.sources()
        back = sorted({(item, node) for item, node in sources if node in there})
        peers = {node for _, node in back if node is not None}
        if not back:
            nodes = " and ".join(f"`{node}`" for node in there)
            raise NoPeerError(
                f"output `{output}` goes to {nodes}, but nothing comes back: give this node an "
                f"input with an output of `{there[0]}` as its source"
            )
        if len(peers) > 1 or (len(back) > 1 and not several):
            choices = ", ".join(f"`{item}` from `{node}`" for item, node in back)
            raise NoPeerError(
                f"several inputs may carry the answer to output `{output}`: {choices}; say which "
                f"with {option}"
            )
        items = frozenset(item for item, _ in back)
        return ReplyRoute(self.connection, output, frozenset(peers), items)

    # -- answers -----------------------------------------------------------------------------

    def expect(self, sink: Sink) -> None:
        """Hand what comes for a request or goal to its sink from now on."""
        if self._sinks:
            self.sharing.poll()
        self._sinks[sink.key] = sink

    def begin(self, sink: Sink, send: Callable[[], None]) -> None:
        """Expect answers, then send what they answer; expect none if that fails."""
        self.expect(sink)
        try:
            send()
        except BaseException:
            self.forget(sink)
            raise

    def forget(self, sink: Sink) -> None:
        """End an exchange; what still comes for it is thrown away."""
        if self._sinks.pop(sink.key, None) is not None:
            self._given_up[sink.key] = None
            while len(self._given_up) > MAX_GIVEN_UP:
                self._given_up.pop(next(iter(self._given_up)), None)

    def _divert(self, event: Event) -> bool:
        if event["type"] != "INPUT":
            # A message that could not be read.
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
            if key in self._given_up:
                return True
        if CORRELATING.isdisjoint(metadata):
            self.unmarked[event["id"]] = self.unmarked.get(event["id"], 0) + 1
            for sink in list(self._sinks.values()):
                self.sharing.wake(sink.waiters)
        return False

    # -- waiting -----------------------------------------------------------------------------

    def settled(self, sink: Sink, enough: Callable[[], bool]) -> Callable[[], bool]:
        """Return what tells whether waiting at a sink is over: there is enough, or no hope."""
        connection, sharing = self.connection, self.sharing

        def over() -> bool:
            if enough() or sink.error is not None:
                return True
            trouble = sink.route.trouble()
            # Only once all that was sent before the trouble has been read.
            if trouble is None or connection.begun != sharing.polled_packets or enough():
                return enough()
            sink.error = trouble
            return True

        return over


def subscribers(connection: DaemonConnection, output: str) -> list[str]:
    """Return the nodes that receive an output according to the file of the dataflow."""
    me = connection.config["node_id"]
    found: list[str] = []
    for node in connection.config["descriptor"].get("nodes") or ():
        bodies = [node, node.get("operator") or {}, *(node.get("operators") or ())]
        for inputs in [body.get("inputs") or {} for body in bodies]:
            for item in inputs.values() if isinstance(inputs, dict) else ():
                source = item.get("source") if isinstance(item, dict) else item
                if source == f"{me}/{output}" and node["id"] not in found:
                    found.append(node["id"])
    return found


def deadline_of(timeout: float | None) -> int | None:
    """Return when a time in seconds from now is over, on CLOCK_MONOTONIC in ns."""
    return None if timeout is None else time.monotonic_ns() + int(timeout * 1e9)


def too_late(what: str, timeout: float | None, route: ReplyRoute, unmarked: int) -> NoAnswerError:
    """Return the error of one who has waited long enough."""
    whom = " and ".join(f"`{node}`" for node in sorted(route.peers))
    text = f"no {what} from {whom} within {timeout:g} s" if timeout is not None else f"no {what}"
    return NoAnswerError(text + _hint(route, unmarked))


def _hint(route: ReplyRoute, unmarked: int) -> str:
    if not unmarked:
        return ""
    names = " and ".join(f"`{item}`" for item in sorted(route.inputs))
    count = f"{unmarked} message{'s' if unmarked > 1 else ''}"
    return (
        f"; {count} without request_id or goal_id came on {names}: the one who answers must send "
        "back the id that the request has in its metadata"
    )

"""Leases of nodes. Each belongs to a connection and ends with it."""

import asyncio
import logging
import time

from dorad.daemon.broker.connection import Connection
from dorad.daemon.broker.edges import is_observer
from dorad.daemon.broker.state import BrokerState
from dorad.node.busy import MAX_REASON
from dorad.node.protocol import Packet, ProtocolError

MAX_LEASES = 16
"""Maximum number of leases of one node."""

KINDS = frozenset({"busy", "idle"})

Stored = dict[str, list[tuple[int, str, float]]]
"""By node: number, reason and time of each lease."""

_log = logging.getLogger(__name__)


class NodeLeases:
    """The leases of the nodes of one dataflow."""

    def __init__(self, state: BrokerState) -> None:
        self._state = state
        self._held: dict[Connection, dict[int, tuple[str, float]]] = {}
        self._deferred: list[tuple[str, Connection, Packet]] = []
        """Requests that are answered when the robot's switch is no longer reserved."""
        self._timer: asyncio.TimerHandle | None = None

    def answer(self, node_id: str, connection: Connection, packet: Packet) -> None:
        """Take or end a lease. Raises ProtocolError if the packet is malformed or not allowed."""
        if is_observer(node_id):
            raise ProtocolError("an observer has no leases")
        number = packet.number("lease")
        if number >= 1 << 63:
            raise ProtocolError("a lease with an impossible number")
        if packet.kind == "idle":
            if self._held.get(connection, {}).pop(number, None) is not None:
                _log.debug("node %s has ended its lease %d", node_id, number)
                self._state.changed()
            return
        reason = packet.text("reason")
        if not 0 < len(reason) <= MAX_REASON:
            raise ProtocolError(f"a lease with a reason of {len(reason)} characters")
        ask = packet.request_number()
        held = self._held.setdefault(connection, {})
        if number not in held and len(held) >= MAX_LEASES:
            text = f"node {node_id} has {MAX_LEASES} leases, the maximum"
            connection.send("busy_refused", {"error": text, "ask": ask})
            return
        if self._timer is not None and number not in held:
            if sum(each[1] is connection for each in self._deferred) >= MAX_LEASES:
                raise ProtocolError(f"more than {MAX_LEASES} requests for leases at a time")
            _log.debug("node %s waits to be busy: %s", node_id, reason)
            self._deferred.append((node_id, connection, packet))
            return
        # Repeated after the daemon was restarted, it is as old as before.
        held.setdefault(number, (reason, time.time()))
        _log.debug("node %s is busy: %s", node_id, reason)
        connection.send("busy_taken", {"ask": ask})
        self._state.changed()

    def defer(self, seconds: float) -> None:
        """Let no lease begin for some seconds: nodes wait for the answer. 0: they get it now."""
        if self._timer is not None:
            self._timer.cancel()
        self._timer = asyncio.get_running_loop().call_later(seconds, self._answer_deferred)

    def _answer_deferred(self) -> None:
        self._timer = None
        deferred, self._deferred = self._deferred, []
        for each in deferred:
            self.answer(*each)

    def close(self) -> None:
        """Answer nothing any more."""
        if self._timer is not None:
            self._timer.cancel()

    def drop(self, connection: Connection) -> None:
        """End all leases of a connection that has ended."""
        self._held.pop(connection, None)
        self._deferred = [each for each in self._deferred if each[1] is not connection]

    def all(self) -> list[tuple[str, int, int, str, float]]:
        """Return node, pid, number, reason and time of each lease."""
        return [
            (node_id, connection.pid, number, reason, since)
            for connection, held in self._held.items()
            if (node_id := self._state.node_of(connection)) is not None
            for number, (reason, since) in held.items()
        ]

    def snapshot(self) -> Stored:
        """Return the leases for the next daemon."""
        stored: Stored = {}
        for node_id, _, number, reason, since in self.all():
            stored.setdefault(node_id, []).append((number, reason, since))
        return stored

    def restore(self, stored: Stored) -> None:
        """Adopt the leases of nodes whose connections were adopted."""
        for node_id, entries in stored.items():
            connection = self._state.connection(node_id)
            if connection is not None:
                self._held[connection] = {number: (why, at) for number, why, at in entries}

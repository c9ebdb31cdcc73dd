"""Sessions: processes that attach as nodes, their packets, and their end."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Protocol

from dorad.daemon.broker import nodeleases
from dorad.daemon.broker.admission import Admission, OwnUser, Verdict
from dorad.daemon.broker.edges import is_observer
from dorad.daemon.broker.extensions import KINDS, Extensions
from dorad.daemon.broker.handover import Handovers
from dorad.daemon.broker.nodeleases import NodeLeases
from dorad.daemon.pidwatch import PidWatch
from dorad.dataflow.model import LINK
from dorad.node.protocol import OLDEST, VERSION, Packet, ProtocolError
from dorad.shm.layout import agree

if TYPE_CHECKING:
    from dorad.control.peer import Peer
    from dorad.daemon.broker.connection import Connection
    from dorad.daemon.broker.mailbox import Mailbox
    from dorad.daemon.broker.segments import Segments
    from dorad.daemon.broker.state import BrokerState
    from dorad.daemon.broker.topology import Topology
    from dorad.daemon.broker.wiring import PeerSetup
    from dorad.link.reports import ChannelEvent, Status

MAX_NOTE = 1000
"""Maximum characters of one note of a node to the user."""

MAX_NOTES = 100
"""Maximum notes of one process."""

MAX_DEFERRED = 8
"""Maximum processes per node whose hello waits until the start of their node has finished."""

_log = logging.getLogger(__name__)


class BrokerListener(Protocol):
    """Receives events of nodes; the supervisor implements it."""

    def on_connected(self, node_id: str, pid: int) -> None:
        """Handle a node that called `Node()` and waits at the start barrier."""

    def on_waiting(self, node_id: str, pid: int) -> None:
        """Handle a replacement that said hello and waits for the present process to finish."""

    def on_outputs_done(self, node_id: str) -> None:
        """Handle a node that dropped its `Node`; its process may continue."""

    def on_operator_ended(self, node_id: str, operator: str) -> None:
        """Handle an operator that has ended while others of its node continue."""

    def on_disconnected(self, node_id: str) -> None:
        """Handle the end of a node's connection."""

    def on_link(self, report: Status | ChannelEvent) -> None:
        """Handle a report of the link process."""

    def on_note(self, node_id: str, text: str) -> None:
        """Handle one line that a node's process, or its violation of the protocol, reports."""


class Sessions:
    """Gives processes the places of their nodes and handles the packets they send."""

    def __init__(
        self,
        state: BrokerState,
        listener: BrokerListener,
        segments: Segments,
        peer_setup: PeerSetup,
        topology: Topology,
        admission: Admission | OwnUser,
    ) -> None:
        self._state = state
        self._listener = listener
        self._segments = segments
        self._peer_setup = peer_setup
        self._notes: dict[str, int] = {}
        """By node: notes that its present process has sent."""
        self._admission = admission
        self._deferred: dict[str, dict[Connection, Packet]] = {}
        """By node: connections that said hello while a process of the node was being started."""
        self._watch = PidWatch(self._process_ended)
        self._extensions = Extensions(state)
        self.leases = NodeLeases(state)
        self._departed: dict[str, Mailbox] = {}
        """Mailboxes of removed observers whose processes still run."""
        self.handovers = Handovers(state, peer_setup, topology, self._watch, self)

    def on_hello(self, connection: Connection, packet: Packet) -> None:
        """Welcome a process, keep it waiting, or refuse it with the reason."""
        node_id = packet.text("node")
        refusal = self._refusal(node_id, connection, packet)
        if refusal is None and connection.reserved_for != node_id:
            match self._admission.verdict(self._state.mailboxes[node_id].node, connection):
                case Verdict.UNKNOWN:
                    self._defer(node_id, connection, packet)
                    return
                case Verdict.FOREIGN:
                    refusal = self._foreign(node_id, connection.peer)
        if refusal is None and node_id in self.handovers:
            if self.handovers.hold(node_id, connection):
                _log.debug("process %d waits for the place of node %s", connection.pid, node_id)
                self._listener.on_waiting(node_id, connection.pid)
                self._state.changed()
                return
            refusal = f"node {node_id!r} is being replaced, and not by process {connection.pid}"
        elif refusal is None and node_id in self._state.connections:
            pid = self._state.connections[node_id].pid
            refusal = f"node {node_id!r} is already attached, as process {pid}"
        elif refusal is None and self._state.abort_reason is not None:
            self._state.refused.add(node_id)
            refusal = self._state.abort_reason
        if refusal is not None:
            _log.debug("process %d is refused as %.80r: %s", connection.pid, node_id, refusal)
            connection.send("refused", {"error": refusal})
            connection.close("refused")
            return
        self.welcome(node_id, connection)

    def _defer(self, node_id: str, connection: Connection, packet: Packet) -> None:
        """Keep a hello until the start of the node's process has finished."""
        deferred = self._deferred.setdefault(node_id, {})
        if len(deferred) >= MAX_DEFERRED:
            connection.refuse(f"{MAX_DEFERRED} processes wait to be node {node_id!r}")
            return
        _log.debug("hello of process %d as node %s is deferred", connection.pid, node_id)
        deferred[connection] = packet

    def on_started(self, node_id: str) -> None:
        """Decide on deferred hellos: the start of the node's process has finished."""
        for connection, packet in self._deferred.pop(node_id, {}).items():
            try:
                self.on_hello(connection, packet)
            except OSError as error:
                connection.close(error.strerror or str(error))

    def _foreign(self, node_id: str, peer: Peer) -> str:
        if self._state.mailboxes[node_id].node.is_dynamic:
            return f"user {peer.uid} may not use this dataflow, so not attach as node {node_id!r}"
        return (
            f"process {peer.pid} of user {peer.uid} is not one that the dataflow has started for "
            f"node {node_id!r}; only `path: dynamic` nodes attach from outside"
        )

    def _refusal(self, node_id: str, connection: Connection, packet: Packet) -> str | None:
        newest = packet.number("version")
        oldest = packet.number("oldest") if "oldest" in packet.fields else newest
        version = agree((oldest, newest), (OLDEST, VERSION))
        if version is None:
            return (
                "the node and the daemon have different versions of the node API: the node speaks "
                f"{oldest} to {newest}, the daemon {OLDEST} to {VERSION}; install the same version"
            )
        connection.version = version
        box = self._state.mailboxes.get(node_id)
        if box is None:
            return f"the running dataflow has no node {node_id[:MAX_NOTE]!r}"
        if packet.fields.get("dynamic") is True and not box.node.is_dynamic:
            return f"node {node_id!r} is started by its dataflow; only `path: dynamic` nodes attach"
        return None

    def welcome(self, node_id: str, connection: Connection) -> None:
        """Give a process its node's place. Raises OSError: there are no descriptors left."""
        if self._state.mailboxes[node_id].node.is_dynamic:
            self._watch.add(connection.pid, node_id)
        self.revive_operators(node_id)
        _log.debug("process %d is node %s", connection.pid, node_id)
        self._notes.pop(node_id, None)
        self._state.welcome(node_id, connection)
        self._send_present(node_id)
        self._state.changed()

    def _send_present(self, node_id: str) -> None:
        """Send a node its peers and the conditions that hold for it."""
        self._peer_setup.send_all(node_id)
        for kind, fields in self._state.conditions_of(node_id):
            self._state.send(node_id, kind, fields)

    def adopt(self, node_id: str) -> None:
        """Send a connected node of the previous daemon everything that holds now."""
        _log.debug("node %s is adopted", node_id)
        state = self._state
        connection = state.connections[node_id]
        if state.mailboxes[node_id].node.is_dynamic:
            self._watch.add(connection.pid, node_id)
        connection.send("adopted", {})
        if node_id == LINK and state.link is not None:
            connection.send("link", state.link)
        self._send_recovered(node_id)
        self._send_present(node_id)
        if state.abort_reason is not None:
            connection.send("refused", {"error": state.abort_reason})
        elif state.epoch_ns is not None:
            connection.send("start", {"epoch_ns": state.epoch_ns})

    def _send_recovered(self, node_id: str) -> None:
        """Let a node take inputs as silent only if this daemon knows that they are."""
        conditions = self._state.conditions_of(node_id)
        for item in self._state.mailboxes[node_id].inputs.values():
            known = conditions.holds("broken", item.id) or conditions.holds("closed", item.id)
            if item.input_timeout is not None and not known:
                self._state.send(node_id, "recovered", {"input": item.id})

    def on_packet(self, connection: Connection, packet: Packet) -> None:
        """Handle a packet of a welcomed node.

        Raises:
            ProtocolError: the packet is unknown, malformed, or not allowed.
        """
        node_id = self._state.node_of(connection)
        if node_id is None:
            raise ProtocolError(f"a {packet.kind!r} before the welcome")
        _log.debug("from node %s: %.40r", node_id, packet.kind)
        match packet.kind:
            case "ready":
                self._ready(node_id, connection)
            case "grow":
                size = packet.number("size")
                if size == 0:
                    raise ProtocolError("a segment of no bytes")
                self._segments.grow(node_id, size, packet.request_number())
            case "retire":
                self._segments.retire(node_id, packet.number("segment"))
            case "note":
                self._note(node_id, packet.text("text"))
            case "ended":
                self._operator_ended(node_id, packet.text("operator"))
            case "link" if node_id == LINK:
                self._listener.on_link(_report(packet))
            case "done":
                self._done(node_id, connection)
            case kind if kind in nodeleases.KINDS:
                self.leases.answer(node_id, connection, packet)
            case kind if kind in KINDS:
                self._extensions.answer(node_id, packet)
            case unknown:
                raise ProtocolError(f"the unknown packet {unknown!r}")

    def _note(self, node_id: str, text: str) -> None:
        sent = self._notes[node_id] = self._notes.get(node_id, 0) + 1
        if sent > MAX_NOTES:
            raise ProtocolError(f"a node may send {MAX_NOTES} notes, and no more")
        self._listener.on_note(node_id, text[:MAX_NOTE])

    def _ready(self, node_id: str, connection: Connection) -> None:
        state = self._state
        if state.abort_reason is not None:
            connection.send("refused", {"error": state.abort_reason})
            return
        # Read before the call: the event may open the barrier, which sends the start itself.
        late = state.epoch_ns is not None
        if not is_observer(node_id):
            self._listener.on_connected(node_id, connection.pid)
        if late:
            connection.send("start", {"epoch_ns": state.epoch_ns})

    def _operator_ended(self, node_id: str, operator: str) -> None:
        state = self._state
        if all(each.id != operator for each in state.mailboxes[node_id].node.operators):
            raise ProtocolError(f"the end of the unknown operator {operator!r}")
        if (node_id, operator) in state.ended_operators:
            return
        # Read this now: if the process has exited, the sends below notice it and may end the
        # handover.
        being_replaced = node_id in self.handovers
        state.ended_operators.add((node_id, operator))
        state.mailboxes[node_id].close_rings_of(operator)
        self._peer_setup.send_edges_into(node_id)
        self._wake_senders(node_id)
        state.changed()
        if not being_replaced:
            self._listener.on_operator_ended(node_id, operator)

    def _done(self, node_id: str, connection: Connection) -> None:
        self._segments.orphan(node_id, connection.pid)
        self._state.changed()
        if node_id in self.handovers:
            self.handovers.old_is_done(node_id)
        elif not is_observer(node_id):
            self._listener.on_outputs_done(node_id)

    def on_end(self, connection: Connection) -> None:
        """Handle the end of a connection."""
        state = self._state
        node_id = state.node_of(connection)
        if node_id is not None:
            state.mailboxes[node_id].vacate()
        if connection.kept_as is not None:
            state.store.drop(connection.kept_as)
        for deferred in self._deferred.values():
            deferred.pop(connection, None)
        self.leases.drop(connection)
        pending = self.handovers.pending(connection)
        if pending is not None:
            self.handovers.release_pending(pending)
            return
        if node_id is None:
            return
        _log.debug("node %s has lost its process %d", node_id, connection.pid)
        del state.connections[node_id]
        if connection.violation is not None and not is_observer(node_id):
            text = f"its connection was ended: {connection.violation}"
            self._listener.on_note(node_id, text[:MAX_NOTE])
        state.changed()
        if node_id in self.handovers:
            # Producers keep waiting for room: no message may be displaced before the replacement.
            self.handovers.old_is_done(node_id)
            return
        self.release_senders(node_id)
        if not is_observer(node_id):
            self._listener.on_disconnected(node_id)

    def release_senders(self, node_id: str) -> None:
        """Mark a mailbox as unread for now, so that no producer waits for room in it."""
        state = self._state
        if node_id in state.exited:
            return
        state.mailboxes[node_id].detach()
        self._wake_senders(node_id)

    def _wake_senders(self, node_id: str) -> None:
        """Make producers that wait for room in an input of a node check again."""
        state = self._state
        for edge in state.edges.received_by(node_id):
            if edge.blocking and edge.source in state.mailboxes:
                state.send_ping(edge.source)

    def reclaim(self, node_id: str) -> None:
        """Release the connection, borrows, samples and values of an ended process."""
        self.revive_operators(node_id)
        connection = self._state.connections.get(node_id)
        if connection is not None:
            # A forked child may keep the socket open.
            connection.close("its process has ended")
        self._state.mailboxes[node_id].clear_hazards()
        self._segments.orphan(node_id, None)
        self._extensions.release(node_id)

    def revive_operators(self, node_id: str) -> None:
        """Mark all operators of a node as running: its next process has all of them."""
        state = self._state
        ended = {each for each in state.ended_operators if each[0] == node_id}
        if ended:
            state.ended_operators -= ended
            self._peer_setup.send_edges_into(node_id)

    def forget(self, node_id: str) -> None:
        """Release the resources of a node or observer that is about to be removed."""
        self._extensions.release(node_id)
        box = self._state.mailboxes.get(node_id)
        if box is not None and node_id in self._watch:
            self._departed[node_id] = box
        elif box is not None:
            box.clear_hazards()

    def _process_ended(self, pid: int, node_id: str) -> None:
        """Release the resources of an ended process that was not a child of the daemon."""
        self._segments.orphan(node_id, pid)
        self._state.changed()
        if self.handovers.process_ended(pid):
            return
        if node_id in self._state.connections or node_id in self._watch:
            return
        box = self._state.mailboxes.get(node_id) or self._departed.pop(node_id, None)
        if box is not None:
            box.clear_hazards()
            self._extensions.release(node_id)

    def close(self) -> None:
        """Close every connection and stop watching processes."""
        self.handovers.close()
        self.leases.close()
        for connection in list(self._state.connections.values()):
            connection.close("the dataflow has ended")
        self._watch.close()
        self._departed.clear()


def _report(packet: Packet) -> Status | ChannelEvent:
    from dorad.link import reports  # few dataflows have a link

    try:
        return reports.decode(packet.fields.get("report"))
    except ValueError as error:
        raise ProtocolError(str(error)) from error

"""Who is attached to a dataflow: hellos, what nodes say, and how they leave."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Protocol

from dorad.daemon.broker.admission import Verdict
from dorad.daemon.broker.edges import is_observer
from dorad.daemon.broker.extensions import KINDS, Extensions
from dorad.daemon.broker.handover import Handovers
from dorad.daemon.broker.pidwatch import PidWatch
from dorad.node.protocol import VERSION, Packet, ProtocolError

if TYPE_CHECKING:
    from collections.abc import Callable

    from dorad.control.peer import Peer
    from dorad.daemon.broker.admission import Admission, OwnUser
    from dorad.daemon.broker.connection import Connection
    from dorad.daemon.broker.mailbox import Mailbox
    from dorad.daemon.broker.peersetup import PeerSetup
    from dorad.daemon.broker.samples import Samples
    from dorad.daemon.broker.state import BrokerState
    from dorad.daemon.broker.topology import Topology

MAX_NOTE = 1000
"""Characters of what a node wants the user to know."""

_log = logging.getLogger(__name__)
MAX_NOTES = 100
"""What one process of a node may want the user to know."""

MAX_DEFERRED = 8
"""Processes that wait until it is known whether they belong to a node."""


class BrokerEvents(Protocol):
    """Whom the broker tells what nodes do."""

    def on_connected(self, node_id: str, pid: int) -> None:
        """A node called `Node()` and waits at the barrier."""

    def on_waiting(self, node_id: str, pid: int) -> None:
        """A process that is to replace a node's present one has said hello, and waits for it."""

    def on_outputs_done(self, node_id: str) -> None:
        """A node dropped its `Node`; the process may live on."""

    def on_operator_ended(self, node_id: str, operator: str) -> None:
        """An operator of a node has ended, and others of it go on."""

    def on_disconnected(self, node_id: str) -> None:
        """A node's socket is gone."""


class Sessions:
    """Gives processes their nodes' places and takes in what they say."""

    def __init__(
        self,
        state: BrokerState,
        listener: BrokerEvents,
        samples: Samples,
        peer_setup: PeerSetup,
        topology: Topology,
        changed: Callable[[], None],
        noted: Callable[[str, str], None],
        admission: Admission | OwnUser,
    ) -> None:
        self._state = state
        self._listener = listener
        self._samples = samples
        self._peer_setup = peer_setup
        self._changed = changed
        self._noted = noted
        self._notes: dict[str, int] = {}
        """How many each node has sent."""
        self._admission = admission
        self._deferred: dict[str, dict[Connection, Packet]] = {}
        """By node: who said hello while a process of the node was being started."""
        self._watch = PidWatch(self._process_ended)
        self._extensions = Extensions(state)
        self._departed: dict[str, Mailbox] = {}
        """Mailboxes of guests that were let go while their processes lived."""
        self.handovers = Handovers(
            state, peer_setup, topology, self._watch, self._welcome, self.nobody_reads
        )

    # -- arriving ----------------------------------------------------------------------------

    def hello(self, connection: Connection, packet: Packet) -> None:
        """Welcome a process, keep it waiting, or refuse it with the reason."""
        node_id = packet.text("node")
        refusal = self._refusal(node_id, packet)
        if refusal is None and connection.reserved_for != node_id:
            match self._admission.verdict(self._state.boxes[node_id].node, connection):
                case Verdict.UNKNOWN:
                    self._defer(node_id, connection, packet)
                    return
                case Verdict.FOREIGN:
                    refusal = self._foreign(node_id, connection.peer)
        if refusal is None and node_id in self.handovers:
            if self.handovers.hold(node_id, connection):
                _log.debug("process %d waits for the place of node %s", connection.pid, node_id)
                self._listener.on_waiting(node_id, connection.pid)
                self._changed()
                return
            refusal = f"node {node_id!r} is being replaced, and not by process {connection.pid}"
        elif refusal is None and node_id in self._state.connections:
            pid = self._state.connections[node_id].pid
            refusal = f"node {node_id!r} is already attached, as process {pid}"
        if refusal is not None:
            _log.debug("process %d is refused as %.80r: %s", connection.pid, node_id, refusal)
            connection.send("refused", {"error": refusal})
            connection.close("refused")
            return
        self._welcome(node_id, connection)

    def _defer(self, node_id: str, connection: Connection, packet: Packet) -> None:
        """Decide on a hello once the process that is being started for its node is known."""
        waiting = self._deferred.setdefault(node_id, {})
        if len(waiting) >= MAX_DEFERRED:
            connection.refuse(f"{MAX_DEFERRED} processes wait to be node {node_id!r}")
            return
        waiting[connection] = packet

    def started(self, node_id: str) -> None:
        """Decide on those that have said hello while a process of a node was being started."""
        for connection, packet in self._deferred.pop(node_id, {}).items():
            try:
                self.hello(connection, packet)
            except OSError as error:
                connection.close(error.strerror or str(error))

    def _foreign(self, node_id: str, peer: Peer) -> str:
        if self._state.boxes[node_id].node.is_dynamic:
            return f"user {peer.uid} may not use this dataflow, so not attach as node {node_id!r}"
        return (
            f"process {peer.pid} of user {peer.uid} is not one that the dataflow has started for "
            f"node {node_id!r}; only `path: dynamic` nodes attach from outside"
        )

    def _refusal(self, node_id: str, packet: Packet) -> str | None:
        if packet.number("version") != VERSION:
            return (
                "the node's version of the node API does not fit the daemon's; install one of both"
            )
        box = self._state.boxes.get(node_id)
        if box is None:
            return f"the running dataflow has no node {node_id[:MAX_NOTE]!r}"
        if packet.fields.get("dynamic") is True and not box.node.is_dynamic:
            return f"node {node_id!r} is started by its dataflow; only `path: dynamic` nodes attach"
        return self._state.abort_start

    def _welcome(self, node_id: str, connection: Connection) -> None:
        if self._state.boxes[node_id].node.is_dynamic:
            self._watch.add(connection.pid, node_id)
        self.revive_operators(node_id)
        _log.debug("process %d is node %s", connection.pid, node_id)
        self._notes.pop(node_id, None)
        self._state.welcome(node_id, connection)
        self._inform(node_id)
        self._changed()

    def _inform(self, node_id: str) -> None:
        self._peer_setup.all_of(node_id)
        for kind, fields in self._state.facts_of(node_id):
            self._state.send(node_id, kind, fields)

    def adopt(self, node_id: str) -> None:
        """Tell a node that was another daemon's all that holds now."""
        _log.debug("node %s goes on under this daemon", node_id)
        state = self._state
        connection = state.connections[node_id]
        if state.boxes[node_id].node.is_dynamic:
            self._watch.add(connection.pid, node_id)
        connection.send("adopted", {})
        self._inform(node_id)
        if state.abort_start is not None:
            connection.send("refused", {"error": state.abort_start})
        elif state.epoch_ns is not None:
            connection.send("start", {"epoch_ns": state.epoch_ns})

    # -- speaking ----------------------------------------------------------------------------

    def heard(self, connection: Connection, packet: Packet) -> None:
        """Do what a node asks.

        Raises:
            ProtocolError: it is nothing that a node may ask, or malformed.
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
                self._samples.grow(node_id, size, packet.fields.get("ask"))
            case "retire":
                self._samples.retire(node_id, packet.number("segment"))
            case "note":
                self._note(node_id, packet.text("text"))
            case "ended":
                self._operator_ended(node_id, packet.text("operator"))
            case "done":
                self._done(node_id, connection)
            case kind if kind in KINDS:
                self._extensions.answer(node_id, packet)
            case unknown:
                raise ProtocolError(f"the unknown packet {unknown!r}")

    def _note(self, node_id: str, text: str) -> None:
        sent = self._notes[node_id] = self._notes.get(node_id, 0) + 1
        if sent > MAX_NOTES:
            raise ProtocolError(f"a node may send {MAX_NOTES} notes, and no more")
        self._noted(node_id, text[:MAX_NOTE])

    def _ready(self, node_id: str, connection: Connection) -> None:
        state = self._state
        if state.abort_start is not None:
            connection.send("refused", {"error": state.abort_start})
            return
        late = state.epoch_ns is not None
        if not is_observer(node_id):
            self._listener.on_connected(node_id, connection.pid)
        if late:
            connection.send("start", {"epoch_ns": state.epoch_ns})

    def _operator_ended(self, node_id: str, operator: str) -> None:
        state = self._state
        if all(each.id != operator for each in state.boxes[node_id].node.operators):
            raise ProtocolError(f"the end of the unknown operator {operator!r}")
        if (node_id, operator) in state.ended:
            return
        # Asked now: if the process is gone already, a handover ends as it is told something.
        being_replaced = node_id in self.handovers
        state.ended.add((node_id, operator))
        state.boxes[node_id].close_rings_of(operator)
        self._peer_setup.edges_into(node_id)
        self._wake_waiting(node_id)
        self._changed()
        if not being_replaced:
            self._listener.on_operator_ended(node_id, operator)

    def _done(self, node_id: str, connection: Connection) -> None:
        self._samples.orphan(node_id, connection.pid)
        self._changed()
        if node_id in self.handovers:
            self.handovers.old_is_done(node_id)
        elif not is_observer(node_id):
            self._listener.on_outputs_done(node_id)

    # -- leaving -----------------------------------------------------------------------------

    def ended(self, connection: Connection) -> None:
        """Take note that a connection is gone."""
        state = self._state
        if connection.kept_as is not None:
            state.store.drop(connection.kept_as)
        for waiting_too in self._deferred.values():
            waiting_too.pop(connection, None)
        waiting = self.handovers.pending(connection)
        if waiting is not None:
            self.handovers.release_pending(waiting)
            return
        node_id = state.node_of(connection)
        if node_id is None:
            return
        _log.debug("node %s has lost its process %d", node_id, connection.pid)
        del state.connections[node_id]
        if connection.violation is not None and not is_observer(node_id):
            self._noted(node_id, f"its connection was ended: {connection.violation}"[:MAX_NOTE])
        self._changed()
        if node_id in self.handovers:
            # Its mailbox stays as if somebody read it: nothing may be displaced there.
            self.handovers.old_is_done(node_id)
            return
        self.nobody_reads(node_id)
        if not is_observer(node_id):
            self._listener.on_disconnected(node_id)

    def nobody_reads(self, node_id: str) -> None:
        """Let nobody wait for a node that has no process for now."""
        state = self._state
        if node_id in state.gone:
            return
        state.boxes[node_id].leave()
        self._wake_waiting(node_id)

    def _wake_waiting(self, node_id: str) -> None:
        """Let those look again that wait for room in an input of a node."""
        state = self._state
        for edge in state.edges.received_by(node_id):
            if edge.blocking and edge.source in state.boxes:
                state.send_ping(edge.source)

    def take_back(self, node_id: str) -> None:
        """Undo what an ended process has left: its connection, its borrows, its samples."""
        self.revive_operators(node_id)
        connection = self._state.connections.get(node_id)
        if connection is not None:
            # A child that it forked may keep the socket open.
            connection.close("its process has ended")
        self._state.boxes[node_id].clear_hazards()
        self._samples.orphan(node_id, None)
        self._extensions.leave(node_id)

    def revive_operators(self, node_id: str) -> None:
        """Take note that the next process of a node has all its operators again."""
        state = self._state
        ended = {each for each in state.ended if each[0] == node_id}
        if ended:
            state.ended -= ended
            self._peer_setup.edges_into(node_id)

    def forget(self, node_id: str) -> None:
        """Forget a node or a guest that is about to be removed."""
        self._extensions.leave(node_id)
        box = self._state.boxes.get(node_id)
        if box is not None and node_id in self._watch:
            self._departed[node_id] = box
        elif box is not None:
            box.clear_hazards()

    def _process_ended(self, pid: int, node_id: str) -> None:
        """Take back what a process that is no child of the daemon has left."""
        self._samples.orphan(node_id, pid)
        self._changed()
        if self.handovers.process_ended(pid):
            return
        if node_id in self._state.connections or node_id in self._watch:
            return
        box = self._state.boxes.get(node_id) or self._departed.pop(node_id, None)
        if box is not None:
            box.clear_hazards()
            self._extensions.leave(node_id)

    def close(self) -> None:
        """End every connection and watch nothing any more."""
        self.handovers.close()
        for connection in list(self._state.connections.values()):
            connection.close("the dataflow has ended")
        self._watch.close()

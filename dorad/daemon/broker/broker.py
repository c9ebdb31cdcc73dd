"""The broker: hands nodes their mailboxes and descriptors, and tells them what happens.

It takes no part in the data: once two nodes have each other's descriptors, messages pass between
them without it.
"""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any

from dorad.daemon.broker import latches, restore
from dorad.daemon.broker.admission import OwnUser
from dorad.daemon.broker.edges import EdgeTable, is_observer
from dorad.daemon.broker.emitter import Emitter
from dorad.daemon.broker.listener import Listener
from dorad.daemon.broker.mailbox import Mailbox
from dorad.daemon.broker.notifications import Notifications
from dorad.daemon.broker.observers import Observers
from dorad.daemon.broker.peersetup import PeerSetup
from dorad.daemon.broker.restore import RestoreError
from dorad.daemon.broker.rewiring import Rewiring
from dorad.daemon.broker.samples import Samples
from dorad.daemon.broker.sessions import Sessions
from dorad.daemon.broker.state import BrokerState
from dorad.daemon.broker.stats import Stats
from dorad.daemon.broker.topology import Topology
from dorad.launch.fdstore import NoStore
from dorad.shm import create

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from dorad.control.peer import Peer
    from dorad.daemon.broker.admission import Admission
    from dorad.daemon.broker.observers import Targets
    from dorad.daemon.broker.restore import Kept
    from dorad.daemon.broker.sessions import BrokerEvents
    from dorad.dataflow.model import Dataflow, Input, NodeSpec
    from dorad.launch.fdstore import FdStore

HELLO_DEADLINE_S = 5.0
"""Seconds a connection may stay open without saying which node it is."""


class Broker(Notifications, Stats):
    """The mailboxes and connections of one dataflow. Belongs to one event loop."""

    def __init__(
        self,
        dataflow: Dataflow,
        dataflow_id: str,
        socket_path: Path,
        listener: BrokerEvents,
        *,
        store: FdStore | None = None,
        admits: Callable[[Peer], bool] | None = None,
        admission: Admission | None = None,
        hello_deadline: float = HELLO_DEADLINE_S,
    ) -> None:
        """Make a broker that has not made anything yet; `store` keeps what is to outlive it.

        `admits` is as `Listener`'s; `admission` tells which process may be which node. Without one,
        any process of the same user may be any node.
        """
        self.on_change: Callable[[], None] = lambda: None
        """Called when `snapshot` would return something else than before."""
        self.on_note: Callable[[str, str], None] = lambda _node, _text: None
        """Called with a node's id and one line that its process wants the user to know."""
        self._path = socket_path
        self._state = state = BrokerState(dataflow, dataflow_id, store or NoStore())
        self._samples = Samples(state)
        peer_setup = PeerSetup(state, self._samples)
        rewiring = Rewiring(state, self._samples, peer_setup)
        self._peer_setup = peer_setup
        self._rewiring = rewiring
        self._topology = Topology(state, self._samples, rewiring)
        self._observers = Observers(state, self._samples, rewiring)
        self._emitter = Emitter(state, self._samples)
        self._sessions = Sessions(
            state,
            listener,
            self._samples,
            peer_setup,
            self._topology,
            self._changed,
            lambda node_id, text: self.on_note(node_id, text),
            OwnUser() if admission is None else admission,
        )
        sessions = self._sessions
        if admission is not None:
            admission.on_started = sessions.started
        self._listener = Listener(
            socket_path, hello_deadline, sessions.hello, sessions.heard, sessions.ended, admits
        )

    @property
    def dataflow_id(self) -> str:
        """The UUID of the run."""
        return self._state.dataflow_id

    def _changed(self) -> None:
        self.on_change()

    # -- life --------------------------------------------------------------------------------

    async def open(self, kept: Kept | None = None) -> None:
        """Make all mailboxes and listen; or take over what another daemon has left.

        Raises:
            OSError: there is no room, or the socket cannot be made.
            RestoreError: what another daemon has left cannot be used.
        """
        create.sweep()
        try:
            if kept is None:
                self._make()
            else:
                try:
                    self._take_over(kept)
                except (AttributeError, LookupError, TypeError, ValueError) as error:
                    raise RestoreError(f"what is known of it is not in order: {error!r}") from error
        except BaseException:
            await self.close()
            raise

    def _make(self) -> None:
        state = self._state
        for node in state.dataflow.nodes:
            state.boxes[node.id] = Mailbox(node)
            state.keep_box(node.id)
        self._topology.wire_up()
        state.store.store(state.name("listener"), (self._listener.open(),))

    def _take_over(self, kept: Kept) -> None:
        state = self._state
        snapshot = kept.snapshot
        state.epoch_ns = snapshot.get("epoch_ns")
        state.abort_start = snapshot.get("poison")
        unknown = restore.restore_boxes(state, kept)
        lost = restore.lost_rings(state, snapshot)
        pending = restore.restore_connections(state, self._listener, kept)
        restore.restore_segments(state, self._samples, kept)
        for node_id, connection in list(state.connections.items()):
            if connection.forget_questions(restore.QUESTIONS):
                self._sessions.adopt(node_id)
        for edge in unknown:
            self._rewiring.announce(edge.consumer, edge.ring, edge)
        for node_id, input_id, ring in lost:
            state.send(node_id, "input_gone", {"id": input_id, "ring": ring})
        self._samples.drop_observers(list(state.connections))
        handovers = self._sessions.handovers
        handovers.restore(snapshot.get("handovers", {}), pending, state.dataflow)
        for connection in pending.values():
            if handovers.pending(connection) is None and state.node_of(connection) is None:
                connection.close("its place is taken")
        for node_id in state.boxes:
            if node_id not in state.connections and node_id not in handovers:
                self._sessions.nobody_reads(node_id)
        listener = restore.restore_listener(state, kept)
        state.store.store(state.name("listener"), (self._listener.open(listener),))

    async def close(self) -> None:
        """End every connection and let go of every descriptor and of the socket's name."""
        state = self._state
        state.store.drop(state.name("listener"))
        for node_id in state.boxes:
            state.store.drop(state.name("box", node_id))
        self.on_change = lambda: None
        self._listener.close()
        self._rewiring.close()
        self._sessions.close()
        for box in state.boxes.values():
            box.close()
        state.edges = EdgeTable()
        state.boxes.clear()
        await self._samples.close()

    def snapshot(self) -> dict[str, Any]:
        """Return what the next daemon must know besides the descriptors; JSON-able."""
        state = self._state
        boxes = {n: box.snapshot() for n, box in state.boxes.items() if not is_observer(n)}
        return {
            "epoch_ns": state.epoch_ns,
            "poison": state.abort_start,
            "gone": sorted(state.gone),
            "ended": sorted(map(list, state.ended)),
            "told": {
                n: [*node_facts]
                for n, node_facts in state.node_facts.items()
                if node_facts and not is_observer(n)
            },
            "restarts": state.restarts,
            "params": state.params,
            "boxes": boxes,
            "edges": [
                [*edge]
                for edge in state.edges
                if not (is_observer(edge.source) or is_observer(edge.consumer))
            ],
            "attached": {n: c.pid for n, c in state.connections.items() if not is_observer(n)},
            "next_segment": self._samples.next_number,
            "orphans": self._samples.snapshot(),
            "handovers": self._sessions.handovers.snapshot(),
        }

    def node_config(self, node_id: str) -> str:
        """Return the text of DORA_NODE_CONFIG for a node."""
        return json.dumps(
            {
                "node_id": node_id,
                "dataflow_id": self._state.dataflow_id,
                "daemon_socket": os.fspath(self._path),
            }
        )

    # -- processes come and go ---------------------------------------------------------------

    def detach(self, node_id: str) -> None:
        """Take note that a node's process is gone for good: nobody waits for it any more."""
        state = self._state
        self._sessions.handovers.end(node_id)
        state.gone.add(node_id)
        self._sessions.take_back(node_id)
        state.boxes[node_id].close_rings()
        self._emitter.forget(node_id)
        self._peer_setup.edges_into(node_id)
        self._changed()

    def restarting(self, node_id: str, restart_count: int) -> None:
        """Take note that the node's next process is to be its `restart_count`-th restart."""
        self._state.restarts[node_id] = restart_count
        self._changed()

    def released(self, node_id: str) -> None:
        """Take note that a node's process has ended and that another one will take its place.

        What waits for the node goes on waiting, and newer messages displace it: nobody blocks on a
        node that is not there. A stop that was meant for the old process does not reach the new.
        """
        self._sessions.take_back(node_id)
        self._state.facts_of(node_id).drop_manual_stop()
        self._changed()

    def reopen(self, node_id: str) -> None:
        """Let a node have processes again that was stopped, or gone for good."""
        state = self._state
        state.facts_of(node_id).drop("stop")
        if node_id in state.gone:
            state.gone.remove(node_id)
            state.boxes[node_id].discard()
            state.boxes[node_id].leave()
            self._peer_setup.edges_into(node_id)
            for edge in state.edges.received_by(node_id):
                latches.bring_up(state, edge)
        self._changed()

    async def begin_handover(self, node_id: str, replacement: NodeSpec, dataflow: Dataflow) -> None:
        """Expect a process that takes the place of a node's present one, and its mailbox.

        It waits with its hello until the other has said `done` or hung up; until it receives,
        producers wait for room.

        Raises:
            ValueError: it is being replaced already.
            OSError: there is no room for an input that only the replacement has.
        """
        self._sessions.handovers.begin(node_id, replacement, dataflow)
        self._changed()

    def end_handover(self, node_id: str) -> bool:
        """End a handover: the old process has ended; or the new one has, and all is as before.

        Returns False if the new process did not get the place.
        """
        swapped = self._sessions.handovers.end(node_id)
        self._changed()
        return swapped

    # -- the dataflow changes ----------------------------------------------------------------

    async def add_node(self, node: NodeSpec, dataflow: Dataflow) -> None:
        """Make the mailbox of one more node, and connect it; `dataflow` has it already.

        Raises:
            OSError: /dev/shm is full.
            ValueError: there is such a node already.
        """
        await self._topology.add_node(node, dataflow)
        self._changed()

    def remove_node(self, node_id: str) -> None:
        """Forget a node that has ended; what it sent is still received."""
        self._sessions.forget(node_id)
        self._emitter.forget(node_id)
        self._topology.remove_node(node_id)
        self._changed()

    def add_edge(self, consumer: str, entry: Input) -> None:
        """Add an input to a node.

        Raises:
            OSError: there is no room for its queue.
            ValueError: the node has that input already.
        """
        self._topology.add_edge(consumer, entry)
        self._changed()

    def remove_edge(self, consumer: str, input_id: str) -> None:
        """Take an input away from a node; what is queued there is still received.

        Raises:
            KeyError: there is no such input.
        """
        self._topology.remove_edge(consumer, input_id)
        self._changed()

    def update(self, dataflow: Dataflow) -> None:
        """Take note of how the dataflow is described; inputs it does not have are taken away."""
        self._topology.update(dataflow)
        self._changed()

    # -- guests, and the daemon as a sender --------------------------------------------------

    async def add_observer(
        self,
        observer_id: str,
        inputs: Sequence[Input] = (),
        outputs: Mapping[str, Targets] | None = None,
    ) -> str:
        """Make room for one that receives `inputs` and whose `outputs` feed inputs of nodes.

        Its id starts with a dot. Returns the DORA_NODE_CONFIG for its process; without one, what
        comes for it is counted and displaced. It is no part of the dataflow, and gone with the
        daemon.

        Raises:
            ValueError: the id is none, or taken.
            KeyError: there is no such node or input.
            OSError: there is no room for it.
        """
        await self._observers.add(observer_id, inputs, outputs or {})
        return self.node_config(observer_id)

    def connect_observer(self, observer_id: str, sock: socket.socket, pid: int) -> None:
        """Connect the process `pid`, which has the other end of `sock`, as this observer.

        The socket is owned from here on.
        """
        self._listener.introduce(sock, observer_id, pid)

    def remove_observer(self, observer_id: str) -> None:
        """Let go of a guest; what it sent is still received."""
        self._sessions.forget(observer_id)
        self._emitter.forget(observer_id)
        self._observers.remove(observer_id)

    def emit(self, node_id: str, input_id: str, text: str) -> None:
        """Send one text to an input that the daemon feeds; it is received as an array of utf8.

        Raises:
            OSError: /dev/shm is full.
        """
        edges = [edge for edge in self._state.edges.into(node_id, input_id) if edge.daemon]
        self._emitter.emit(edges, text)

    def emit_output(self, node_id: str, output: str, text: str) -> None:
        """Send one text to all receivers of an output that carries what a node prints or logs.

        Raises:
            OSError: /dev/shm is full.
        """
        self._emitter.emit(self._state.edges.printed(node_id, output), text)

    def has_receivers(self, node_id: str, output: str) -> bool:
        """Return whether anything receives an output that carries what a node prints or logs."""
        return bool(self._state.edges.printed(node_id, output))

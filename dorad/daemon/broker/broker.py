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
from dorad.daemon.broker.desk import Desk
from dorad.daemon.broker.edges import EdgeTable, is_guest
from dorad.daemon.broker.emitter import Emitter
from dorad.daemon.broker.guests import Guests
from dorad.daemon.broker.introductions import Introductions
from dorad.daemon.broker.lobby import Lobby
from dorad.daemon.broker.mailbox import Mailbox
from dorad.daemon.broker.members import Members
from dorad.daemon.broker.restore import RestoreError
from dorad.daemon.broker.rewiring import Rewiring
from dorad.daemon.broker.samples import Samples
from dorad.daemon.broker.seeing import Seeing
from dorad.daemon.broker.telling import Telling
from dorad.daemon.broker.topology import Topology
from dorad.launch.fdstore import NoStore
from dorad.shm import create

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from dorad.control.peer import Peer
    from dorad.daemon.broker.admission import Admission
    from dorad.daemon.broker.guests import Targets
    from dorad.daemon.broker.members import BrokerListener
    from dorad.daemon.broker.restore import Kept
    from dorad.dataflow.model import Dataflow, Input, Node
    from dorad.launch.fdstore import FdStore

HELLO_DEADLINE_S = 5.0
"""Seconds a connection may stay open without saying which node it is."""


class Broker(Telling, Seeing):
    """The mailboxes and connections of one dataflow. Belongs to one event loop."""

    def __init__(
        self,
        dataflow: Dataflow,
        dataflow_id: str,
        socket_path: Path,
        listener: BrokerListener,
        *,
        store: FdStore | None = None,
        admits: Callable[[Peer], bool] | None = None,
        admission: Admission | None = None,
        hello_deadline: float = HELLO_DEADLINE_S,
    ) -> None:
        """Make a broker that has not made anything yet; `store` keeps what is to outlive it.

        `admits` is as `Lobby`'s; `admission` tells which process may be which node. Without one,
        any process of the same user may be any node.
        """
        self.on_change: Callable[[], None] = lambda: None
        """Called when `snapshot` would return something else than before."""
        self.on_note: Callable[[str, str], None] = lambda _node, _text: None
        """Called with a node's id and one line that its process wants the user to know."""
        self._path = socket_path
        self._desk = desk = Desk(dataflow, dataflow_id, store or NoStore())
        self._samples = Samples(desk)
        introductions = Introductions(desk, self._samples)
        rewiring = Rewiring(desk, self._samples, introductions)
        self._introductions = introductions
        self._rewiring = rewiring
        self._topology = Topology(desk, self._samples, rewiring)
        self._guests = Guests(desk, self._samples, rewiring)
        self._emitter = Emitter(desk, self._samples)
        self._members = Members(
            desk,
            listener,
            self._samples,
            introductions,
            self._topology,
            self._changed,
            lambda node_id, text: self.on_note(node_id, text),
            OwnUser() if admission is None else admission,
        )
        members = self._members
        if admission is not None:
            admission.on_started = members.started
        self._lobby = Lobby(
            socket_path, hello_deadline, members.hello, members.heard, members.ended, admits
        )

    @property
    def dataflow_id(self) -> str:
        """The UUID of the run."""
        return self._desk.dataflow_id

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
        desk = self._desk
        for node in desk.dataflow.nodes:
            desk.boxes[node.id] = Mailbox(node)
            desk.keep_box(node.id)
        self._topology.wire_up()
        desk.store.store(desk.name("listener"), (self._lobby.open(),))

    def _take_over(self, kept: Kept) -> None:
        desk = self._desk
        snapshot = kept.snapshot
        desk.epoch_ns = snapshot.get("epoch_ns")
        desk.poison = snapshot.get("poison")
        unknown = restore.restore_boxes(desk, kept)
        lost = restore.lost_rings(desk, snapshot)
        parked = restore.restore_connections(desk, self._lobby, kept)
        restore.restore_segments(desk, self._samples, kept)
        for node_id, connection in list(desk.connections.items()):
            if connection.forget_questions(restore.QUESTIONS):
                self._members.adopt(node_id)
        for edge in unknown:
            self._rewiring.announce(edge.consumer, edge.ring, edge)
        for node_id, input_id, ring in lost:
            desk.send(node_id, "input_gone", {"id": input_id, "ring": ring})
        self._samples.drop_guests(list(desk.connections))
        handovers = self._members.handovers
        handovers.restore(snapshot.get("handovers", {}), parked, desk.dataflow)
        for connection in parked.values():
            if handovers.parked(connection) is None and desk.node_of(connection) is None:
                connection.close("its place is taken")
        for node_id in desk.boxes:
            if node_id not in desk.connections and node_id not in handovers:
                self._members.nobody_reads(node_id)
        listener = restore.restore_listener(desk, kept)
        desk.store.store(desk.name("listener"), (self._lobby.open(listener),))

    async def close(self) -> None:
        """End every connection and let go of every descriptor and of the socket's name."""
        desk = self._desk
        desk.store.drop(desk.name("listener"))
        for node_id in desk.boxes:
            desk.store.drop(desk.name("box", node_id))
        self.on_change = lambda: None
        self._lobby.close()
        self._rewiring.close()
        self._members.close()
        for box in desk.boxes.values():
            box.close()
        desk.edges = EdgeTable()
        desk.boxes.clear()
        await self._samples.close()

    def snapshot(self) -> dict[str, Any]:
        """Return what the next daemon must know besides the descriptors; JSON-able."""
        desk = self._desk
        boxes = {n: box.snapshot() for n, box in desk.boxes.items() if not is_guest(n)}
        return {
            "epoch_ns": desk.epoch_ns,
            "poison": desk.poison,
            "gone": sorted(desk.gone),
            "ended": sorted(map(list, desk.ended)),
            "told": {n: [*told] for n, told in desk.told.items() if told and not is_guest(n)},
            "restarts": desk.restarts,
            "params": desk.params,
            "boxes": boxes,
            "edges": [
                [*edge]
                for edge in desk.edges
                if not (is_guest(edge.source) or is_guest(edge.consumer))
            ],
            "attached": {n: c.pid for n, c in desk.connections.items() if not is_guest(n)},
            "next_segment": self._samples.next_number,
            "orphans": self._samples.snapshot(),
            "handovers": self._members.handovers.snapshot(),
        }

    def node_config(self, node_id: str) -> str:
        """Return the text of DORA_NODE_CONFIG for a node."""
        return json.dumps(
            {
                "node_id": node_id,
                "dataflow_id": self._desk.dataflow_id,
                "daemon_socket": os.fspath(self._path),
            }
        )

    # -- processes come and go ---------------------------------------------------------------

    def detach(self, node_id: str) -> None:
        """Take note that a node's process is gone for good: nobody waits for it any more."""
        desk = self._desk
        self._members.handovers.end(node_id)
        desk.gone.add(node_id)
        self._members.take_back(node_id)
        desk.boxes[node_id].close_rings()
        self._emitter.forget(node_id)
        self._introductions.edges_into(node_id)
        self._changed()

    def restarting(self, node_id: str, restart_count: int) -> None:
        """Take note that the node's next process is to be its `restart_count`-th restart."""
        self._desk.restarts[node_id] = restart_count
        self._changed()

    def released(self, node_id: str) -> None:
        """Take note that a node's process has ended and that another one will take its place.

        What waits for the node goes on waiting, and newer messages displace it: nobody blocks on a
        node that is not there. A stop that was meant for the old process does not reach the new.
        """
        self._members.take_back(node_id)
        self._desk.facts(node_id).drop_manual_stop()
        self._changed()

    def reopen(self, node_id: str) -> None:
        """Let a node have processes again that was stopped, or gone for good."""
        desk = self._desk
        desk.facts(node_id).drop("stop")
        if node_id in desk.gone:
            desk.gone.remove(node_id)
            desk.boxes[node_id].discard()
            desk.boxes[node_id].leave()
            self._introductions.edges_into(node_id)
            for edge in desk.edges.received_by(node_id):
                latches.bring_up(desk, edge)
        self._changed()

    async def begin_handover(self, node_id: str, replacement: Node, dataflow: Dataflow) -> None:
        """Expect a process that takes the place of a node's present one, and its mailbox.

        It waits with its hello until the other has said `done` or hung up; until it receives,
        producers wait for room.

        Raises:
            ValueError: it is being replaced already.
            OSError: there is no room for an input that only the replacement has.
        """
        self._members.handovers.begin(node_id, replacement, dataflow)
        self._changed()

    def end_handover(self, node_id: str) -> bool:
        """End a handover: the old process has ended; or the new one has, and all is as before.

        Returns False if the new process did not get the place.
        """
        swapped = self._members.handovers.end(node_id)
        self._changed()
        return swapped

    # -- the dataflow changes ----------------------------------------------------------------

    async def add_node(self, node: Node, dataflow: Dataflow) -> None:
        """Make the mailbox of one more node, and connect it; `dataflow` has it already.

        Raises:
            OSError: /dev/shm is full.
            ValueError: there is such a node already.
        """
        await self._topology.add_node(node, dataflow)
        self._changed()

    def remove_node(self, node_id: str) -> None:
        """Forget a node that has ended; what it sent is still received."""
        self._members.forget(node_id)
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

    async def add_guest(
        self,
        guest_id: str,
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
        await self._guests.add(guest_id, inputs, outputs or {})
        return self.node_config(guest_id)

    def connect_guest(self, guest_id: str, sock: socket.socket, pid: int) -> None:
        """Let the process `pid`, which has the other end of `sock`, be the guest.

        The socket is owned from here on.
        """
        self._lobby.introduce(sock, guest_id, pid)

    def remove_guest(self, guest_id: str) -> None:
        """Let go of a guest; what it sent is still received."""
        self._members.forget(guest_id)
        self._emitter.forget(guest_id)
        self._guests.remove(guest_id)

    def emit(self, node_id: str, input_id: str, text: str) -> None:
        """Send one text to an input that the daemon feeds; it is received as an array of utf8.

        Raises:
            OSError: /dev/shm is full.
        """
        edges = [edge for edge in self._desk.edges.into(node_id, input_id) if edge.daemon]
        self._emitter.emit(edges, text)

    def emit_output(self, node_id: str, output: str, text: str) -> None:
        """Send one text to all receivers of an output that carries what a node prints or logs.

        Raises:
            OSError: /dev/shm is full.
        """
        self._emitter.emit(self._desk.edges.printed(node_id, output), text)

    def has_receivers(self, node_id: str, output: str) -> bool:
        """Return whether anything receives an output that carries what a node prints or logs."""
        return bool(self._desk.edges.printed(node_id, output))

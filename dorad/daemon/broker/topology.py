"""Changing a running dataflow: its nodes, their inputs and edges."""

import asyncio
import logging
from collections.abc import Callable

from dorad.daemon.broker.edges import edge_of
from dorad.daemon.broker.mailbox import Mailbox
from dorad.daemon.broker.segments import Segments
from dorad.daemon.broker.state import BrokerState
from dorad.daemon.broker.wiring import PeerSetup, Wiring
from dorad.dataflow.model import Dataflow, Input, NodeSpec
from dorad.dataflow.params import initial
from dorad.dataflow.recording import records_or_replays

_log = logging.getLogger(__name__)


class Topology:
    """Carries out changes of the dataflow. The caller has validated them."""

    def __init__(
        self,
        state: BrokerState,
        segments: Segments,
        peer_setup: PeerSetup,
        wiring: Wiring,
        forget: Callable[[str], None] = lambda _node: None,
    ) -> None:
        """`forget` is called with the id of each node that is about to be removed."""
        self._state = state
        self._segments = segments
        self._peer_setup = peer_setup
        self._wiring = wiring
        self._forget = forget

    def build(self) -> None:
        """Create the mailboxes and edges of the whole dataflow, before any node connects.

        Raises:
            OSError: there is no memory left.
        """
        state = self._state
        for node in state.dataflow.nodes:
            box = state.mailboxes[node.id] = Mailbox(node)
            if state.stepped:
                box.step(1, held=not records_or_replays(node))
            state.keep_mailbox(node.id)
        for node in state.dataflow.nodes:
            state.params.setdefault(node.id, initial(node))
            for item in node.all_inputs:
                edge = edge_of(state.dataflow, node.id, item, item.id)
                if edge is not None:
                    state.edges.add(edge)

    async def add_node(self, node: NodeSpec, dataflow: Dataflow) -> None:
        """Create the mailbox of a node and connect it; `dataflow` already contains the node.

        Raises:
            OSError: there is no memory left.
            ValueError: the dataflow has a node with this id.
        """
        state = self._state
        if node.id in state.mailboxes:
            raise ValueError(f"the dataflow has a node {node.id!r} already")
        box = await asyncio.to_thread(Mailbox, node)
        if node.id in state.mailboxes:
            box.close()
            raise ValueError(f"the dataflow has a node {node.id!r} already")
        _log.debug("node %s is added", node.id)
        state.dataflow = dataflow
        state.mailboxes[node.id] = box
        state.params.setdefault(node.id, initial(node))
        state.keep_mailbox(node.id)
        for other in dataflow.nodes:
            for item in other.all_inputs:
                self._connect_input(other.id, item, node.id)
        state.changed()

    def _connect_input(self, consumer: str, item: Input, added: str) -> None:
        """Connect an input that has a ring but no edge, if `added` is at either end."""
        state = self._state
        edge = edge_of(state.dataflow, consumer, item, item.id)
        box = state.mailboxes.get(consumer)
        if edge is None or box is None or added not in (consumer, edge.source):
            return
        rings = [name for name, ring in box.rings.items() if ring.input == item.id]
        if not rings or state.edges.into(consumer, item.id):
            return
        edge = edge._replace(ring=rings[0])
        if edge.daemon or edge.source in state.mailboxes:
            self._segments.send(edge.producer, consumer)
            self._wiring.connect(edge)
            self._wiring.replay_last(edge)

    def remove_node(self, node_id: str) -> None:
        """Remove a node whose process has exited; queued messages of it are still received."""
        state = self._state
        self._forget(node_id)
        _log.debug("node %s is removed", node_id)
        connection = state.connections.pop(node_id, None)
        box = state.mailboxes[node_id]
        if connection is not None:
            # The process checks its socket when this word changes, and finds it closed.
            box.mail_sent(box.mail + 1)
            connection.close("the node was removed from the dataflow")
        self._segments.orphan(node_id, None)
        for edge in list(state.edges):
            if node_id in (edge.source, edge.consumer):
                self._wiring.disconnect(edge)
        del state.mailboxes[node_id]
        for name in box.rings:
            box.unlatch(name)
        box.close_rings()
        box.close()
        state.store.drop(state.name("box", node_id))
        state.exited.discard(node_id)
        for known in (state.conditions, state.restarts, state.params):
            known.pop(node_id, None)
        state.changed()

    def add_edge(self, consumer: str, item: Input) -> None:
        """Add an input to a node and connect it.

        Raises:
            OSError: the mailbox or the memory has no room for the ring.
            ValueError: the node has this input already.
        """
        state = self._state
        box = state.mailboxes[consumer]
        if item.id in box.inputs:
            raise ValueError(f"node {consumer!r} has an input {item.id!r} already")
        box.inputs[item.id] = item
        try:
            self.add_ring(consumer, item, announce=True)
        except OSError:
            del box.inputs[item.id]
            raise
        self._drop_conditions(consumer, item.id)
        state.changed()

    def add_ring(self, consumer: str, item: Input, *, announce: bool) -> str:
        """Add a ring for an input, connect it, and return its name.

        `announce` also sends it to the consumer's present process.

        Raises:
            OSError: there is no room for it.
        """
        state = self._state
        box = state.mailboxes[consumer]
        name = box.free_name(item.id)
        box.add_ring(name, item)
        edge = edge_of(state.dataflow, consumer, item, name)
        if edge is not None and not edge.daemon and edge.source not in state.mailboxes:
            edge = None
        if announce:
            self._wiring.announce(consumer, name, edge)
        if edge is not None:
            self._wiring.connect(edge)
            self._wiring.replay_last(edge)
        return name

    def remove_edge(self, consumer: str, input_id: str) -> None:
        """Remove an input from a node, which sees it close after the queued messages.

        Raises:
            KeyError: the node has no such input.
        """
        self._remove_input(consumer, input_id)
        self._state.changed()

    def _remove_input(self, consumer: str, input_id: str) -> None:
        del self._state.mailboxes[consumer].inputs[input_id]
        self._drop_conditions(consumer, input_id)
        self.remove_rings(consumer, input_id, closes=True)

    def _drop_conditions(self, consumer: str, input_id: str) -> None:
        conditions = self._state.conditions_of(consumer)
        conditions.drop("closed", input_id)
        conditions.drop("broken", input_id)

    def remove_rings(
        self, consumer: str, input_id: str, *, but: str | None = None, closes: bool = False
    ) -> None:
        """Retire all rings of an input except `but`; with `closes` the input closes."""
        for name, ring in list(self._state.mailboxes[consumer].rings.items()):
            if ring.input == input_id and name != but:
                self.remove_ring(consumer, name, closes=closes)

    def remove_ring(self, consumer: str, name: str, *, closes: bool = False) -> None:
        """Retire a ring and its edge; an unknown ring has no effect."""
        if name in self._state.mailboxes[consumer].rings:
            fed = {edge.ring: edge for edge in self._state.edges.received_by(consumer)}
            self._wiring.retire_ring(consumer, name, fed.get(name), closes=closes)

    def update(self, dataflow: Dataflow) -> None:
        """Use a new description of the dataflow; inputs that it does not have are removed."""
        state = self._state
        state.dataflow = dataflow
        for node in dataflow.nodes:
            box = state.mailboxes.get(node.id)
            if box is None:
                continue
            items = {item.id: item for item in node.all_inputs}
            for input_id in [known for known in box.inputs if known not in items]:
                self._remove_input(node.id, input_id)
            relinked = box.node.link != node.link
            box.node = node
            box.inputs = items
            if relinked:
                self._peer_setup.send_edges_into(node.id)
        state.changed()

"""Changing a dataflow while it runs: its nodes, their inputs, and who feeds them."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from dorad.daemon.broker import latches
from dorad.daemon.broker.edges import edge_of
from dorad.daemon.broker.mailbox import Mailbox
from dorad.dataflow.params import initial

if TYPE_CHECKING:
    from dorad.daemon.broker.rewiring import Rewiring
    from dorad.daemon.broker.samples import Samples
    from dorad.daemon.broker.state import BrokerState
    from dorad.dataflow.model import Dataflow, Input, NodeSpec


class Topology:
    """Carries out changes of the dataflow that were found to be sound."""

    def __init__(self, state: BrokerState, samples: Samples, rewiring: Rewiring) -> None:
        self._state = state
        self._samples = samples
        self._rewiring = rewiring

    def wire_up(self) -> None:
        """Make the edges of the whole dataflow; nobody is connected yet."""
        state = self._state
        for node in state.dataflow.nodes:
            state.params.setdefault(node.id, initial(node))
            for item in node.all_inputs:
                edge = edge_of(state.dataflow, node.id, item, item.id)
                if edge is not None:
                    state.edges.add(edge)

    async def add_node(self, node: NodeSpec, dataflow: Dataflow) -> None:
        """Make a mailbox for a node, and feed whoever waits for its outputs.

        Raises:
            OSError: /dev/shm has no room for it.
            ValueError: there is such a node already.
        """
        state = self._state
        if node.id in state.boxes:
            raise ValueError(f"the dataflow has a node {node.id!r} already")
        box = await asyncio.to_thread(Mailbox, node)
        if node.id in state.boxes:
            box.close()
            raise ValueError(f"the dataflow has a node {node.id!r} already")
        state.dataflow = dataflow
        state.boxes[node.id] = box
        state.params.setdefault(node.id, initial(node))
        state.keep_box(node.id)
        for other in dataflow.nodes:
            for item in other.all_inputs:
                self._feed(other.id, item, node.id)

    def _feed(self, consumer: str, item: Input, new: str) -> None:
        """Connect an input that has its ring but nobody who pushes, if `new` is at either end."""
        state = self._state
        edge = edge_of(state.dataflow, consumer, item, item.id)
        box = state.boxes.get(consumer)
        if edge is None or box is None or new not in (consumer, edge.source):
            return
        waits = [name for name, ring in box.rings.items() if ring.input == item.id]
        if not waits or state.edges.into(consumer, item.id):
            return
        edge = edge._replace(ring=waits[0])
        if edge.daemon or edge.source in state.boxes:
            self._samples.show_of(edge.producer, consumer)
            self._rewiring.connect(edge)
            latches.bring_up(state, edge)

    def remove_node(self, node_id: str) -> None:
        """Forget a node whose process is gone; the inputs it fed keep what is queued there."""
        state = self._state
        connection = state.connections.pop(node_id, None)
        box = state.boxes[node_id]
        if connection is not None:
            # It looks at its socket when this word moves, and finds that it has ended.
            box.mail_sent(box.mail + 1)
            connection.close("the node was removed from the dataflow")
        self._samples.orphan(node_id, None)
        for edge in list(state.edges):
            if node_id in (edge.source, edge.consumer):
                self._rewiring.disconnect(edge)
        del state.boxes[node_id]
        for name in box.rings:
            box.unlatch(name)
        box.close_rings()
        box.close()
        state.store.drop(state.name("box", node_id))
        state.gone.discard(node_id)
        for known in (state.node_facts, state.restarts, state.params):
            known.pop(node_id, None)

    def add_edge(self, consumer: str, item: Input) -> None:
        """Feed a node one more input.

        Raises:
            OSError: its mailbox or /dev/shm has no room for the queue.
            ValueError: the node has that input already.
        """
        state = self._state
        box = state.boxes[consumer]
        if item.id in box.inputs:
            raise ValueError(f"node {consumer!r} has an input {item.id!r} already")
        box.inputs[item.id] = item
        try:
            self.add_input(consumer, item, tell=True)
        except OSError:
            del box.inputs[item.id]
            raise
        node_facts = state.facts_of(consumer)
        node_facts.drop("closed", item.id)
        node_facts.drop("broken", item.id)

    def add_input(self, consumer: str, item: Input, *, tell: bool) -> str:
        """Make a ring for an input and let it be fed; return the ring's name.

        Raises:
            OSError: there is no room for it.
        """
        state = self._state
        box = state.boxes[consumer]
        name = box.free_name(item.id)
        box.add_ring(name, item)
        edge = edge_of(state.dataflow, consumer, item, name)
        if edge is not None and not edge.daemon and edge.source not in state.boxes:
            edge = None
        if tell:
            self._rewiring.announce(consumer, name, edge)
        if edge is not None:
            self._rewiring.connect(edge)
            latches.bring_up(state, edge)
        return name

    def remove_edge(self, consumer: str, input_id: str) -> None:
        """Take an input away from a node, which sees its end after what is queued.

        Raises:
            KeyError: it has no such input.
        """
        state = self._state
        box = state.boxes[consumer]
        del box.inputs[input_id]
        self.remove_rings(consumer, input_id)
        node_facts = state.facts_of(consumer)
        node_facts.drop("closed", input_id)
        node_facts.drop("broken", input_id)
        state.send(consumer, "closed", {"input": input_id})

    def remove_rings(self, consumer: str, input_id: str, *, but: str | None = None) -> None:
        """Give up all rings of an input, except one."""
        for name, ring in list(self._state.boxes[consumer].rings.items()):
            if ring.input == input_id and name != but:
                self.remove_ring(consumer, name)

    def remove_ring(self, consumer: str, name: str) -> None:
        """Give up one ring, and the edge that ends there; it need not be there."""
        if name in self._state.boxes[consumer].rings:
            fed = {edge.ring: edge for edge in self._state.edges.received_by(consumer)}
            self._rewiring.give_up(consumer, name, fed.get(name))

    def update(self, dataflow: Dataflow) -> None:
        """Follow a new description: inputs that it has no longer are taken away."""
        state = self._state
        state.dataflow = dataflow
        for node in dataflow.nodes:
            box = state.boxes.get(node.id)
            if box is None:
                continue
            items = {item.id: item for item in node.all_inputs}
            for input_id in [known for known in box.inputs if known not in items]:
                self.remove_edge(node.id, input_id)
            box.node = node
            box.inputs = items

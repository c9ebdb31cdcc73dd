"""Handing nodes what they need to reach each other."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection

    from dorad.daemon.broker.samples import Samples
    from dorad.daemon.broker.state import BrokerState


class PeerSetup:
    """Sends nodes the descriptors of those that they send to and receive from, and the edges."""

    def __init__(self, state: BrokerState, samples: Samples) -> None:
        self._state = state
        self._samples = samples

    def all_of(self, node_id: str) -> None:
        """Introduce a node that has just attached to everybody it has to do with."""
        edges = self._state.edges
        pushed = edges.pushed_by(node_id)
        for consumer in sorted({edge.consumer for edge in pushed}):
            self.peer(node_id, consumer)
        blocking = {edge.source for edge in edges.received_by(node_id) if edge.blocking}
        for source in sorted(blocking):
            self.source(node_id, source)
        self._samples.show(node_id)
        self.edges_of(node_id, {edge.output for edge in pushed})

    def peer(self, producer: str, consumer: str) -> None:
        """Give a producer the mailbox of a consumer."""
        box = self._state.boxes[consumer]
        self._state.send(producer, "peer", {"node": consumer}, (box.memory, box.bell))

    def source(self, consumer: str, source: str) -> None:
        """Give a consumer the bell of a producer that waits for room at its input."""
        box = self._state.boxes.get(source)
        if box is not None:
            self._state.send(consumer, "source", {"node": source}, (box.space,))

    def edges_of(self, producer: str, outputs: Collection[str]) -> None:
        """Tell a producer who receives these outputs from now on."""
        state = self._state
        pushed = state.edges.pushed_by(producer)
        for output in sorted(outputs):
            to = [
                [e.consumer, state.boxes[e.consumer].rings[e.ring].plan.base, e.blocking]
                for e in pushed
                if e.output == output and state.receives(e)
            ]
            state.send(producer, "edges", {"output": output, "to": to})

    def edges_into(self, consumer: str) -> None:
        """Tell all producers of a node how its inputs are to be fed from now on."""
        into = self._state.edges.received_by(consumer)
        for producer in sorted({edge.producer for edge in into}):
            self.edges_of(producer, {e.output for e in into if e.producer == producer})

"""The edges of a dataflow: who sends to whom, and what has passed."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from dorad.daemon.segments import EdgeKey
from dorad.dataflow.model import NodeOutput, QueuePolicy

if TYPE_CHECKING:
    from dorad.dataflow.model import Dataflow


class Edge(NamedTuple):
    """One output of a node as one input of another receives it."""

    source: str
    output: str
    consumer: str
    input: str
    blocking: bool

    @property
    def key(self) -> EdgeKey:
        """What tells it from all others."""
        return EdgeKey(self.consumer, self.input)


class EdgeCounters(NamedTuple):
    """What passed over one edge so far; sent = received + dropped + queued, at rest.

    `refused` messages were never sent: the dataflow was stopping while they waited for room.
    """

    source_node: str
    output: str
    node: str
    input: str
    queue_size: int
    sent: int
    received: int
    dropped: int
    queued: int
    payload_bytes: int
    refused: int


def edges_of(dataflow: Dataflow) -> list[Edge]:
    """Return all edges between nodes, in the order of their inputs in the file."""
    return [
        Edge(
            source=item.source.node,
            output=item.source.output,
            consumer=node.id,
            input=item.id,
            blocking=item.queue_policy is QueuePolicy.BACKPRESSURE,
        )
        for node in dataflow.nodes
        for item in node.all_inputs
        if isinstance(item.source, NodeOutput)
    ]

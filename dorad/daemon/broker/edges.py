"""The edges of a dataflow: who sends to whom, and what has passed."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from dorad.daemon.broker.segments import EdgeKey
from dorad.daemon.rules.routing import printed_outputs
from dorad.dataflow.model import Input, LogSource, NodeOutput, QueuePolicy

if TYPE_CHECKING:
    from collections.abc import Iterator

    from dorad.dataflow.model import Dataflow

DAEMON = ".daemon"
"""Stands for the daemon among the ids of those that send; a node's id never starts with a dot."""


def is_observer(node_id: str) -> bool:
    """Tell whether an id is one of a guest, which is no part of the dataflow."""
    return node_id.startswith(".") and node_id != DAEMON


class Edge(NamedTuple):
    """One output of a node as one input of another receives it.

    `ring` names it in the consumer's mailbox; several rings may feed one input. Over the edges of
    the `daemon` itself it sends what the source has printed or logged.
    """

    source: str
    output: str
    consumer: str
    input: str
    ring: str
    blocking: bool
    daemon: bool = False

    @property
    def key(self) -> EdgeKey:
        """What tells it from all others."""
        return EdgeKey(self.consumer, self.ring)

    @property
    def producer(self) -> str:
        """Who pushes into the ring."""
        return DAEMON if self.daemon else self.source


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
    last_ns: int = 0
    latency_sum: int = 0
    latency_diff: int = 0
    unreadable: int = 0
    """Received messages that were an ERROR event, because their sender wrote nonsense."""
    limited: bool = False
    """Whether the file asks for fewer messages than are sent, by `max_rate_hz`."""


class EdgeTable:
    """All edges there are now, in the order in which they came to be."""

    def __init__(self) -> None:
        self._all: list[Edge] = []
        self._into: dict[tuple[str, str], list[Edge]] = {}
        self._printed: dict[tuple[str, str], list[Edge]] = {}
        self.leaving: list[Edge] = []
        """Those over which nothing is sent any more, while what is queued may still be taken."""

    def __iter__(self) -> Iterator[Edge]:
        return iter(self._all)

    def add(self, edge: Edge) -> None:
        """Add an edge; one that is there already stays once."""
        if edge not in self._all:
            self._all.append(edge)
            self._forget_indexes()

    def remove(self, edge: Edge) -> None:
        """Remove an edge; it need not be there."""
        if edge in self._all:
            self._all.remove(edge)
            self._forget_indexes()

    def block(self, edge: Edge, blocking: bool) -> Edge:
        """Let the edge's producer wait for room from now on, or not; return it as it is now."""
        changed = edge._replace(blocking=blocking)
        self._all[self._all.index(edge)] = changed
        self._forget_indexes()
        return changed

    def pushed_by(self, producer: str) -> list[Edge]:
        """Return the edges a node, a guest or the daemon pushes into."""
        return [edge for edge in self._all if edge.producer == producer]

    def reached_by(self, producer: str) -> list[Edge]:
        """Return the edges over which messages of a producer are still to be taken."""
        leaving = [edge for edge in self.leaving if edge.producer == producer]
        return self.pushed_by(producer) + leaving

    def received_by(self, consumer: str) -> list[Edge]:
        """Return the edges that end at a node."""
        return [edge for edge in self._all if edge.consumer == consumer]

    def into(self, consumer: str, input_id: str) -> list[Edge]:
        """Return the edges that end at an input; the dataflow's own comes first."""
        if not self._into:
            for edge in self._all:
                self._into.setdefault((edge.consumer, edge.input), []).append(edge)
        return self._into.get((consumer, input_id), [])

    def printed(self, source: str, output: str) -> list[Edge]:
        """Return the edges over which the daemon sends what a node prints or logs as an output."""
        if not self._printed:
            for edge in self._all:
                if edge.daemon:
                    self._printed.setdefault((edge.source, edge.output), []).append(edge)
        return self._printed.get((source, output), [])

    def _forget_indexes(self) -> None:
        self._into.clear()
        self._printed.clear()


def edge_of(dataflow: Dataflow, consumer: str, item: Input, ring: str) -> Edge | None:
    """Return the edge that feeds an input through `ring`; None for a timer."""
    match item.source:
        case NodeOutput(source, output):
            daemon = any(n.id == source and output in printed_outputs(n) for n in dataflow.nodes)
            # The daemon waits for nobody.
            blocking = item.queue_policy is QueuePolicy.BACKPRESSURE and not daemon
            return Edge(source, output, consumer, item.id, ring, blocking, daemon)
        case LogSource():
            return Edge(DAEMON, str(item.source), consumer, item.id, ring, False, True)
        case _:
            return None

"""The edges of a dataflow: which output feeds which input, through which ring."""

from collections.abc import Iterator
from typing import NamedTuple

from dorad.daemon.rules.routing import printed_outputs
from dorad.dataflow.model import (
    LINK,
    Dataflow,
    HopSource,
    Input,
    LogSource,
    NodeOutput,
    QueuePolicy,
)

DAEMON = ".daemon"
"""The producer id of the daemon itself. The id of a node never starts with a dot."""


def is_observer(node_id: str) -> bool:
    """Return True if an id belongs to an observer, which is not part of the dataflow."""
    return node_id.startswith(".") and node_id != DAEMON


class EdgeKey(NamedTuple):
    """Identifies the edge that ends at one ring of a node's mailbox."""

    node: str
    ring: str


class Edge(NamedTuple):
    """The connection from one output to one input.

    `ring` is the name of a ring in the consumer's mailbox; several rings may feed one input. The
    producer of a `daemon` edge is the daemon, which sends the source node's printed or logged
    lines, or hop records.
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
        """The consumer and the ring, which together are unique."""
        return EdgeKey(self.consumer, self.ring)

    @property
    def origin(self) -> str | None:
        """The node whose messages the edge carries; None for lines that the daemon sends.

        For what the link receives, that is a node of another machine.
        """
        if self.daemon:
            return None
        return self.output.partition("/")[0] if self.source == LINK else self.source

    @property
    def producer(self) -> str:
        """The id of the participant that pushes into the ring."""
        return DAEMON if self.daemon else self.source


class EdgeTable:
    """All present edges, the oldest first."""

    def __init__(self) -> None:
        self._all: list[Edge] = []
        self._into: dict[tuple[str, str], list[Edge]] = {}
        self._printed: dict[tuple[str, str], list[Edge]] = {}
        self.version = 0
        """Changes with every change of the edges."""
        self.retiring: list[Edge] = []
        """Removed edges whose queued messages can still be received."""

    def __iter__(self) -> Iterator[Edge]:
        return iter(self._all)

    def add(self, edge: Edge) -> None:
        """Add an edge; adding a present edge has no effect."""
        if edge not in self._all:
            self._all.append(edge)
            self._clear_indexes()

    def remove(self, edge: Edge) -> None:
        """Remove an edge; removing an unknown edge has no effect."""
        if edge in self._all:
            self._all.remove(edge)
            self._clear_indexes()

    def set_blocking(self, edge: Edge, blocking: bool) -> Edge:
        """Set whether the producer waits for room, and return the changed edge."""
        changed = edge._replace(blocking=blocking)
        self._all[self._all.index(edge)] = changed
        self._clear_indexes()
        return changed

    def pushed_by(self, producer: str) -> list[Edge]:
        """Return the edges that a node, an observer or the daemon pushes into."""
        return [edge for edge in self._all if edge.producer == producer]

    def reached_by(self, producer: str) -> list[Edge]:
        """Return the edges on which messages of a producer can still be received."""
        retiring = [edge for edge in self.retiring if edge.producer == producer]
        return self.pushed_by(producer) + retiring

    def received_by(self, consumer: str) -> list[Edge]:
        """Return the edges that end at a node."""
        return [edge for edge in self._all if edge.consumer == consumer]

    def into(self, consumer: str, input_id: str) -> list[Edge]:
        """Return the edges that end at an input; the edge of the dataflow file comes first."""
        if not self._into:
            for edge in self._all:
                self._into.setdefault((edge.consumer, edge.input), []).append(edge)
        return self._into.get((consumer, input_id), [])

    def printed(self, source: str, output: str) -> list[Edge]:
        """Return the edges that carry a node's printed or logged lines as this output."""
        if not self._printed:
            for edge in self._all:
                if edge.daemon:
                    self._printed.setdefault((edge.source, edge.output), []).append(edge)
        return self._printed.get((source, output), [])

    def _clear_indexes(self) -> None:
        self.version += 1
        self._into.clear()
        self._printed.clear()


def edge_of(dataflow: Dataflow, consumer: str, item: Input, ring: str) -> Edge | None:
    """Return the edge that feeds an input through `ring`; None for a timer."""
    match item.source:
        case NodeOutput(source, output):
            daemon = any(n.id == source and output in printed_outputs(n) for n in dataflow.nodes)
            # The daemon never waits for a consumer.
            blocking = item.queue_policy is QueuePolicy.BACKPRESSURE and not daemon
            return Edge(source, output, consumer, item.id, ring, blocking, daemon)
        case LogSource() | HopSource():
            return Edge(DAEMON, str(item.source), consumer, item.id, ring, False, True)
        case _:
            return None

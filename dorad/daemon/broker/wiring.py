"""Connecting and disconnecting nodes while they run."""

import asyncio
import logging
from collections.abc import Collection, Iterator

from msgspec import Struct

from dorad.daemon.broker.connection import Connection
from dorad.daemon.broker.edges import Edge
from dorad.daemon.broker.nodeconfig import input_options
from dorad.daemon.broker.segments import Segments
from dorad.daemon.broker.state import BrokerState
from dorad.dataflow.recording import records_or_replays
from dorad.shm.fence import fence
from dorad.shm.latch import LatchedOutlet, samples_of
from dorad.shm.layout import ENTRY
from dorad.shm.outlet import Outlet

POLL_S = 0.05
"""Seconds between checks of rings that are being retired."""

MAX_SIZE = 1 << 48
"""Bytes; no message is larger."""

Receipt = tuple["Connection", int] | None
"""A connection, and the number of packets that it must have read for a packet to take effect."""

_log = logging.getLogger(__name__)


class PeerSetup:
    """Sends nodes the descriptors of their peers, and the edges they push into."""

    def __init__(self, state: BrokerState, segments: Segments) -> None:
        self._state = state
        self._segments = segments

    def send_all(self, node_id: str) -> None:
        """Send a newly attached node everything that it needs to reach its peers."""
        edges = self._state.edges
        pushed = edges.pushed_by(node_id)
        for consumer in sorted({edge.consumer for edge in pushed}):
            self.send_consumer(node_id, consumer)
        blocking = {edge.source for edge in edges.received_by(node_id) if edge.blocking}
        for producer in sorted(blocking):
            self.send_producer(node_id, producer)
        self._segments.send_all(node_id)
        self.send_outputs(node_id, {edge.output for edge in pushed})

    def send_consumer(self, producer: str, consumer: str) -> None:
        """Send a producer the mailbox of a consumer."""
        box = self._state.mailboxes[consumer]
        self._state.send(producer, "peer", {"node": consumer}, (box.memory, box.bell))

    def send_producer(self, consumer: str, producer: str) -> None:
        """Send a consumer the space bell of a producer that waits for room at its input."""
        box = self._state.mailboxes.get(producer)
        if box is not None:
            self._state.send(consumer, "source", {"node": producer}, (box.space,))

    def send_outputs(self, producer: str, outputs: Collection[str]) -> None:
        """Send a producer the present edges of these outputs."""
        state = self._state
        pushed = state.edges.pushed_by(producer)
        for output in sorted(outputs):
            to = [
                [
                    e.consumer,
                    state.mailboxes[e.consumer].rings[e.ring].plan.base,
                    e.blocking,
                    *self._behind(e),
                ]
                for e in pushed
                if e.output == output and state.receives(e)
            ]
            state.send(producer, "edges", {"output": output, "to": to})

    def _behind(self, edge: Edge) -> tuple[str, ...]:
        """Return the nodes that receive what comes on an edge instead of its consumer, if any.

        Those of a link are on other machines. A replayer, or a recorder, counts as an observer: it
        never replies to what it receives.
        """
        node = self._state.mailboxes[edge.consumer].node
        if records_or_replays(node):
            return (f".{node.id}",)
        link = node.link
        channels = () if link is None else link.outgoing
        return next((each.receivers for each in channels if each.input == edge.input), ())

    def send_edges_into(self, consumer: str) -> None:
        """Send all producers of a node the present edges into it."""
        into = self._state.edges.received_by(consumer)
        for producer in sorted({edge.producer for edge in into}):
            self.send_outputs(producer, {e.output for e in into if e.producer == producer})


class _RetiringRing(Struct):
    consumer: str
    ring: str
    edge: Edge | None
    producer: Receipt
    closes: bool
    """Whether the consumer's input closes with it."""
    announced: bool = False
    reader: Receipt = None


class Wiring:
    """Adds and removes edges. A ring is reused once neither of its two processes uses it."""

    def __init__(self, state: BrokerState, segments: Segments, peer_setup: PeerSetup) -> None:
        self._state = state
        self._segments = segments
        self._peer_setup = peer_setup
        self._retiring: list[_RetiringRing] = []
        self._timer: asyncio.TimerHandle | None = None

    def announce(self, consumer: str, name: str, edge: Edge | None) -> None:
        """Send a node one more ring of an input, and the segments its messages may lie in."""
        state = self._state
        ring = state.mailboxes[consumer].rings[name]
        if edge is not None:
            self._segments.send(edge.producer, consumer)
            if edge.blocking:
                self._peer_setup.send_producer(consumer, edge.source)
        fields = {
            "id": ring.input,
            "ring": ring.plan.base,
            "source": None if edge is None or edge.daemon else edge.source,
            "origin": None if edge is None else edge.origin,
            "interval_ns": ring.interval_ns,
            "blocking": edge is not None and edge.blocking,
            **input_options(state.mailboxes[consumer], ring.input),
        }
        state.send(consumer, "input", fields)

    def connect(self, edge: Edge) -> None:
        """Add an edge: its producer pushes into the ring from now on."""
        _log.debug("edge added: %s", edge)
        self._state.edges.add(edge)
        self._peer_setup.send_consumer(edge.producer, edge.consumer)
        self._peer_setup.send_outputs(edge.producer, {edge.output})

    def disconnect(self, edge: Edge) -> None:
        """Remove an edge: its producer stops pushing; its ring stays."""
        _log.debug("edge removed: %s", edge)
        edges = self._state.edges
        edges.remove(edge)
        self._peer_setup.send_outputs(edge.producer, {edge.output})
        if edge.consumer not in {other.consumer for other in edges.pushed_by(edge.producer)}:
            self._state.send(edge.producer, "peer_gone", {"node": edge.consumer})

    def replay_last(self, edge: Edge) -> None:
        """Push the last message of a latched output into a new edge, if it is missing there.

        This applies only while the source has no process: a running source does this itself, and
        only it may push into its rings.
        """
        state = self._state
        ring = state.mailboxes[edge.consumer].rings[edge.ring]
        if not ring.latched or edge.daemon or state.connection(edge.source) is not None:
            return
        late = state.mailboxes[edge.consumer].outlet(edge.ring)
        others = list(self._siblings(edge))
        if not others:
            return
        newest = max(others, key=lambda each: (each.last_ns(), isinstance(each, LatchedOutlet)))
        stamp = newest.last_ns()
        entry = newest.newest()
        sent, _, _, size, *_ = ENTRY.unpack_from(entry)
        kept = isinstance(newest, LatchedOutlet) or not samples_of(entry)
        # Every process that maps the sibling's mailbox may have written the entry.
        if size <= MAX_SIZE and kept and late.last_ns() < sent == stamp:
            _log.debug("the last message of %s/%s is replayed", edge.source, edge.output)
            late.push(entry, size, stamp)
            fence()
            state.wake(edge.consumer)

    def _siblings(self, edge: Edge) -> Iterator[Outlet]:
        """Yield the outlets of the other edges of the same output."""
        for other in self._state.edges:
            same = (other.source, other.output) == (edge.source, edge.output)
            if same and other.key != edge.key and not other.daemon:
                yield self._state.mailboxes[other.consumer].outlet(other.ring)

    def retire_ring(
        self, consumer: str, name: str, edge: Edge | None, *, closes: bool = False
    ) -> None:
        """Remove a ring from a node after its queued messages were received.

        With `closes` its input closes. The node gets no packet before that is stored: it would not
        read the ring under a next daemon that knows nothing of its end.
        """
        state = self._state
        ring = state.mailboxes[consumer].rings[name]
        if ring.retiring:
            return
        ring.retiring = True
        state.mailboxes[consumer].unlatch(name)
        producer = None
        if edge is not None:
            self.disconnect(edge)
            state.edges.retiring.append(edge)
            producer = self._receipt(edge.producer)
        _log.debug("ring %s of node %s is retiring", name, consumer)
        retiring = _RetiringRing(consumer, name, edge, producer, closes)
        state.changed()
        state.when_stored(lambda: self._begin(retiring))

    def _begin(self, retiring: _RetiringRing) -> None:
        """Take the first step of retiring a ring."""
        state, box = self._state, self._state.mailboxes.get(retiring.consumer)
        if retiring.closes and box is not None and retiring.ring in box.rings:
            input_id = box.rings[retiring.ring].input
            if input_id not in box.inputs:  # else it has been connected again
                state.send(retiring.consumer, "closed", {"input": input_id})
        self._retiring.append(retiring)
        self._advance()

    def _receipt(self, node_id: str) -> Receipt:
        """Return the receipt of all packets sent to a node so far."""
        connection = self._state.connection(node_id)
        return None if connection is None else (connection, connection.accepted)

    def _has_read(self, node_id: str, receipt: Receipt) -> bool:
        """Return True if a process has read its packets up to a receipt, or has left."""
        if receipt is None or receipt[0].closed:
            return True
        if self._state.connection(node_id) is not receipt[0]:
            return True
        return self._state.mailboxes[node_id].seen >= receipt[1]

    def _advance(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._retiring = [each for each in self._retiring if not self._records_or_replays(each)]
        if self._retiring:
            self._timer = asyncio.get_running_loop().call_later(POLL_S, self._advance)

    def _records_or_replays(self, retiring: _RetiringRing) -> bool:
        """Take the next step of retiring a ring; return True after the last one.

        The producer stops pushing; the consumer empties the ring and then unmaps it.
        """
        state = self._state
        box = state.mailboxes.get(retiring.consumer)
        if box is None or retiring.ring not in box.rings:
            self._withdraw_segments(retiring)
            return True
        if not retiring.announced:
            ring = box.rings[retiring.ring]
            edge = retiring.edge
            if edge is not None and not self._has_read(edge.producer, retiring.producer):
                return False
            connected = state.connection(retiring.consumer) is not None
            if connected and ring.interval_ns is None and box.counters(retiring.ring).queued:
                return False
            state.send(retiring.consumer, "input_gone", {"id": ring.input, "ring": ring.plan.base})
            retiring.announced = True
            retiring.reader = self._receipt(retiring.consumer)
            self._withdraw_segments(retiring)
        if not self._has_read(retiring.consumer, retiring.reader):
            return False
        _log.debug("ring %s of node %s is free again", retiring.ring, retiring.consumer)
        box.recycle(retiring.ring)
        return True

    def _withdraw_segments(self, retiring: _RetiringRing) -> None:
        edge = retiring.edge
        if edge is None or edge not in self._state.edges.retiring:
            return
        edges = self._state.edges
        edges.retiring.remove(edge)
        if edge.consumer not in {other.consumer for other in edges.reached_by(edge.producer)}:
            self._segments.withdraw(edge.producer, edge.consumer)

    def close(self) -> None:
        """Stop retiring rings."""
        if self._timer is not None:
            self._timer.cancel()
        self._retiring.clear()

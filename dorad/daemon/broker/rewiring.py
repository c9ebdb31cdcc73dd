"""Adding and removing edges, while their nodes run."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING

from dorad.daemon.broker.nodeconfig import choices

if TYPE_CHECKING:
    from dorad.daemon.broker.connection import Connection
    from dorad.daemon.broker.edges import Edge
    from dorad.daemon.broker.peersetup import PeerSetup
    from dorad.daemon.broker.samples import Samples
    from dorad.daemon.broker.state import BrokerState

SWEEP_S = 0.05
"""Seconds between looks at rings that are being given up."""

Mark = tuple["Connection", int] | None
"""Until when somebody may not know yet: so many packets must be read from that connection."""

_log = logging.getLogger(__name__)


@dataclass(slots=True)
class _Leaving:
    consumer: str
    ring: str
    edge: Edge | None
    producer: Mark
    announced: bool = False
    reader: Mark = None


class Rewiring:
    """Wires nodes while they run. A ring is used again when nobody knows it any more."""

    def __init__(self, state: BrokerState, samples: Samples, peer_setup: PeerSetup) -> None:
        self._state = state
        self._samples = samples
        self._peer_setup = peer_setup
        self._leaving: list[_Leaving] = []
        self._timer: asyncio.TimerHandle | None = None

    def announce(self, consumer: str, name: str, edge: Edge | None) -> None:
        """Tell a node that one more ring feeds an input, and of the samples that may come."""
        state = self._state
        ring = state.boxes[consumer].rings[name]
        if edge is not None:
            self._samples.show_of(edge.producer, consumer)
            if edge.blocking:
                self._peer_setup.source(consumer, edge.source)
        fields = {
            "id": ring.input,
            "ring": ring.plan.base,
            "source": None if edge is None or edge.daemon else edge.source,
            "interval_ns": ring.interval_ns,
            "blocking": edge is not None and edge.blocking,
            **choices(state.boxes[consumer], ring.input),
        }
        state.send(consumer, "input", fields)

    def connect(self, edge: Edge) -> None:
        """Let the producer of an edge push into its ring from now on."""
        _log.debug("edge added: %s", edge)
        self._state.edges.add(edge)
        self._peer_setup.peer(edge.producer, edge.consumer)
        self._peer_setup.edges_of(edge.producer, {edge.output})

    def disconnect(self, edge: Edge) -> None:
        """Let nothing more be pushed over an edge; its ring stays."""
        _log.debug("edge removed: %s", edge)
        edges = self._state.edges
        edges.remove(edge)
        self._peer_setup.edges_of(edge.producer, {edge.output})
        if edge.consumer not in {other.consumer for other in edges.pushed_by(edge.producer)}:
            self._state.send(edge.producer, "peer_gone", {"node": edge.consumer})

    def give_up(self, consumer: str, name: str, edge: Edge | None) -> None:
        """Take a ring away from a node, once what is queued there has been taken."""
        state = self._state
        ring = state.boxes[consumer].rings[name]
        if ring.leaving:
            return
        ring.leaving = True
        state.boxes[consumer].unlatch(name)
        producer = None
        if edge is not None:
            self.disconnect(edge)
            state.edges.leaving.append(edge)
            producer = self._mark(edge.producer)
        self._leaving.append(_Leaving(consumer, name, edge, producer))
        self._advance()

    def _mark(self, node_id: str) -> Mark:
        connection = self._state.connection(node_id)
        return None if connection is None else (connection, connection.said)

    def _knows(self, node_id: str, mark: Mark) -> bool:
        """Tell whether a node has read what it was told by then, or is not there any more."""
        if mark is None or mark[0].closed or self._state.connection(node_id) is not mark[0]:
            return True
        return self._state.boxes[node_id].seen >= mark[1]

    def _advance(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._leaving = [each for each in self._leaving if not self._is_free(each)]
        if self._leaving:
            self._timer = asyncio.get_running_loop().call_later(SWEEP_S, self._advance)

    def _is_free(self, leaving: _Leaving) -> bool:
        """Take a ring one step further on its way out; True at the end of it."""
        state = self._state
        box = state.boxes.get(leaving.consumer)
        if box is None or leaving.ring not in box.rings:
            self._forget(leaving)
            return True
        if not leaving.announced:
            ring = box.rings[leaving.ring]
            if leaving.edge is not None and not self._knows(
                leaving.edge.producer, leaving.producer
            ):
                return False
            if (
                state.connection(leaving.consumer) is not None
                and ring.interval_ns is None
                and box.counters(leaving.ring).queued
            ):
                return False
            state.send(leaving.consumer, "input_gone", {"id": ring.input, "ring": ring.plan.base})
            leaving.announced = True
            leaving.reader = self._mark(leaving.consumer)
            self._forget(leaving)
        if not self._knows(leaving.consumer, leaving.reader):
            return False
        _log.debug("ring %s of node %s is free again", leaving.ring, leaving.consumer)
        box.recycle(leaving.ring)
        return True

    def _forget(self, leaving: _Leaving) -> None:
        edge = leaving.edge
        if edge is None or edge not in self._state.edges.leaving:
            return
        edges = self._state.edges
        edges.leaving.remove(edge)
        if edge.consumer not in {other.consumer for other in edges.reached_by(edge.producer)}:
            self._samples.hide_of(edge.producer, edge.consumer)

    def close(self) -> None:
        """Look after nothing any more."""
        if self._timer is not None:
            self._timer.cancel()
        self._leaving.clear()

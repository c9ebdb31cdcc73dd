"""Handing a node's mailbox from one process to another, with nothing lost or doubled."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from dorad.dataflow.model import QueuePolicy

if TYPE_CHECKING:
    from collections.abc import Callable

    from dorad.daemon.broker.connection import Connection
    from dorad.daemon.broker.peersetup import PeerSetup
    from dorad.daemon.broker.pidwatch import PidWatch
    from dorad.daemon.broker.state import BrokerState
    from dorad.daemon.broker.topology import Topology
    from dorad.dataflow.model import Dataflow, NodeSpec

SETTLE_S = 5.0
"""Seconds that a new process may take to catch up before messages displace others again."""

LOOK_S = 0.02

CALM_LOOKS = 25
"""Looks in a row that must find next to nothing queued for a new process: half a second."""

_log = logging.getLogger(__name__)


@dataclass(slots=True)
class _Handover:
    replacement: NodeSpec
    dataflow: Dataflow
    old: Connection | None
    fresh: dict[str, str] = field(default_factory=dict)
    """Rings that only the replacement has: by their inputs."""
    pending: Connection | None = None
    free: bool = False
    """Whether the old process is through with the mailbox."""
    swapped: bool = False
    unattended: bool = False
    """Whether nobody will end it: it does so by itself."""


class Handovers:
    """The nodes that are being replaced.

    The replacement says hello while the old process is still at work, and is kept waiting until
    that one is done. Producers wait for room instead of displacing what is queued, from the
    beginning until the new process has caught up.
    """

    def __init__(
        self,
        state: BrokerState,
        peer_setup: PeerSetup,
        topology: Topology,
        watch: PidWatch,
        welcome: Callable[[str, Connection], None],
        vacate: Callable[[str], None],
    ) -> None:
        """`welcome` gives a process a node's place, `vacate` lets nobody wait for the node."""
        self._state = state
        self._peer_setup = peer_setup
        self._topology = topology
        self._watch = watch
        self._welcome = welcome
        self._vacate = vacate
        self._open: dict[str, _Handover] = {}
        self._slots: dict[int, tuple[str, list[int]]] = {}
        """What old processes still borrow, by pid: the node and the hazard slots."""
        self._settling: dict[str, asyncio.TimerHandle] = {}

    def __contains__(self, node_id: str) -> bool:
        """Tell whether the old process of a node still has its place."""
        return node_id in self._open and not self._open[node_id].swapped

    def has_swapped(self, node_id: str) -> bool:
        """Tell whether a new process has its place already, but the old one may still be there."""
        return node_id in self._open and self._open[node_id].swapped

    def begin(self, node_id: str, replacement: NodeSpec, dataflow: Dataflow) -> None:
        """Expect a process that takes over from a node's present one.

        Raises:
            ValueError: one is expected already.
            OSError: there is no room for an input that only the replacement has.
        """
        state = self._state
        if node_id in self._open:
            raise ValueError(f"node {node_id!r} is being replaced already")
        box = state.boxes[node_id]
        handover = _Handover(replacement, dataflow, state.connection(node_id))
        handover.free = handover.old is None
        known = {item.id: item.source for item in box.inputs.values()}
        before, state.dataflow = state.dataflow, dataflow
        try:
            for item in replacement.all_inputs:
                if known.get(item.id) != item.source:
                    ring = self._topology.add_input(node_id, item, tell=False)
                    handover.fresh[item.id] = ring
        except OSError:
            self._drop_fresh(node_id, handover)
            raise
        finally:
            state.dataflow = before
        self._open[node_id] = handover
        _log.debug("node %s: a handover begins, new rings: %s", node_id, handover.fresh)
        self._stop_settling(node_id)
        self._block(node_id)

    def _block(self, node_id: str) -> None:
        node = self._state.boxes[node_id].node
        sheds = {item.id for item in node.all_inputs if item.queue_policy is QueuePolicy.LATEST}
        for edge in self._state.edges.received_by(node_id):
            if not edge.daemon and edge.input not in sheds and not node.chooses(edge.input):
                self._state.edges.block(edge, True)
        self._peer_setup.edges_into(node_id)

    def restore_policies(self, node_id: str) -> None:
        """Let producers do again what the queue policies of the node's inputs say."""
        box = self._state.boxes.get(node_id)
        if box is None:
            return
        for edge in self._state.edges.received_by(node_id):
            item = box.inputs.get(edge.input)
            blocking = item is not None and item.queue_policy is QueuePolicy.BACKPRESSURE
            self._state.edges.block(edge, blocking and not edge.daemon)
        self._peer_setup.edges_into(node_id)

    # -- the two processes -------------------------------------------------------------------

    def hold(self, node_id: str, connection: Connection) -> bool:
        """Keep a process waiting for its place; False if it is not the one that is expected."""
        handover = self._open.get(node_id)
        if handover is None or handover.swapped or handover.pending is not None:
            return False
        if handover.old is not None and connection.pid == handover.old.pid:
            return False
        handover.pending = connection
        self._state.keep_connection(node_id, connection)
        self._swap_if_free(node_id, handover)
        return True

    def pending(self, connection: Connection) -> str | None:
        """Return the node whose place a connection waits for."""
        for node_id, handover in self._open.items():
            if handover.pending is connection:
                return node_id
        return None

    def release_pending(self, node_id: str) -> None:
        """Take note that the process that waited is gone."""
        handover = self._open[node_id]
        handover.pending = None
        if handover.unattended:
            self.end(node_id)

    def old_is_done(self, node_id: str) -> None:
        """Take note that the old process neither sends nor receives any more."""
        _log.debug("node %s: the old process is done", node_id)
        handover = self._open[node_id]
        handover.free = True
        self._swap_if_free(node_id, handover)

    def _swap_if_free(self, node_id: str, handover: _Handover) -> None:
        if handover.free and handover.pending is not None:
            self._swap(node_id, handover, handover.pending)

    def _swap(self, node_id: str, handover: _Handover, new: Connection | None) -> None:
        state = self._state
        box = state.boxes[node_id]
        _log.debug("node %s: process %s takes over", node_id, "none" if new is None else new.pid)
        handover.swapped = True
        handover.pending = None
        old = handover.old
        state.connections.pop(node_id, None)
        if old is not None:
            old.close("another process has taken its place")
            self._slots[old.pid] = (node_id, box.hazards())
            self._watch.add(old.pid, node_id)
        node_facts = state.facts_of(node_id)
        node_facts.drop_manual_stop()
        kept = {item.id for item in handover.replacement.all_inputs}
        for input_id in box.inputs:
            fresh = handover.fresh.get(input_id)
            if fresh is not None or input_id not in kept:
                self._topology.remove_rings(node_id, input_id, but=fresh)
                node_facts.drop("closed", input_id)
                node_facts.drop("broken", input_id)
        box.node = handover.replacement
        box.inputs = {item.id: item for item in handover.replacement.all_inputs}
        state.dataflow = handover.dataflow
        if new is not None:
            self._welcome(node_id, new)
        if handover.unattended:
            self.end(node_id)

    def process_ended(self, pid: int) -> bool:
        """Take back what an old process has borrowed; False if it is none."""
        left = self._slots.pop(pid, None)
        if left is None:
            return False
        node_id, slots = left
        if node_id in self._state.boxes:
            self._state.boxes[node_id].clear_hazards(slots)
        return True

    # -- the end -----------------------------------------------------------------------------

    def end(self, node_id: str) -> bool:
        """End a handover; False if the new process has not got the place.

        If the old process is still there, it keeps its place. Nothing happens if there is no
        handover.
        """
        handover = self._open.get(node_id)
        if handover is None:
            return False
        old, pending = handover.old, handover.pending
        if not handover.swapped and (old is None or old.hung_up()):
            handover.unattended = False
            self._swap(node_id, handover, None if pending is None or pending.hung_up() else pending)
        del self._open[node_id]
        _log.debug("node %s: the handover ends, done: %s", node_id, handover.swapped)
        if handover.swapped:
            self._settle(node_id, self._received(node_id), SETTLE_S)
            return node_id in self._state.connections
        if pending is not None:
            pending.send("refused", {"error": f"node {node_id!r} is not replaced"})
            pending.close("not wanted any more")
        self._drop_fresh(node_id, handover)
        self.restore_policies(node_id)
        return False

    def _drop_fresh(self, node_id: str, handover: _Handover) -> None:
        for ring in handover.fresh.values():
            self._topology.remove_ring(node_id, ring)

    def _received(self, node_id: str) -> int:
        box = self._state.boxes[node_id]
        return sum(box.counters(name).received for name in box.rings)

    def _settle(self, node_id: str, before: int, left: float, calm: int = 0) -> None:
        """Restore the policies once the new process has caught up with what waits for it.

        Its first messages take it long, because it loads what it needs for them; so it has to be
        found with next to no queue for a while, and to have begun: it has received more than what
        was received `before`, or waits for something to receive.
        """
        self._settling.pop(node_id, None)
        box = self._state.boxes.get(node_id)
        if box is None:
            return
        there = node_id in self._state.connections
        rings = [
            name
            for name, ring in box.rings.items()
            if ring.interval_ns is None and not box.node.chooses(ring.input)
        ]
        begun = box.asleep or self._received(node_id) > before
        behind = any(box.counters(name).queued > 1 for name in rings)
        calm = calm + 1 if there and begun and not behind else 0
        if left <= 0 or calm == CALM_LOOKS:
            _log.debug("node %s: queue policies hold again, %.3g s before time", node_id, left)
            self.restore_policies(node_id)
            if not there:
                self._vacate(node_id)
            return
        self._settling[node_id] = asyncio.get_running_loop().call_later(
            LOOK_S, lambda: self._settle(node_id, before, left - LOOK_S, calm)
        )

    def _stop_settling(self, node_id: str) -> None:
        handle = self._settling.pop(node_id, None)
        if handle is not None:
            handle.cancel()

    # -- kept over a restart of the daemon ---------------------------------------------------

    def snapshot(self) -> dict[str, Any]:
        """Return what `restore` needs; JSON-able."""
        return {
            "open": {n: h.fresh for n, h in self._open.items() if not h.swapped},
            "slots": {str(pid): list(left) for pid, left in self._slots.items()},
        }

    def restore(
        self, kept: dict[str, Any], pending: dict[str, Connection], dataflow: Dataflow
    ) -> None:
        """Go on with the handovers of another daemon's time whose new process waits already."""
        for node_id, fresh in kept.get("open", {}).items():
            if node_id not in self._state.boxes:
                continue
            old = self._state.connection(node_id)
            replacement = self._state.boxes[node_id].node
            handover = _Handover(replacement, dataflow, old, fresh, unattended=True)
            handover.free = old is None
            new = pending.get(node_id)
            if new is None:
                self._drop_fresh(node_id, handover)
                continue
            self._open[node_id] = handover
            handover.pending = new
            self._block(node_id)
            self._swap_if_free(node_id, handover)
        for pid, (node_id, slots) in kept.get("slots", {}).items():
            self._slots[int(pid)] = (node_id, slots)
            self._watch.add(int(pid), node_id)

    def close(self) -> None:
        """Forget everything."""
        for handle in self._settling.values():
            handle.cancel()
        self._settling.clear()
        for handover in list(self._open.values()):
            if handover.pending is not None:
                handover.pending.close("the dataflow has ended")
        self._open.clear()

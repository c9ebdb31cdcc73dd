"""Handover: passing a node's mailbox to a replacement, without lost or duplicated messages."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from msgspec import Struct, field

from dorad.daemon.broker.snapshot import HandoverSnapshot
from dorad.dataflow.model import Dataflow, NodeSpec, QueuePolicy

if TYPE_CHECKING:
    from dorad.daemon.broker.connection import Connection
    from dorad.daemon.broker.sessions import Sessions
    from dorad.daemon.broker.state import BrokerState
    from dorad.daemon.broker.topology import Topology
    from dorad.daemon.broker.wiring import PeerSetup
    from dorad.daemon.pidwatch import PidWatch

SETTLE_S = 5.0
"""Seconds that a new process has to catch up before the queue policies apply again."""

POLL_S = 0.02
"""Seconds between checks whether a new process has caught up."""

CALM_POLLS = 25
"""Checks in a row that must find almost nothing queued for a new process: half a second."""

_log = logging.getLogger(__name__)


class _Handover(Struct):
    replacement: NodeSpec
    dataflow: Dataflow
    old: Connection | None
    new_rings: dict[str, str] = field(default_factory=dict)
    """By input: rings that only the replacement has."""
    pending: Connection | None = None
    """The replacement, once it has said hello."""
    old_done: bool = False
    """Whether the old process has finished with the mailbox."""
    swapped: bool = False
    adopted: bool = False
    """Whether a previous daemon began it. Then nothing calls `end`: it ends with the swap."""


class Handovers:
    """The nodes that are being replaced.

    The replacement says hello while the old process still works, and waits until the old one has
    finished. Until the new process has caught up, producers wait for room instead of displacing
    queued messages.
    """

    def __init__(
        self,
        state: BrokerState,
        peer_setup: PeerSetup,
        topology: Topology,
        watch: PidWatch,
        sessions: Sessions,
    ) -> None:
        self._state = state
        self._peer_setup = peer_setup
        self._topology = topology
        self._watch = watch
        self._sessions = sessions
        self._open: dict[str, _Handover] = {}
        self._slots: dict[int, tuple[str, list[int]]] = {}
        """By pid of an old process: the node, and the hazard slots that the process still holds."""
        self._settling: dict[str, asyncio.TimerHandle] = {}

    def __contains__(self, node_id: str) -> bool:
        """Return True while a replacement is expected and the old process has its place."""
        return node_id in self._open and not self._open[node_id].swapped

    def has_swapped(self, node_id: str) -> bool:
        """Return True while the new process has the place and the old one may still run."""
        return node_id in self._open and self._open[node_id].swapped

    def begin(self, node_id: str, replacement: NodeSpec, dataflow: Dataflow) -> None:
        """Begin a handover: expect a second process that says hello as this node.

        Raises:
            ValueError: the node is being replaced already.
            OSError: there is no room for an input that only the replacement has.
        """
        state = self._state
        if node_id in self._open:
            raise ValueError(f"node {node_id!r} is being replaced already")
        box = state.mailboxes[node_id]
        handover = _Handover(replacement, dataflow, state.connection(node_id))
        handover.old_done = handover.old is None
        known = {item.id: item.source for item in box.inputs.values()}
        # Edges of new inputs are looked up in the new description.
        before, state.dataflow = state.dataflow, dataflow
        try:
            for item in replacement.all_inputs:
                if known.get(item.id) != item.source:
                    ring = self._topology.add_ring(node_id, item, announce=False)
                    handover.new_rings[item.id] = ring
        except OSError:
            self._drop_new_rings(node_id, handover)
            raise
        finally:
            state.dataflow = before
        self._open[node_id] = handover
        _log.debug("node %s: a handover begins, new rings: %s", node_id, handover.new_rings)
        self._stop_settling(node_id)
        self._block(node_id)
        state.changed()

    def _block(self, node_id: str) -> None:
        """Let producers wait for room, except where the input keeps only the newest messages."""
        node = self._state.mailboxes[node_id].node
        latest = {item.id for item in node.all_inputs if item.queue_policy is QueuePolicy.LATEST}
        for edge in self._state.edges.received_by(node_id):
            if not edge.daemon and edge.input not in latest and not node.may_skip(edge.input):
                self._state.edges.set_blocking(edge, True)
        self._peer_setup.send_edges_into(node_id)

    def restore_policies(self, node_id: str) -> None:
        """Apply the queue policies of the node's inputs to its producers again."""
        box = self._state.mailboxes.get(node_id)
        if box is None:
            return
        for edge in self._state.edges.received_by(node_id):
            item = box.inputs.get(edge.input)
            blocking = item is not None and item.queue_policy is QueuePolicy.BACKPRESSURE
            self._state.edges.set_blocking(edge, blocking and not edge.daemon)
        self._peer_setup.send_edges_into(node_id)

    def hold(self, node_id: str, connection: Connection) -> bool:
        """Keep the replacement waiting for its place; return False for any other process."""
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
        """Return the node whose place a connection waits for; None if it waits for none."""
        for node_id, handover in self._open.items():
            if handover.pending is connection:
                return node_id
        return None

    def waiting(self) -> list[Connection]:
        """Return the connections that wait for the place of another process."""
        return [each.pending for each in self._open.values() if each.pending is not None]

    def release_pending(self, node_id: str) -> None:
        """Handle the end of the waiting replacement's connection."""
        handover = self._open[node_id]
        handover.pending = None
        if handover.adopted:
            self.end(node_id)

    def old_is_done(self, node_id: str) -> None:
        """Handle that the old process has finished sending and receiving."""
        _log.debug("node %s: the old process is done", node_id)
        handover = self._open[node_id]
        handover.old_done = True
        self._swap_if_free(node_id, handover)

    def _swap_if_free(self, node_id: str, handover: _Handover) -> None:
        if handover.old_done and handover.pending is not None:
            self._swap(node_id, handover, handover.pending)

    def _swap(self, node_id: str, handover: _Handover, new: Connection | None) -> None:
        state = self._state
        box = state.mailboxes[node_id]
        _log.debug("node %s: process %s takes over", node_id, "none" if new is None else new.pid)
        handover.swapped = True
        handover.pending = None
        old = handover.old
        state.connections.pop(node_id, None)
        # Before the old connection is dropped: the next daemon must see that the other process has
        # no welcome yet.
        box.vacate()
        if old is not None:
            old.close("another process has taken its place")
            self._slots[old.pid] = (node_id, box.hazards())
            self._watch.add(old.pid, node_id)
        conditions = state.conditions_of(node_id)
        conditions.drop_manual_stop()
        kept = {item.id for item in handover.replacement.all_inputs}
        for input_id in box.inputs:
            new_ring = handover.new_rings.get(input_id)
            if new_ring is not None or input_id not in kept:
                self._topology.remove_rings(node_id, input_id, but=new_ring)
                conditions.drop("closed", input_id)
                conditions.drop("broken", input_id)
        box.node = handover.replacement
        box.inputs = {item.id: item for item in handover.replacement.all_inputs}
        state.dataflow = handover.dataflow
        if new is not None:
            self._sessions.welcome(node_id, new)
        if handover.adopted:
            self.end(node_id)

    def process_ended(self, pid: int) -> bool:
        """Release the borrows of an old process; return False for any other process."""
        held = self._slots.pop(pid, None)
        if held is None:
            return False
        node_id, slots = held
        if node_id in self._state.mailboxes:
            self._state.mailboxes[node_id].clear_hazards(slots)
        return True

    def end(self, node_id: str) -> bool:
        """End a handover; return False if the new process did not get the place.

        An old process that still runs keeps its place. Without a handover nothing happens.
        """
        done = self._end(node_id)
        self._state.changed()
        return done

    def _end(self, node_id: str) -> bool:
        handover = self._open.get(node_id)
        if handover is None:
            return False
        old, pending = handover.old, handover.pending
        if not handover.swapped and (old is None or old.hung_up()):
            handover.adopted = False
            self._swap(node_id, handover, None if pending is None or pending.hung_up() else pending)
        del self._open[node_id]
        _log.debug("node %s: the handover ends, done: %s", node_id, handover.swapped)
        if handover.swapped:
            self._settle(node_id, self._received(node_id), SETTLE_S)
            return node_id in self._state.connections
        if pending is not None:
            pending.send("refused", {"error": f"node {node_id!r} is no longer being replaced"})
            pending.close("the handover was cancelled")
        self._drop_new_rings(node_id, handover)
        self.restore_policies(node_id)
        return False

    def _drop_new_rings(self, node_id: str, handover: _Handover) -> None:
        for ring in handover.new_rings.values():
            self._topology.remove_ring(node_id, ring)

    def _received(self, node_id: str) -> int:
        box = self._state.mailboxes[node_id]
        return sum(box.counters(name).received for name in box.rings)

    def _settle(self, node_id: str, before: int, left: float, calm: int = 0) -> None:
        """Restore the queue policies once the new process has caught up, or `left` seconds passed.

        A process is slow with its first messages, because it imports modules for them. So two
        things must hold: it has begun (it received more than `before`, or sleeps), and its queues
        were almost empty for `CALM_POLLS` checks in a row.
        """
        self._settling.pop(node_id, None)
        box = self._state.mailboxes.get(node_id)
        if box is None:
            return
        connected = node_id in self._state.connections
        rings = [
            name
            for name, ring in box.rings.items()
            if ring.interval_ns is None and not box.node.may_skip(ring.input)
        ]
        begun = box.asleep or self._received(node_id) > before
        behind = any(box.counters(name).queued > 1 for name in rings)
        calm = calm + 1 if connected and begun and not behind else 0
        if left <= 0 or calm == CALM_POLLS:
            _log.debug("node %s: queue policies apply again, %.3g s before time", node_id, left)
            self.restore_policies(node_id)
            if not connected:
                self._sessions.release_senders(node_id)
            return
        self._settling[node_id] = asyncio.get_running_loop().call_later(
            POLL_S, lambda: self._settle(node_id, before, left - POLL_S, calm)
        )

    def _stop_settling(self, node_id: str) -> None:
        handle = self._settling.pop(node_id, None)
        if handle is not None:
            handle.cancel()

    def snapshot(self) -> HandoverSnapshot:
        """Return what `restore` needs."""
        return HandoverSnapshot(
            open={n: dict(h.new_rings) for n, h in self._open.items() if not h.swapped},
            slots=dict(self._slots),
        )

    def restore(
        self, kept: HandoverSnapshot, pending: dict[str, Connection], dataflow: Dataflow
    ) -> None:
        """Adopt the handovers of a previous daemon whose replacement waits already."""
        for node_id, new_rings in kept.open.items():
            if node_id not in self._state.mailboxes:
                continue
            old = self._state.connection(node_id)
            replacement = self._state.mailboxes[node_id].node
            handover = _Handover(replacement, dataflow, old, new_rings, adopted=True)
            handover.old_done = old is None
            new = pending.get(node_id)
            if new is None:
                _log.debug("node %s: the handover is given up, no replacement waits", node_id)
                self._drop_new_rings(node_id, handover)
                continue
            self._open[node_id] = handover
            handover.pending = new
            self._block(node_id)
            self._swap_if_free(node_id, handover)
        for pid, (node_id, slots) in kept.slots.items():
            self._slots[pid] = (node_id, slots)
            self._watch.add(pid, node_id)

    def close(self) -> None:
        """Refuse waiting replacements and end all handovers."""
        for handle in self._settling.values():
            handle.cancel()
        self._settling.clear()
        for handover in list(self._open.values()):
            if handover.pending is not None:
                handover.pending.close("the dataflow has ended")
        self._open.clear()

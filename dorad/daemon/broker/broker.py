"""The broker: creates the mailboxes of a dataflow and connects its nodes.

It never touches a message: once two nodes have each other's descriptors, messages pass between
them directly.
"""

import json
import logging
import os
import struct
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from dorad.daemon.broker import restore
from dorad.daemon.broker.admission import Admission, OwnUser
from dorad.daemon.broker.edges import Edge, EdgeKey, EdgeTable, is_observer
from dorad.daemon.broker.hopreader import HopReader
from dorad.daemon.broker.listener import Listener
from dorad.daemon.broker.notifications import Notifications, Params
from dorad.daemon.broker.observers import Observers
from dorad.daemon.broker.restore import Kept, RestoreError
from dorad.daemon.broker.rings import Ring
from dorad.daemon.broker.segments import Segments
from dorad.daemon.broker.sessions import BrokerListener, Sessions
from dorad.daemon.broker.snapshot import BrokerSnapshot
from dorad.daemon.broker.state import BrokerState
from dorad.daemon.broker.stats import Stats
from dorad.daemon.broker.stepper import Stepper
from dorad.daemon.broker.topology import Topology
from dorad.daemon.broker.wiring import PeerSetup, Wiring
from dorad.daemon.storing import Changes
from dorad.dataflow.model import LINK, Dataflow
from dorad.launch.host import FdStore, NoStore
from dorad.node.clock import Clock
from dorad.shm import create
from dorad.shm.fence import fence
from dorad.shm.layout import CODE_UINT8, ENTRY, INLINE
from dorad.shm.outlet import Outlet
from dorad.shm.pool import Pool, Sample

TEXT_CODE = 100
"""The type code of an Arrow array of utf8 in `dorad.shm.arrow`, which needs pyarrow."""

_OFFSETS = struct.Struct("=ii")


def encode_text(text: str) -> bytes:
    """Return an Arrow array of one utf8 text in its shared memory form: offsets, then bytes."""
    data = text.encode(errors="replace")
    return _OFFSETS.pack(0, len(data)) + data


class Emitter:
    """Pushes texts and bytes into rings whose producer is the daemon. It never waits for room."""

    def __init__(self, state: BrokerState, segments: Segments) -> None:
        self._state = state
        self._clock = Clock()
        self._pool = Pool(segments.grow_own, segments.retire_own)
        self._outlets: dict[EdgeKey, tuple[Ring, Outlet]] = {}

    def emit(self, node_id: str, input_id: str, text: str) -> None:
        """Send one text to an input that the daemon feeds; it arrives as an array of utf8.

        Raises:
            OSError: /dev/shm is full.
        """
        self._push(self._fed(node_id, input_id), TEXT_CODE, 1, encode_text(text))

    def emit_bytes(self, node_id: str, input_id: str, data: bytes) -> None:
        """Send bytes to an input that the daemon feeds; they arrive as an array of uint8.

        Raises:
            OSError: /dev/shm is full.
        """
        self._push(self._fed(node_id, input_id), CODE_UINT8, len(data), data)

    def _fed(self, node_id: str, input_id: str) -> list[Edge]:
        return [edge for edge in self._state.edges.into(node_id, input_id) if edge.daemon]

    def emit_output(self, node_id: str, output: str, text: str) -> None:
        """Send one text to all receivers of an output of printed or logged lines.

        Raises:
            OSError: /dev/shm is full.
        """
        self._push(self._state.edges.printed(node_id, output), TEXT_CODE, 1, encode_text(text))

    def has_receivers(self, node_id: str, output: str) -> bool:
        """Return True if an output that carries printed or logged lines has a receiver."""
        return bool(self._state.edges.printed(node_id, output))

    def _push(self, edges: Sequence[Edge], code: int, length: int, payload: bytes) -> None:
        edges = [edge for edge in edges if edge.consumer not in self._state.exited]
        if not edges:
            return
        outlets = [self._outlet(edge) for edge in edges]
        size = len(payload)
        stamp = self._clock.now()
        sample: Sample | None = None
        at = home = 0
        tail = payload
        if size > INLINE:
            sample = self._pool.take(size)
            sample.write(0, payload)
            at, home, tail = sample.offset, sample.segment.number, b""
        entry = ENTRY.pack(stamp, length, 0, size, at, 0, home, 0, 0, code, 0, 0) + tail
        marks = [(outlet, outlet.push(entry, size, stamp)) for outlet in outlets]
        if sample is not None:
            self._pool.sent(sample, marks)
            self._pool.trim(time.monotonic_ns())
        fence()
        for edge in edges:
            self._state.wake(edge.consumer)

    def _outlet(self, edge: Edge) -> Outlet:
        box = self._state.mailboxes[edge.consumer]
        ring = box.rings[edge.ring]
        known = self._outlets.get(edge.key)
        if known is None or known[0] is not ring:
            known = self._outlets[edge.key] = (ring, box.outlet(edge.ring))
        return known[1]

    def close(self) -> None:
        """Unmap all memory now, and not whenever the garbage collector comes by."""
        self._outlets.clear()
        self._pool.close()

    def forget(self, consumer: str) -> None:
        """Stop waiting for a consumer that no longer receives."""
        for key in [key for key in self._outlets if key.node == consumer]:
            self._outlets.pop(key)[1].closed = True


HELLO_DEADLINE_S = 5.0
"""Seconds within which a new connection must say hello."""

_log = logging.getLogger(__name__)


class Broker:
    """The mailboxes and connections of one dataflow. Belongs to one event loop.

    `topology` changes the dataflow, `handovers` replaces processes, `observers` adds temporary
    participants, `notifications` and `params` send to nodes, `emitter` sends printed and logged
    lines to inputs, `stats` reads counters.
    """

    def __init__(
        self,
        dataflow: Dataflow,
        dataflow_id: str,
        socket_path: Path,
        listener: BrokerListener,
        *,
        store: FdStore | None = None,
        changes: Changes | None = None,
        params: Mapping[str, dict[str, Any]] | None = None,
        admission: Admission | None = None,
        hello_deadline: float = HELLO_DEADLINE_S,
        stepped: bool = False,
    ) -> None:
        """Prepare a broker; `open` creates everything.

        `store` keeps descriptors for the next daemon, and `changes` learns when the result of
        `snapshot` changes. Nodes start with `params`. `admission` decides which process may be
        which node; without it, any process of the daemon's user may be any node. With `stepped`
        nodes run only when `stepper` lets them.
        """
        self._path = socket_path
        self._state = state = BrokerState(
            dataflow,
            dataflow_id,
            store or NoStore(),
            changes or Changes(),
            params or {},
            stepped=stepped,
        )
        self.stepper = Stepper(state) if stepped else None
        self._segments = segments = Segments(state)
        self._peer_setup = peer_setup = PeerSetup(state, segments)
        self._wiring = wiring = Wiring(state, segments, peer_setup)
        self.emitter = Emitter(state, segments)
        self.topology = Topology(state, segments, peer_setup, wiring, self._forget)
        users = OwnUser() if admission is None else admission
        self._sessions = sessions = Sessions(
            state, listener, segments, peer_setup, self.topology, users
        )
        self._listener = Listener(socket_path, hello_deadline, sessions, users)
        self.handovers = sessions.handovers
        self.leases = sessions.leases
        self.notifications = Notifications(state, self.handovers.has_swapped)
        self.observers = Observers(state, segments, wiring, self._listener, self._forget)
        self.params = Params(state)
        self.stats = Stats(state)
        self.hops = HopReader(state)

    @property
    def dataflow_id(self) -> str:
        """The UUID of the run."""
        return self._state.dataflow_id

    def node_config(self, node_id: str) -> str:
        """Return the text of DORA_NODE_CONFIG for a node."""
        return json.dumps(
            {
                "node_id": node_id,
                "dataflow_id": self._state.dataflow_id,
                "daemon_socket": os.fspath(self._path),
            }
        )

    def set_link(self, config: dict[str, Any] | None) -> None:
        """Set the configuration of the link process, and send it to the present one."""
        state = self._state
        if state.link != config:
            state.link = config
            if config is not None:
                state.send(LINK, "link", config)

    async def open(self, kept: Kept | None = None) -> None:
        """Create all mailboxes and listen, or adopt those of a previous daemon.

        Raises:
            OSError: there is no memory left, or the socket cannot be created.
            RestoreError: the state of the previous daemon cannot be used.
        """
        state = self._state
        _log.debug("the broker of %s opens, adopts: %s", state.dataflow_id, kept is not None)
        create.unlink_stale()
        try:
            if kept is None:
                self.topology.build()
                state.store.store(state.name("listener"), (self._listener.open(),))
            else:
                try:
                    self._adopt(kept)
                except (LookupError, TypeError, ValueError) as error:
                    raise RestoreError(f"its snapshot is invalid: {error}") from error
        except BaseException:
            await self.close()
            raise

    def _adopt(self, kept: Kept) -> None:
        state = self._state
        snapshot = msgspec.convert(kept.snapshot, BrokerSnapshot, str_keys=True)
        state.epoch_ns = snapshot.epoch_ns
        state.abort_reason = snapshot.abort_reason
        state.refused.update(snapshot.refused)
        unknown = restore.restore_mailboxes(state, kept, snapshot)
        lost = restore.lost_rings(state, snapshot)
        pending = restore.restore_connections(state, self._listener, kept, snapshot)
        restore.drop_old_stops(state, snapshot)
        self.leases.restore(snapshot.leases)
        restore.restore_segments(state, self._segments, kept, snapshot)
        for node_id, connection in list(state.connections.items()):
            if connection.discard_requests(restore.REQUESTS):
                self._sessions.adopt(node_id)
        for edge in unknown:
            self._wiring.announce(edge.consumer, edge.ring, edge)
        for node_id, input_id, ring in lost:
            if input_id not in state.mailboxes[node_id].inputs:
                state.send(node_id, "closed", {"input": input_id})
            state.send(node_id, "input_gone", {"id": input_id, "ring": ring})
        self._segments.drop_observers(list(state.connections))
        self.handovers.restore(snapshot.handovers, pending, state.dataflow)
        for connection in pending.values():
            if self.handovers.pending(connection) is None and state.node_of(connection) is None:
                connection.close("its place is taken")
        for node_id in state.mailboxes:
            if node_id not in state.connections and node_id not in self.handovers:
                self._sessions.release_senders(node_id)
        listener = restore.restore_listener(state, kept)
        state.store.store(state.name("listener"), (self._listener.open(listener),))

    async def close(self) -> None:
        """Close every connection and descriptor, and remove the socket."""
        _log.debug("the broker of dataflow %s closes", self.dataflow_id)
        state = self._state
        state.store.drop(state.name("listener"))
        for node_id in state.mailboxes:
            state.store.drop(state.name("box", node_id))
        self._listener.close()
        self._wiring.close()
        self._sessions.close()
        self.emitter.close()
        for box in state.mailboxes.values():
            box.close()
        state.edges = EdgeTable()
        state.mailboxes.clear()
        await self._segments.close()

    def snapshot(self) -> BrokerSnapshot:
        """Return the state that the next daemon needs besides the descriptors."""
        state = self._state
        boxes = {n: box.snapshot() for n, box in state.mailboxes.items() if not is_observer(n)}
        connections = {n: c for n, c in state.connections.items() if not is_observer(n)}
        return BrokerSnapshot(
            epoch_ns=state.epoch_ns,
            abort_reason=state.abort_reason,
            refused=sorted(state.refused),
            exited=sorted(state.exited),
            ended_operators=sorted(state.ended_operators),
            conditions={
                node_id: [*conditions]
                for node_id, conditions in state.conditions.items()
                if conditions and not is_observer(node_id)
            },
            restarts=dict(state.restarts),
            params={node_id: dict(params) for node_id, params in state.params.items()},
            boxes=boxes,
            edges=[
                edge
                for edge in state.edges
                if not (is_observer(edge.source) or is_observer(edge.consumer))
            ],
            attached={n: c.pid for n, c in connections.items()},
            versions={c.pid: c.version for c in (*connections.values(), *self.handovers.waiting())},
            next_segment=self._segments.next_number,
            orphans=self._segments.snapshot(),
            handovers=self.handovers.snapshot(),
            leases=self.leases.snapshot(),
        )

    def start_finished(self, node_id: str) -> None:
        """Decide on processes that said hello while a process of the node was being started."""
        self._sessions.on_started(node_id)

    def detach(self, node_id: str) -> None:
        """Mark a node's process as permanently ended: no producer waits for it from now on."""
        _log.debug("node %s has exited permanently", node_id)
        state = self._state
        self.handovers.end(node_id)
        state.exited.add(node_id)
        self._sessions.reclaim(node_id)
        state.mailboxes[node_id].close_rings()
        self.emitter.forget(node_id)
        self._peer_setup.send_edges_into(node_id)
        state.changed()

    def has_refused(self, node_id: str) -> bool:
        """Return True if a node's `Node()` raises because the start was aborted."""
        return node_id in self._state.refused

    def restarting(self, node_id: str, restart_count: int) -> None:
        """Set the restart count that the node's next process gets."""
        _log.debug("node %s: the next process is restart %d", node_id, restart_count)
        self._state.restarts[node_id] = restart_count
        self._state.changed()

    def released(self, node_id: str) -> None:
        """Mark a node's process as exited; another one will take its place.

        Queued messages stay, and newer ones displace them: no producer waits for a node without a
        process. A pending stop of the old process does not reach the new one.
        """
        _log.debug("node %s has exited and waits for its next process", node_id)
        self._sessions.reclaim(node_id)
        self._state.conditions_of(node_id).drop_manual_stop()
        self._state.changed()

    def reopen(self, node_id: str) -> None:
        """Let a node that was stopped, or has exited permanently, have processes again."""
        _log.debug("node %s may have processes again", node_id)
        state = self._state
        state.conditions_of(node_id).drop("stop")
        if node_id in state.exited:
            state.exited.remove(node_id)
            state.mailboxes[node_id].discard_queued()
            state.mailboxes[node_id].detach()
            self._peer_setup.send_edges_into(node_id)
            for edge in state.edges.received_by(node_id):
                self._wiring.replay_last(edge)
        state.changed()

    def _forget(self, node_id: str) -> None:
        """Release the resources of a node or observer that is about to be removed."""
        self._sessions.forget(node_id)
        self.emitter.forget(node_id)

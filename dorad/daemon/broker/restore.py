"""Restoring a dataflow from a previous daemon's descriptors and snapshot."""

import logging
import socket
from collections import Counter
from typing import Any

from msgspec import Struct, field

from dorad.daemon.broker.connection import Connection
from dorad.daemon.broker.edges import Edge, edge_of
from dorad.daemon.broker.listener import Listener
from dorad.daemon.broker.mailbox import Mailbox
from dorad.daemon.broker.segments import Segment, Segments
from dorad.daemon.broker.snapshot import BrokerSnapshot
from dorad.daemon.broker.state import BrokerState, Conditions
from dorad.node.protocol import OLDEST, close_all
from dorad.shm import check

REQUESTS = frozenset({"grow", "ext_store", "ext_load", "ext_drop", "ext_drain", "busy"})
"""Packets that a node repeats to a new daemon if it has no answer yet."""

_log = logging.getLogger(__name__)


class RestoreError(Exception):
    """The state that a previous daemon left of a dataflow cannot be used."""


class Kept(Struct):
    """The previous daemon's descriptors by name, and its `Broker.snapshot` as JSON values.

    Adopting a descriptor removes it from `descriptors`. The caller keeps the rest, even after a
    failure.
    """

    descriptors: dict[str, tuple[int, ...]]
    snapshot: dict[str, Any] = field(default_factory=dict)

    def below(self, prefix: str) -> dict[str, tuple[int, ...]]:
        """Return the descriptors whose names start with `prefix`, without the prefix."""
        size = len(prefix)
        return {n[size:]: fds for n, fds in self.descriptors.items() if n.startswith(prefix)}

    def attached(self) -> set[int]:
        """Return the pids of the processes that had their nodes' places and are connected."""
        connected = {name.rpartition("/")[2] for name in self.descriptors if "/conn/" in name}
        return {pid for pid in self.snapshot.get("attached", {}).values() if str(pid) in connected}


def restore_mailboxes(state: BrokerState, kept: Kept, snapshot: BrokerSnapshot) -> list[Edge]:
    """Adopt mailboxes, edges and conditions; create those that the snapshot does not contain.

    Returns the edges whose rings were created, for the caller to announce them.

    Raises:
        RestoreError: a kept descriptor is not the expected mailbox.
        OSError: there is no room for a mailbox that was not kept.
    """
    boxes = snapshot.boxes
    kept_boxes = kept.below(state.name("box") + "/")
    for node in state.dataflow.nodes:
        descriptors = kept_boxes.pop(node.id, ())
        kept_box = node.id in boxes and len(descriptors) == 3
        _log.debug("mailbox of node %s: %s", node.id, "adopted" if kept_box else "created")
        if kept_box:
            try:
                state.mailboxes[node.id] = Mailbox.adopt(node, descriptors, boxes[node.id])
            except (ValueError, OSError) as error:
                raise RestoreError(f"node {node.id!r}: {error}") from error
            del kept.descriptors[state.name("box", node.id)]
        else:
            close_all(kept.descriptors.pop(state.name("box", node.id), ()))
            state.mailboxes[node.id] = Mailbox(node)
            state.keep_mailbox(node.id)
    for node_id in kept_boxes:
        close_all(kept.descriptors.pop(state.name("box", node_id)))
        state.store.drop(state.name("box", node_id))
    state.exited = set(snapshot.exited) & set(state.mailboxes)
    state.ended_operators = set(snapshot.ended_operators)
    state.restarts = snapshot.restarts
    state.params = snapshot.params
    for node_id, conditions in snapshot.conditions.items():
        state.conditions[node_id] = Conditions(conditions)
    for values in snapshot.edges:
        edge = Edge(*values)
        box = state.mailboxes.get(edge.consumer)
        if box is not None and edge.ring in box.rings:
            state.edges.add(edge)
    return _add_missing_rings(state)


def _add_missing_rings(state: BrokerState) -> list[Edge]:
    """Create the rings and edges that are newer than the snapshot; return the edges."""
    added = []
    for node in state.dataflow.nodes:
        box = state.mailboxes[node.id]
        for item in node.all_inputs:
            if any(ring.input == item.id for ring in box.rings.values()):
                continue
            box.add_ring(item.id, item)
            edge = edge_of(state.dataflow, node.id, item, item.id)
            if edge is not None:
                state.edges.add(edge)
                added.append(edge)
    return added


def lost_rings(state: BrokerState, snapshot: BrokerSnapshot) -> list[tuple[str, str, int]]:
    """Remove rings of observers and retiring rings from the mailboxes.

    Returns them as (node, input, offset), for the caller to notify their nodes.
    """
    lost = [
        (node_id, input_id, base)
        for node_id, kept_box in snapshot.boxes.items()
        for input_id, base in kept_box.retiring
        if node_id in state.mailboxes
    ]
    for node_id, box in state.mailboxes.items():
        for name in [name for name in box.rings if "@." in name]:
            ring = box.rings.pop(name)
            lost.append((node_id, ring.input, ring.plan.base))
    return lost


def restore_segments(
    state: BrokerState, segments: Segments, kept: Kept, snapshot: BrokerSnapshot
) -> None:
    """Adopt the segments that samples lie in.

    Raises:
        RestoreError: a kept descriptor is not a segment of the expected size.
    """
    adopted = []
    prefix = state.name("segment") + "/"
    for name, (memory, *_) in kept.below(prefix).items():
        number, owner, pid, size = name.split("/")
        try:
            check.check_segment(memory, int(size))
        except (ValueError, OSError) as error:
            raise RestoreError(f"node {owner!r}: {error}") from error
        adopted.append(Segment(int(number), owner, int(pid), memory, int(size)))
        del kept.descriptors[prefix + name]
    _log.debug("%d segments are adopted", len(adopted))
    segments.restore(adopted, snapshot.next_segment, snapshot.orphans)


def restore_connections(
    state: BrokerState, listener: Listener, kept: Kept, snapshot: BrokerSnapshot
) -> dict[str, Connection]:
    """Adopt the connections; return those that wait for the place of another process, by node.

    Raises:
        RestoreError: a kept descriptor is not a connection.
    """
    pending: dict[str, Connection] = {}
    sockets = kept.below(state.name("conn") + "/")
    processes = Counter(name.split("/")[0] for name in sockets)
    # If a node has two processes, the one that had the place comes first.
    for name in sorted(sockets, key=lambda name: not _had_place(name, snapshot.attached)):
        node_id = name.split("/")[0]
        box = state.mailboxes.get(node_id)
        # A daemon killed between sending a packet and counting it has counted one too few.
        sent = 0 if box is None else max(box.mail, box.seen)
        if box is None or (sent == 0 and processes[node_id] == 1):
            # Either the node was removed, or its process has no welcome yet and says hello again.
            close_all(kept.descriptors.pop(state.name("conn", name)))
            state.store.drop(state.name("conn", name))
            continue
        sock = _socket(sockets[name][0], f"node {node_id!r}: its connection")
        del kept.descriptors[state.name("conn", name)]
        connection = listener.adopt(sock, sent)
        connection.kept_as = state.name("conn", name)
        # Without a version: adopted from a daemon that stored none.
        connection.version = snapshot.versions.get(connection.pid, OLDEST)
        _log.debug("connection of node %s to process %d is adopted", node_id, connection.pid)
        if node_id in state.connections:
            connection.sent = 0
            pending[node_id] = connection
        else:
            state.connections[node_id] = connection
            connection.count_in(box)
    return pending


def drop_old_stops(state: BrokerState, snapshot: BrokerSnapshot) -> None:
    """Drop the manual stops of processes that have lost their nodes' places to others."""
    for node_id, pid in snapshot.attached.items():
        connection = state.connections.get(node_id)
        if connection is None or connection.pid != pid:
            state.conditions_of(node_id).drop_manual_stop()


def restore_listener(state: BrokerState, kept: Kept) -> int | None:
    """Adopt the socket that nodes connect to; return None if none was kept.

    Raises:
        RestoreError: the kept descriptor is not a socket.
    """
    name = state.name("listener")
    if name not in kept.descriptors:
        return None
    sock = _socket(kept.descriptors[name][0], "the socket for its nodes")
    del kept.descriptors[name]
    return sock.detach()


def _socket(descriptor: int, what: str) -> socket.socket:
    """Return a descriptor as a Unix packet socket; any other descriptor stays untouched."""
    try:
        sock = socket.socket(fileno=descriptor)
    except OSError as error:
        raise RestoreError(f"{what} is not a socket") from error
    if (sock.family, sock.type) != (socket.AF_UNIX, socket.SOCK_SEQPACKET):
        sock.detach()
        raise RestoreError(f"{what} is not a Unix packet socket")
    return sock


def _had_place(name: str, attached: dict[str, int]) -> bool:
    node_id, pid = name.split("/")
    return attached.get(node_id) == int(pid)

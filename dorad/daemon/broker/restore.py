"""What a daemon that was killed has left of a dataflow, and taking it over."""

from __future__ import annotations

import contextlib
import logging
import os
import socket
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from dorad.daemon.broker.edges import Edge, edge_of
from dorad.daemon.broker.mailbox import Mailbox
from dorad.daemon.broker.nodefacts import NodeFacts
from dorad.daemon.broker.segments import Segment
from dorad.shm import check

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dorad.daemon.broker.connection import Connection
    from dorad.daemon.broker.listener import Listener
    from dorad.daemon.broker.samples import Samples
    from dorad.daemon.broker.state import BrokerState

QUESTIONS = frozenset({"grow", "ext_store", "ext_load", "ext_drop", "ext_drain"})
"""Packets that a node sends again to a new daemon, if it still waits for the answer."""

_log = logging.getLogger(__name__)


class RestoreError(Exception):
    """What was kept of a dataflow cannot be used; the text says what is wrong."""


@dataclass(slots=True)
class Kept:
    """What was kept of a dataflow: descriptors by name, and what `Broker.snapshot` returned.

    Whoever takes over what is kept under a name takes it out of `descriptors`. What is left there
    belongs to whoever made this, also after a failure.
    """

    descriptors: dict[str, tuple[int, ...]]
    snapshot: dict[str, Any] = field(default_factory=dict)

    def below(self, prefix: str) -> dict[str, tuple[int, ...]]:
        """Return what is kept under names that start so, which is left out of them."""
        size = len(prefix)
        return {n[size:]: fds for n, fds in self.descriptors.items() if n.startswith(prefix)}


def restore_boxes(state: BrokerState, kept: Kept) -> list[Edge]:
    """Take over mailboxes, edges and facts; what the snapshot does not know of is made anew.

    Returns the edges whose rings were made now, so that their consumers can be told of them.

    Raises:
        RestoreError: what was kept is no mailbox.
        OSError: there is no room for a mailbox that was not kept.
    """
    snapshot = kept.snapshot
    boxes = snapshot.get("boxes", {})
    found = kept.below(state.name("box") + "/")
    for node in state.dataflow.nodes:
        descriptors = found.pop(node.id, ())
        kept_box = node.id in boxes and len(descriptors) == 3
        _log.debug("mailbox of node %s: %s", node.id, "kept" if kept_box else "made anew")
        if kept_box:
            try:
                state.boxes[node.id] = Mailbox.adopt(node, descriptors, boxes[node.id])
            except (ValueError, OSError) as error:
                raise RestoreError(f"node {node.id!r}: {error}") from error
            del kept.descriptors[state.name("box", node.id)]
        else:
            close_all(kept.descriptors.pop(state.name("box", node.id), ()))
            state.boxes[node.id] = Mailbox(node)
            state.keep_box(node.id)
    for node_id in found:
        close_all(kept.descriptors.pop(state.name("box", node_id)))
        state.store.drop(state.name("box", node_id))
    state.gone = set(snapshot.get("gone", ())) & set(state.boxes)
    state.ended = {(node, operator) for node, operator in snapshot.get("ended", ())}
    state.restarts = dict(snapshot.get("restarts", {}))
    state.params = {node: dict(params) for node, params in snapshot.get("params", {}).items()}
    for node_id, facts_of in snapshot.get("told", {}).items():
        state.node_facts[node_id] = NodeFacts([(kind, fields) for kind, fields in facts_of])
    for values in snapshot.get("edges", ()):
        edge = Edge(*values)
        box = state.boxes.get(edge.consumer)
        if box is not None and edge.ring in box.rings:
            state.edges.add(edge)
    return _complete(state)


def _complete(state: BrokerState) -> list[Edge]:
    """Make the rings and edges that came to be after the snapshot."""
    made = []
    for node in state.dataflow.nodes:
        box = state.boxes[node.id]
        for item in node.all_inputs:
            if any(ring.input == item.id for ring in box.rings.values()):
                continue
            box.add_ring(item.id, item)
            edge = edge_of(state.dataflow, node.id, item, item.id)
            if edge is not None:
                state.edges.add(edge)
                made.append(edge)
    return made


def lost_rings(state: BrokerState, snapshot: dict[str, Any]) -> list[tuple[str, str, int]]:
    """Take rings of guests and rings on their way out from the mailboxes.

    Return them as (node, input, ring): their nodes are to know that nothing will come there.
    """
    lost = [
        (node_id, input_id, base)
        for node_id, box in snapshot.get("boxes", {}).items()
        for input_id, base in box.get("leaving", ())
        if node_id in state.boxes
    ]
    for node_id, box in state.boxes.items():
        for name in [name for name in box.rings if "@." in name]:
            ring = box.rings.pop(name)
            lost.append((node_id, ring.input, ring.plan.base))
    return lost


def restore_segments(state: BrokerState, samples: Samples, kept: Kept) -> None:
    """Take over the segments that samples lie in.

    Raises:
        RestoreError: what was kept is no segment, or one of another size.
    """
    segments = []
    prefix = state.name("segment") + "/"
    for name, (memory, *_) in kept.below(prefix).items():
        number, owner, pid, size = name.split("/")
        try:
            check.check_segment(memory, int(size))
        except (ValueError, OSError) as error:
            raise RestoreError(f"node {owner!r}: {error}") from error
        segments.append(Segment(int(number), owner, int(pid), memory, int(size)))
        del kept.descriptors[prefix + name]
    following = kept.snapshot.get("next_segment", 1)
    samples.restore(segments, following, kept.snapshot.get("orphans", []))


def restore_connections(
    state: BrokerState, listener: Listener, kept: Kept
) -> dict[str, Connection]:
    """Take over the connections; return those that wait for the place of another process.

    Raises:
        RestoreError: what was kept is no connection.
    """
    attached = kept.snapshot.get("attached", {})
    pending: dict[str, Connection] = {}
    found = kept.below(state.name("conn") + "/")
    # Of two processes of one node, the one that is known to have its place comes first.
    for name in sorted(found, key=lambda name: not _is_known(name, attached)):
        node_id = name.split("/")[0]
        box = state.boxes.get(node_id)
        if box is None:
            close_all(kept.descriptors.pop(state.name("conn", name)))
            state.store.drop(state.name("conn", name))
            continue
        sock = _socket(found[name][0], f"node {node_id!r}: its connection")
        del kept.descriptors[state.name("conn", name)]
        # A daemon that was killed between sending a packet and counting it is one behind.
        sent = max(box.mail, box.seen)
        connection = listener.take_in(sock, sent)
        connection.kept_as = state.name("conn", name)
        _log.debug("connection of node %s to process %d is kept", node_id, connection.pid)
        if node_id in state.connections:
            connection.sent = 0
            pending[node_id] = connection
        else:
            state.connections[node_id] = connection
            connection.on_sent = box.mail_sent
    return pending


def restore_listener(state: BrokerState, kept: Kept) -> int | None:
    """Take over the socket that nodes connect to; None if none was kept.

    Raises:
        RestoreError: what was kept is no socket.
    """
    name = state.name("listener")
    if name not in kept.descriptors:
        return None
    sock = _socket(kept.descriptors[name][0], "the socket for its nodes")
    del kept.descriptors[name]
    return sock.detach()


def _socket(descriptor: int, what: str) -> socket.socket:
    """Return the socket that a descriptor is of; unless it is one of ours, it stays as it is."""
    try:
        sock = socket.socket(fileno=descriptor)
    except OSError as error:
        raise RestoreError(f"{what} is no socket") from error
    if (sock.family, sock.type) != (socket.AF_UNIX, socket.SOCK_SEQPACKET):
        sock.detach()
        raise RestoreError(f"{what} is another socket")
    return sock


def _is_known(name: str, attached: dict[str, int]) -> bool:
    node_id, pid = name.split("/")
    return attached.get(node_id) == int(pid)


def close_all(descriptors: Sequence[int]) -> None:
    """Close descriptors."""
    for descriptor in descriptors:
        with contextlib.suppress(OSError):
            os.close(descriptor)

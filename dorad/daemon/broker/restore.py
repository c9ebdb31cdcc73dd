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
from dorad.daemon.broker.told import Told

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dorad.daemon.broker.connection import Connection
    from dorad.daemon.broker.desk import Desk
    from dorad.daemon.broker.lobby import Lobby
    from dorad.daemon.broker.samples import Samples

QUESTIONS = frozenset({"grow", "ext_store", "ext_load", "ext_drop", "ext_drain"})
"""Packets that a node sends again to a new daemon, if it still waits for the answer."""

_log = logging.getLogger(__name__)


@dataclass(slots=True)
class Kept:
    """What was kept of a dataflow: descriptors by name, and what `Broker.snapshot` returned.

    Those that a broker knows what to do with are taken out of `descriptors`.
    """

    descriptors: dict[str, tuple[int, ...]]
    snapshot: dict[str, Any] = field(default_factory=dict)

    def take(self, prefix: str) -> dict[str, tuple[int, ...]]:
        """Take out what is kept under names that start so, which is left out of them."""
        names = [name for name in self.descriptors if name.startswith(prefix)]
        return {name[len(prefix) :]: self.descriptors.pop(name) for name in names}


def restore_boxes(desk: Desk, kept: Kept) -> list[Edge]:
    """Take over mailboxes, edges and facts; what the snapshot does not know of is made anew.

    Returns the edges whose rings were made now, so that their consumers can be told of them.

    Raises:
        OSError: there is no room for a mailbox that was not kept.
    """
    snapshot = kept.snapshot
    boxes = snapshot.get("boxes", {})
    found = kept.take(desk.name("box") + "/")
    for node in desk.dataflow.nodes:
        descriptors = found.pop(node.id, ())
        kept_box = node.id in boxes and len(descriptors) == 3
        _log.debug("mailbox of node %s: %s", node.id, "kept" if kept_box else "made anew")
        if kept_box:
            desk.boxes[node.id] = Mailbox.adopt(node, descriptors, boxes[node.id])
        else:
            close_all(descriptors)
            desk.boxes[node.id] = Mailbox(node)
            desk.keep_box(node.id)
    for node_id, descriptors in found.items():
        close_all(descriptors)
        desk.store.drop(desk.name("box", node_id))
    desk.gone = set(snapshot.get("gone", ())) & set(desk.boxes)
    desk.ended = {(node, operator) for node, operator in snapshot.get("ended", ())}
    desk.restarts = dict(snapshot.get("restarts", {}))
    desk.params = {node: dict(params) for node, params in snapshot.get("params", {}).items()}
    for node_id, facts in snapshot.get("told", {}).items():
        desk.told[node_id] = Told([(kind, fields) for kind, fields in facts])
    for values in snapshot.get("edges", ()):
        edge = Edge(*values)
        box = desk.boxes.get(edge.consumer)
        if box is not None and edge.ring in box.rings:
            desk.edges.add(edge)
    return _complete(desk)


def _complete(desk: Desk) -> list[Edge]:
    """Make the rings and edges that came to be after the snapshot."""
    made = []
    for node in desk.dataflow.nodes:
        box = desk.boxes[node.id]
        for item in node.all_inputs:
            if any(ring.input == item.id for ring in box.rings.values()):
                continue
            box.add_ring(item.id, item)
            edge = edge_of(desk.dataflow, node.id, item, item.id)
            if edge is not None:
                desk.edges.add(edge)
                made.append(edge)
    return made


def lost_rings(desk: Desk, snapshot: dict[str, Any]) -> list[tuple[str, str, int]]:
    """Take rings of guests and rings on their way out from the mailboxes.

    Return them as (node, input, ring): their nodes are to know that nothing will come there.
    """
    lost = [
        (node_id, input_id, base)
        for node_id, box in snapshot.get("boxes", {}).items()
        for input_id, base in box.get("leaving", ())
        if node_id in desk.boxes
    ]
    for node_id, box in desk.boxes.items():
        for name in [name for name in box.rings if "@." in name]:
            ring = box.rings.pop(name)
            lost.append((node_id, ring.input, ring.plan.base))
    return lost


def restore_segments(desk: Desk, samples: Samples, kept: Kept) -> None:
    """Take over the segments that samples lie in."""
    segments = {}
    for name, descriptors in kept.take(desk.name("segment") + "/").items():
        number, owner, pid = name.split("/")
        segments[int(number), owner, int(pid)] = descriptors[0]
    following = kept.snapshot.get("next_segment", 1)
    samples.restore(segments, following, kept.snapshot.get("orphans", []))


def restore_connections(desk: Desk, lobby: Lobby, kept: Kept) -> dict[str, Connection]:
    """Take over the connections; return those that wait for the place of another process."""
    attached = kept.snapshot.get("attached", {})
    parked: dict[str, Connection] = {}
    found = kept.take(desk.name("conn") + "/")
    # Of two processes of one node, the one that is known to have its place comes first.
    for name in sorted(found, key=lambda name: not _is_known(name, attached)):
        node_id = name.split("/")[0]
        box = desk.boxes.get(node_id)
        if box is None:
            close_all(found[name])
            desk.store.drop(desk.name("conn", name))
            continue
        # A daemon that was killed between sending a packet and counting it is one behind.
        sent = max(box.mail, box.seen)
        connection = lobby.take_in(socket.socket(fileno=found[name][0]), sent)
        connection.kept_as = desk.name("conn", name)
        _log.debug("connection of node %s to process %d is kept", node_id, connection.pid)
        if node_id in desk.connections:
            connection.sent = 0
            parked[node_id] = connection
        else:
            desk.connections[node_id] = connection
            connection.on_sent = box.mail_sent
    return parked


def _is_known(name: str, attached: dict[str, int]) -> bool:
    node_id, pid = name.split("/")
    return attached.get(node_id) == int(pid)


def close_all(descriptors: Sequence[int]) -> None:
    """Close descriptors."""
    for descriptor in descriptors:
        with contextlib.suppress(OSError):
            os.close(descriptor)

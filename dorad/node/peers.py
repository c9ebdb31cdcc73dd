"""A node's view of its peers: mailboxes it sends to, bells, and mapped segments."""

from __future__ import annotations

import logging
import os
from typing import TYPE_CHECKING, Any

from dorad.shm.hops import output_key
from dorad.shm.lane import add_lane
from dorad.shm.layout import (
    RING_CAPACITY,
    RING_LANE,
    RING_LATCHED,
    RING_QUEUE_SIZE,
    RING_WORDS,
    WORD,
    LayoutError,
    RingPlan,
)
from dorad.shm.mapping import Mapping
from dorad.shm.outlet import Outlet, Peer

if TYPE_CHECKING:
    from collections.abc import Callable

    from dorad.node.protocol import Packet

_log = logging.getLogger(__name__)

KINDS = frozenset({"peer", "peer_gone", "source", "segment", "retired", "edges"})


def ring_at(words: memoryview, base: int) -> RingPlan:
    """Return the plan of the ring whose header starts at word `base`.

    Raises:
        LayoutError: there is no valid ring, because a peer has overwritten its words.
    """
    if not 0 <= base <= len(words) - RING_WORDS:
        raise LayoutError(f"word {base} lies outside of the mailbox")
    plan = RingPlan(
        base=base,
        entries=(base + RING_WORDS) * WORD,
        capacity=words[base + RING_CAPACITY],
        queue_size=words[base + RING_QUEUE_SIZE],
        lane=words[base + RING_LANE],
    )
    plan.check(len(words) * WORD)
    return plan


class _Bell:
    """A doorbell's descriptor, closed with the last reference to it."""

    __slots__ = ("descriptor",)

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor

    def close(self) -> None:
        if self.descriptor >= 0:
            os.close(self.descriptor)
            self.descriptor = -1

    __del__ = close


class _ConnectedPeer(Peer):
    """A peer whose doorbell stays open while an outlet refers to it."""

    __slots__ = ("owner",)

    def __init__(self, mapping: Mapping, owner: _Bell) -> None:
        super().__init__(mapping, owner.descriptor)
        self.owner = owner


class Segments(dict[int, Mapping]):
    """The mapped segments of all nodes by number.

    A lookup of another one waits for it. `KeyError`: it is unknown or retired.
    """

    def __init__(self, wait_for: Callable[[int], None]) -> None:
        """Start empty. `wait_for` returns when a segment was added, or never will be."""
        super().__init__()
        self._wait_for = wait_for

    def __missing__(self, number: int) -> Mapping:
        self._wait_for(number)
        mapping = self.get(number)
        if mapping is None:
            raise KeyError(number)
        return mapping


class Peers:
    """Everything that the daemon has sent as a descriptor. Repeated packets change nothing.

    `outlets` are the ends of each output's edges, `receivers` the ids of their nodes. `spaces` are
    the space bells of nodes that wait for room here. `retired` are the numbers of the retired
    segments. `late_outputs` have a new subscriber that lacks the last message.
    """

    def __init__(self, segments: Segments) -> None:
        """Know no peers. `segments` gets the segments."""
        self.outlets: dict[str, tuple[Outlet, ...]] = {}
        self.receivers: dict[str, tuple[str, ...]] = {}
        self.spaces: dict[str, int] = {}
        self.segments = segments
        self.retired: set[int] = set()
        self.late_outputs: set[str] = set()
        self._peers: dict[str, _ConnectedPeer] = {}
        self._files: dict[str, tuple[int, int]] = {}

    def handle(self, packet: Packet) -> None:
        """Apply a packet of one of `KINDS`.

        Raises:
            ProtocolError: a field or descriptor is missing.
        """
        match packet.kind:
            case "peer":
                self._add_peer(packet.text("node"), *packet.take(2))
            case "peer_gone":
                self._peers.pop(packet.text("node"), None)
                self._files.pop(packet.text("node"), None)
            case "source":
                self._add_space(packet.text("node"), *packet.take(1))
            case "segment":
                self._map(packet.number("segment"), *packet.take(1))
            case "retired":
                number = packet.number("segment")
                self.retired.add(number)
                self.segments.pop(number, None)
            case "edges":
                self._rewire(packet.text("output"), packet.fields["to"])

    def peer(self, node_id: str) -> Peer | None:
        """Return the mailbox of a node, None if this node sends nothing to it."""
        return self._peers.get(node_id)

    def _add_peer(self, node: str, memory: int, bell: int) -> None:
        status = os.fstat(memory)
        file = (status.st_dev, status.st_ino)
        known = self._peers.get(node)
        if known is not None:
            # All outlets hold the old descriptor number, so the new bell takes that number.
            os.dup2(bell, known.bell, inheritable=False)
            os.close(bell)
        if self._files.get(node) != file:
            owner = _Bell(bell) if known is None else known.owner
            self._peers[node] = _ConnectedPeer(Mapping(memory), owner)
            self._files[node] = file
        os.close(memory)

    def _add_space(self, node: str, bell: int) -> None:
        known = self.spaces.setdefault(node, bell)
        if known != bell:
            os.dup2(bell, known, inheritable=False)
            os.close(bell)

    def _map(self, number: int, memory: int) -> None:
        self.retired.discard(number)
        if number not in self.segments:
            self.segments[number] = Mapping(memory, writable=False)
        os.close(memory)

    def _rewire(self, output: str, to: list[list[Any]]) -> None:
        """Replace the receivers of an output, keeping the outlets that stay."""
        old = {(id(outlet.peer), outlet.base): outlet for outlet in self.outlets.get(output, ())}
        new = []
        key = output_key(output)
        for node, base, blocking, *_ in to:
            peer = self._peers[node]
            outlet = old.pop((id(peer), base), None)
            if outlet is None:
                try:
                    outlet = self._make_outlet(output, peer, base, blocking)
                except LayoutError as error:
                    _log.error("output %s is not sent to node %s: %s", output, node, error)
                    continue
            for end in (outlet, outlet.lane or outlet):
                end.blocking = blocking
                end.output = key
            new.append(outlet)
        for outlet in old.values():
            for end in (outlet, outlet.lane or outlet):
                end.closed = True
        self.receivers[output] = tuple(
            each for node, _, _, *behind in to for each in (behind or [node])
        )
        _log.debug("output %s goes to %s", output, ", ".join(self.receivers[output]) or "no node")
        # Outlets that never block come first, so that they do not wait for one that does.
        self.outlets[output] = tuple(sorted(new, key=lambda outlet: outlet.blocking))

    def _make_outlet(self, output: str, peer: Peer, base: int, blocking: bool) -> Outlet:
        ring = ring_at(peer.words, base)
        if not peer.words[base + RING_LATCHED]:
            return add_lane(Outlet(peer, ring, blocking=blocking), ring)
        from dorad.shm.latch import LatchedOutlet  # few inputs are latched

        self.late_outputs.add(output)
        return LatchedOutlet(peer, ring, blocking=blocking)

    def hang_up(self) -> None:
        """Close all descriptors."""
        for peer in self._peers.values():
            peer.owner.close()
        for bell in self.spaces.values():
            os.close(bell)
        self.spaces.clear()
        self._peers.clear()

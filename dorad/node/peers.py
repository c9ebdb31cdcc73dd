"""What a node holds of the nodes around it: mailboxes it sends to, bells, and mapped samples."""

from __future__ import annotations

import logging
import os
from typing import TYPE_CHECKING, Any

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
from dorad.shm.ring import Outlet, Peer

if TYPE_CHECKING:
    from dorad.node.protocol import Packet

_log = logging.getLogger(__name__)

KINDS = frozenset({"peer", "peer_gone", "source", "segment", "retired", "edges"})


def ring_at(words: memoryview, base: int) -> RingPlan:
    """Return the plan of the ring whose header starts at word `base`.

    Raises:
        LayoutError: there is none: a peer has overwritten its words.
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
    """A doorbell's descriptor, closed when nobody can ring it any more."""

    __slots__ = ("descriptor",)

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor

    def close(self) -> None:
        if self.descriptor >= 0:
            os.close(self.descriptor)
            self.descriptor = -1

    __del__ = close


class _ConnectedPeer(Peer):
    """A peer; whoever still sends to it keeps its doorbell open."""

    __slots__ = ("owner",)

    def __init__(self, mapping: Mapping, owner: _Bell) -> None:
        super().__init__(mapping, owner.descriptor)
        self.owner = owner


class Peers:
    """All that came by descriptor. What is known already may come again: it changes nothing.

    `outlets` are the receivers of each output, `receivers` their nodes' ids; `spaces` the bells of
    nodes that wait for room here; `segments` what is mapped, by number, and `retired` the numbers
    that were given back. `late` are the outputs with a new receiver who wants what was sent last.
    """

    def __init__(self) -> None:
        self.outlets: dict[str, tuple[Outlet, ...]] = {}
        self.receivers: dict[str, tuple[str, ...]] = {}
        self.spaces: dict[str, int] = {}
        self.segments: dict[int, Mapping] = {}
        self.retired: set[int] = set()
        self.late: set[str] = set()
        self._peers: dict[str, _ConnectedPeer] = {}
        self._files: dict[str, tuple[int, int]] = {}

    def take_in(self, packet: Packet) -> None:
        """Do what a packet of one of `KINDS` says.

        Raises:
            ProtocolError: it lacks something.
        """
        match packet.kind:
            case "peer":
                self._add_peer(packet.text("node"), *packet.take(2))
            case "peer_gone":
                self._peers.pop(packet.text("node"), None)
                self._files.pop(packet.text("node"), None)
            case "source":
                self._wait_with(packet.text("node"), *packet.take(1))
            case "segment":
                self._map(packet.number("segment"), *packet.take(1))
            case "retired":
                number = packet.number("segment")
                self.retired.add(number)
                self.segments.pop(number, None)
            case "edges":
                self._rewire(packet.text("output"), packet.fields["to"])

    def peer(self, node_id: str) -> Peer | None:
        """Return the mailbox of a node that is sent to."""
        return self._peers.get(node_id)

    def _add_peer(self, node: str, memory: int, bell: int) -> None:
        status = os.fstat(memory)
        file = (status.st_dev, status.st_ino)
        known = self._peers.get(node)
        if known is not None:
            # Whoever holds the number of the bell rings the right one from now on.
            os.dup2(bell, known.bell, inheritable=False)
            os.close(bell)
        if self._files.get(node) != file:
            owner = _Bell(bell) if known is None else known.owner
            self._peers[node] = _ConnectedPeer(Mapping(memory), owner)
            self._files[node] = file
        os.close(memory)

    def _wait_with(self, node: str, bell: int) -> None:
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
        for node, base, blocking in to:
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
            new.append(outlet)
        for outlet in old.values():
            for end in (outlet, outlet.lane or outlet):
                end.closed = True
        self.receivers[output] = tuple(node for node, _, _ in to)
        # Those that never block come first, so that none of them waits for one that does.
        self.outlets[output] = tuple(sorted(new, key=lambda outlet: outlet.blocking))

    def _make_outlet(self, output: str, peer: Peer, base: int, blocking: bool) -> Outlet:
        ring = ring_at(peer.words, base)
        if not peer.words[base + RING_LATCHED]:
            return add_lane(Outlet(peer, ring, blocking=blocking), ring)
        from dorad.shm.latch import LatchedOutlet  # few inputs are latched

        self.late.add(output)
        return LatchedOutlet(peer, ring, blocking=blocking)

    def hang_up(self) -> None:
        """Close all descriptors."""
        for peer in self._peers.values():
            peer.owner.close()
        for bell in self.spaces.values():
            os.close(bell)
        self.spaces.clear()
        self._peers.clear()

"""Receivers come and go: one that stays gets every message, whole and in order."""

from __future__ import annotations

import itertools
import os
from collections.abc import Sequence
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from dorad.node.peers import Peers, Segments
from dorad.node.protocol import Packet
from dorad.shm import create, layout
from dorad.shm.counters import counters
from dorad.shm.inlet import Inlet
from dorad.shm.mapping import Mapping
from dorad.shm.pool import Pool
from tests.node.fakedaemon import Box
from tests.shm.edge import content

QUEUE_SIZE = 64
SHORT = 2
"""The queue of those that leave: it overflows."""

STEPS = st.lists(
    st.one_of(
        # Inline, and in a sample of one of two sizes.
        st.tuples(st.just("send"), st.sampled_from([8, 3000, 5000])),
        st.tuples(st.just("join"), st.integers(0, 2)),
        # Before the sender knows that they are gone, or after.
        st.tuples(st.sampled_from(["leave", "die"]), st.integers(0, 2)),
        st.tuples(st.sampled_from(["take", "keep", "release"]), st.integers(0, 2)),
    ),
    max_size=QUEUE_SIZE,
)


class Receiver:
    """A receiver's mailbox with one ring, and what it still uses of what it has taken."""

    def __init__(self, queue_size: int, segments: dict[int, Mapping]) -> None:
        self.box = Box([queue_size])
        self.inlet = Inlet(self.box.mapping, self.box.rings[0], segments, None)
        self.kept: list[tuple[Any, bytes]] = []

    def take(self, *, keep: bool) -> bytes | None:
        """Return the next message."""
        taken = self.inlet.take()
        if taken is None:
            return None
        if keep:
            self.kept.append((taken, content(taken)))
        return content(taken)

    def close(self) -> None:
        """Unmap the mailbox, as at the end of a process."""
        self.kept.clear()
        del self.inlet
        self.box.close()


class Sender:
    """A sender whose daemon is this test."""

    def __init__(self) -> None:
        self.segments: dict[int, Mapping] = {}
        self.peers = Peers(Segments(lambda _: None))
        self.pool = Pool(self._grow, self.segments.pop, keep=0)
        self.receivers: dict[str, Receiver] = {}
        self.numbers = itertools.count()

    def _grow(self, size: int) -> tuple[int, Mapping]:
        memory = create.create_pool(size)
        number = len(self.segments) + 1
        self.segments[number] = Mapping(memory.receiver, writable=False)
        mapping = Mapping(memory.owner)
        for descriptor in memory:
            os.close(descriptor)
        return number, mapping

    def _tell(self, kind: str, descriptors: Sequence[int] = (), **fields: Any) -> None:
        self.peers.handle(Packet(kind, fields, [os.dup(each) for each in descriptors]))

    def _tell_edges(self) -> None:
        to = [[name, each.box.rings[0].base, False] for name, each in self.receivers.items()]
        self._tell("edges", output="out", to=to)

    def join(self, name: str, queue_size: int) -> None:
        """Begin to send to a new receiver."""
        receiver = self.receivers[name] = Receiver(queue_size, self.segments)
        self._tell("peer", (receiver.box.memory, receiver.box.bell), node=name)
        self._tell_edges()

    def leave(self, name: str, *, first_dies: bool) -> None:
        """Stop sending to a receiver; if it `first_dies`, a message is sent to its mailbox yet."""
        receiver = self.receivers.pop(name)
        closed = receiver.box.rings[0].base + layout.RING_STATE
        if first_dies:
            receiver.box.words[closed] = layout.STATE_CLOSED
            self.send(8)
        self._tell_edges()
        self._tell("peer_gone", node=name)
        receiver.box.words[closed] = layout.STATE_CLOSED
        receiver.close()

    def send(self, size: int) -> bytes:
        """Send a message, and return its bytes."""
        payload = b"%8d" % next(self.numbers) * (size // 8)
        encoded = (1, 5, size, 0, size, 0)
        self.pool.push(self.peers.outlets["out"], encoded, b"", payload, None)
        return payload

    def close(self) -> None:
        """Release everything."""
        self.peers.hang_up()
        self.pool.close()
        for receiver in self.receivers.values():
            receiver.close()


@given(STEPS)
def test_a_receiver_that_leaves_costs_another_one_no_message(steps: list[tuple[str, int]]) -> None:
    """Whatever the others have queued, taken, or hold when they go, and however they go."""
    sender = Sender()
    sender.join("stays", QUEUE_SIZE)
    stays = sender.receivers["stays"]
    received = []
    for step, number in steps:
        name = f"other{number}"
        other = sender.receivers.get(name)
        if step == "send":
            sender.send(number)
        elif step == "join" and other is None:
            sender.join(name, SHORT)
        elif step in ("leave", "die") and other is not None:
            sender.leave(name, first_dies=step == "die")
        elif step in ("take", "keep"):
            for each in (stays, other):
                taken = None if each is None else each.take(keep=step == "keep")
                if each is stays and taken is not None:
                    received.append(taken)
        elif step == "release":
            stays.kept.clear()
    for taken, before in stays.kept:
        assert content(taken) == before
    while (taken_last := stays.take(keep=False)) is not None:
        received.append(taken_last)
    count = next(sender.numbers)
    assert [int(each[:8]) for each in received] == [*range(count)]
    assert all(each == each[:8] * (len(each) // 8) for each in received)
    known = counters(stays.box.words, stays.box.rings[0].base)
    assert (known.sent, known.received, known.dropped) == (count, count, 0)
    sender.close()

"""Mailboxes: made by the daemon, one a node, and kept by it whatever becomes of the process."""

from __future__ import annotations

import contextlib
import os
from dataclasses import astuple, dataclass, replace
from typing import TYPE_CHECKING, Any, NamedTuple

from dorad.dataflow.model import NodeOutput, QueuePolicy, Timer
from dorad.shm import check, create, doorbell, layout
from dorad.shm.latch import LatchedOutlet, samples_of
from dorad.shm.mapping import Mapping
from dorad.shm.ring import Counters, Outlet, Peer, counters

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence

    from dorad.dataflow.model import Input, NodeSpec

ROOM = 1 << 21
"""Bytes of address space beyond its first rings that a mailbox has for rings added later."""

_NO_BELL = -1
_LINE = layout.LINE * layout.WORD
_WORD_MASK = (1 << 64) - 1
_SANE = 1 << 62
"""More than any counter of a ring comes to."""


class NoRoomError(OSError):
    """A mailbox has no place for one more ring."""


@dataclass(slots=True)
class Ring:
    """A ring of a mailbox: `first` is the index of the first message that is one of its edge's.

    A ring that is `leaving` gets no messages any more; what is queued may still be taken. That of
    a `latched` edge keeps its newest message.
    """

    input: str
    plan: layout.RingPlan
    source: str | None
    interval_ns: int | None
    first: int = 0
    leaving: bool = False
    latched: bool = False


class Vitals(NamedTuple):
    """Signs of life of a node's process.

    `pulse` grows whenever it enters or leaves the API, if it is watched. `unread` tells whether it
    was sent packets that it has not read; `queued` messages wait for it, and are not left lying.
    `stamps_refused` counts timestamps that were too far ahead for its clock.
    """

    connected: bool
    asleep: bool
    pulse: int
    unread: bool
    queued: int
    stamps_refused: int = 0


class Lateness(NamedTuple):
    """How late a node was with the ticks of one of its timers, ever. Times in ns.

    `sum` adds up the times from when a tick was due to when it was taken, `diff` how much
    successive ones differed; `missed` ticks were taken after their deadline, or never.
    """

    node: str
    input: str
    interval_ns: int
    received: int
    sum: int
    diff: int
    most: int
    missed: int


class Mailbox:
    """The daemon's side of one node: its segment, its bells, and the words the daemon writes.

    Every word may have been written by anybody who maps the segment: where rings lie is known from
    here, and no value of a word can raise or go on for ever. The bells are only passed on.
    """

    def __init__(self, node: NodeSpec) -> None:
        """Make the segment, with a ring for each input.

        Raises:
            create.ShmFullError: there is no memory for it.
        """
        items = node.all_inputs
        plan = layout.plan(
            [max(1, item.queue_size) for item in items],
            lanes=[_has_lane(node, item) for item in items],
        )
        memory = create.create_mailbox(plan.size, room=plan.size + ROOM)
        self._set_up(node, (memory, doorbell.create(), doorbell.create()))
        words = self._words
        self._set_end(plan.rings[-1].end if items else layout.BOX_WORDS * layout.WORD)
        for item, ring in zip(items, plan.rings, strict=True):
            self.rings[item.id] = Ring(item.id, ring, *_origin(item))
            words[ring.base + layout.RING_CAPACITY] = ring.capacity
            words[ring.base + layout.RING_QUEUE_SIZE] = ring.queue_size
            self._latch(item.id, item.latched)
            words[ring.base + layout.RING_LANE] = ring.lane
        words[layout.BOX_MAGIC] = layout.MAGIC

    def _set_up(self, node: NodeSpec, descriptors: Sequence[int]) -> None:
        self.node = node
        self.inputs = {item.id: item for item in node.all_inputs}
        self.rings: dict[str, Ring] = {}
        self.memory, self.bell, self.space = descriptors
        self._mapping = Mapping(self.memory)
        self._words = self._mapping.words
        self._state = layout.STATE_DETACHED
        self._end = 0
        self._free: list[layout.RingPlan] = []

    # -- kept over a restart of the daemon ---------------------------------------------------

    @classmethod
    def adopt(cls, node: NodeSpec, descriptors: Sequence[int], kept: dict[str, Any]) -> Mailbox:
        """Take over the mailbox that another daemon made and described with `snapshot`.

        Raises:
            ValueError, KeyError, TypeError: it is none. The descriptors stay the caller's.
        """
        memory, bell, space = descriptors
        check.check_memory("its mailbox", memory, kept["size"])
        check.check_bell(bell)
        check.check_bell(space)
        box = cls.__new__(cls)
        box._set_up(node, descriptors)
        if box._words[layout.BOX_MAGIC] != layout.MAGIC:
            raise ValueError("its mailbox is empty")
        for name, input_id, first, latched, *numbers in kept["rings"]:
            item = box.inputs.get(input_id)
            source, interval = _origin(item) if item is not None else (None, None)
            plan = layout.RingPlan(*numbers)
            box.rings[name] = Ring(input_id, plan, source, interval, first, latched=latched)
        # A ring may have been added after the snapshot: its place is not used again.
        end = max(kept["end"], box._words[layout.BOX_END])
        box._set_end(end if end <= box._mapping.size and not end % _LINE else box._mapping.size)
        # Those of operators that have ended are closed, whatever holds for the others.
        states = (box._words[ring.plan.base + layout.RING_STATE] for ring in box.rings.values())
        box._state = min(layout.STATE_CLOSED, min(states, default=layout.STATE_DETACHED))
        return box

    def snapshot(self) -> dict[str, Any]:
        """Return what `adopt` needs besides the descriptors, JSON-able.

        Rings that are leaving or free are not part of it: their place is given up, because what is
        known of them may be older than what has become of them.
        """
        return {
            "size": self._mapping.size,
            "end": self._end,
            "rings": [
                [name, ring.input, ring.first, ring.latched, *astuple(ring.plan)]
                for name, ring in self.rings.items()
                if not ring.leaving
            ],
            "leaving": [[r.input, r.plan.base] for r in self.rings.values() if r.leaving],
        }

    def _set_end(self, end: int) -> None:
        self._end = self._words[layout.BOX_END] = end

    # -- rings added and taken away ----------------------------------------------------------

    def add_ring(self, name: str, item: Input, source: str | None = None) -> Ring:
        """Add a ring that feeds an input; `source` is who sends, if not the input's own source.

        Raises:
            NoRoomError: the mailbox or the memory has no room for it.
        """
        words = self._words
        queue_size = max(1, item.queue_size)
        end = self._end
        plan = layout.plan_ring(end, queue_size, lane=_has_lane(self.node, item))
        if plan.end <= self._mapping.size:
            try:
                create.extend(self.memory, end, plan.end - end)
            except OSError as error:
                raise NoRoomError(str(error)) from None
            self._set_end(plan.end)
            words[plan.base + layout.RING_CAPACITY] = plan.capacity
            words[plan.base + layout.RING_LANE] = plan.lane
        else:
            plan = self._reuse(item.id, queue_size, lane=_has_lane(self.node, item))
        words[plan.base + layout.RING_QUEUE_SIZE] = queue_size
        words[plan.base + layout.RING_STATE] = self._state
        origin = (source, None) if source else _origin(item)
        first = words[plan.base + layout.RING_HEAD] + words[plan.base + layout.RING_LANE_HEAD]
        ring = Ring(item.id, plan, *origin, first=first & _WORD_MASK)
        self.rings[name] = ring
        # What a guest sends is not what the input's own source has sent.
        self._latch(name, item.latched and source is None)
        return ring

    def _latch(self, name: str, latched: bool) -> None:
        ring = self.rings[name]
        ring.latched = latched
        self._words[ring.plan.base + layout.RING_LATCHED] = int(latched)

    def unlatch(self, name: str) -> None:
        """Let the newest message of a ring go once it was taken."""
        self._words[self.rings[name].plan.base + layout.RING_LATCHED] = 0

    def segments_of(self, ring: Ring) -> set[int]:
        """Return the segments that the messages of a ring lie in, its newest one's included."""
        words, base = self._words, ring.plan.base
        head = words[base + layout.RING_HEAD]
        if not words[base + layout.RING_LAST]:
            return set()
        first = max(head - ring.plan.queue_size, min(words[base + layout.RING_TAIL], head - 1))
        found: set[int] = set()
        for index in range(first, head):
            at = ring.plan.entries + (index % ring.plan.capacity) * layout.ENTRY_SIZE
            found |= {
                number
                for number, _ in samples_of(self._mapping.memory[at : at + layout.ENTRY.size])
            }
        return found

    def free_name(self, input_id: str) -> str:
        """Return a name for one more ring of an input."""
        number = 1
        name = input_id
        while name in self.rings:
            number += 1
            name = f"{input_id}#{number}"
        return name

    def _reuse(self, input_id: str, queue_size: int, *, lane: bool) -> layout.RingPlan:
        """Take a ring whose last producer and consumer are done with it, the longest free first.

        Indexes go on: a producer that still watches a sample of its own for this ring must find
        its message taken.
        """
        need = layout.capacity_for(queue_size)
        for old in self._free:
            if need <= old.capacity <= 4 * need and (old.lane or not lane):
                break
        else:
            raise NoRoomError(
                f"node {self.node.id!r} has no room for one more queue of {queue_size} messages "
                f"(input {input_id!r}); restart it, or ask for a shorter queue"
            )
        self._free.remove(old)
        words = self._words
        head = words[old.base + layout.RING_HEAD]
        lane_head = words[old.base + layout.RING_LANE_HEAD]
        words[old.base + layout.RING_TAIL] = head
        words[old.base + layout.RING_LANE_TAIL] = lane_head
        words[old.base + layout.RING_RECEIVED] = head + lane_head & _WORD_MASK
        for word in (
            layout.RING_BYTES,
            layout.RING_LAST,
            layout.RING_WAITING,
            layout.RING_REFUSED,
            layout.RING_LATENCY_SUM,
            layout.RING_LATENCY_DIFF,
            layout.RING_LATE_MAX,
            layout.RING_MISSED,
        ):
            words[old.base + word] = 0
        return replace(old, queue_size=queue_size)

    def recycle(self, name: str) -> None:
        """Free a ring that no process pushes into or takes from any more."""
        self._free.append(self.rings.pop(name).plan)

    # -- processes come and go ---------------------------------------------------------------

    def attach(self) -> None:
        """Prepare for a process that connects: it has read no mail and is awake."""
        words = self._words
        words[layout.BOX_MAIL] = 0
        words[layout.BOX_SEEN] = 0
        words[layout.BOX_ASLEEP] = 0
        words[layout.BOX_BUSY] = 0
        self._set_state(layout.STATE_ATTACHED)

    def leave(self) -> None:
        """Take note that nobody reads for now: full rings drop, nobody blocks on them."""
        self._set_state(layout.STATE_DETACHED)

    def discard(self) -> None:
        """Count what is queued as dropped: its samples may be used for something else by now."""
        for ring in self.rings.values():
            base = ring.plan.base
            self._words[base + layout.RING_TAIL] = self._words[base + layout.RING_HEAD]
            self._words[base + layout.RING_LANE_TAIL] = self._words[base + layout.RING_LANE_HEAD]

    def close_rings(self) -> None:
        """Take note that nobody will read again."""
        self._set_state(layout.STATE_CLOSED)

    def close_rings_of(self, operator: str) -> None:
        """Take note that an operator reads no more, while the others of the node do."""
        for ring in self.rings.values():
            if ring.input.startswith(f"{operator}/"):
                self._words[ring.plan.base + layout.RING_STATE] = layout.STATE_CLOSED

    def _set_state(self, state: int) -> None:
        self._state = state
        for ring in self.rings.values():
            self._words[ring.plan.base + layout.RING_STATE] = state

    def hazards(self) -> list[int]:
        """Return the hazard slots, as words of the segment, that hold a sample."""
        return [
            slot
            for ring in self.rings.values()
            for slot in range(
                ring.plan.base + layout.RING_HAZARDS,
                ring.plan.base + layout.RING_HAZARDS + layout.HAZARDS,
            )
            if self._words[slot]
        ]

    def clear_hazards(self, slots: Collection[int] | None = None) -> None:
        """Take back the samples of a process that has ended; None stands for all slots.

        Never called while the process lives.
        """
        if slots is None:
            self._words[layout.BOX_ASLEEP] = 0
        for slot in self.hazards() if slots is None else slots:
            self._words[slot] = 0

    # -- words -------------------------------------------------------------------------------

    @property
    def asleep(self) -> bool:
        """Whether the node blocks until something comes for it."""
        return bool(self._words[layout.BOX_ASLEEP])

    @property
    def mail(self) -> int:
        """Packets sent to the node so far."""
        return int(self._words[layout.BOX_MAIL])

    @property
    def seen(self) -> int:
        """Packets the node has read so far."""
        return int(self._words[layout.BOX_SEEN])

    def mail_sent(self, count: int) -> None:
        """Tell the node, without a system call on its side, how many packets were sent so far."""
        self._words[layout.BOX_MAIL] = count & _WORD_MASK

    def counters(self, name: str) -> Counters:
        """Return what the edge that ends at a ring has seen so far.

        Raises:
            KeyError: there is no such ring.
        """
        ring = self.rings[name]
        seen = counters(self._words, ring.plan.base)
        return seen._replace(sent=seen.sent - ring.first, received=seen.received - ring.first)

    def lateness(self) -> Iterator[Lateness]:
        """Yield how late the node is with each of its timers."""
        words = self._words
        for ring in self.rings.values():
            if ring.interval_ns is not None and not ring.leaving:
                base = ring.plan.base
                yield Lateness(
                    self.node.id,
                    ring.input,
                    ring.interval_ns,
                    words[base + layout.RING_RECEIVED] - ring.first,
                    words[base + layout.RING_LATENCY_SUM],
                    words[base + layout.RING_LATENCY_DIFF],
                    words[base + layout.RING_LATE_MAX],
                    words[base + layout.RING_MISSED],
                )

    def vitals(self, *, connected: bool) -> Vitals:
        """Return the node's signs of life."""
        words = self._words
        return Vitals(
            connected=connected,
            asleep=self.asleep and not words[layout.BOX_BUSY],
            pulse=words[layout.BOX_PULSE],
            unread=connected and self.mail > self.seen,
            queued=sum(self.counters(n).queued for n, r in self.rings.items() if self._is_due(r)),
            stamps_refused=words[layout.BOX_STAMPS_REFUSED],
        )

    def _is_due(self, ring: Ring) -> bool:
        """Whether a node that waits takes whatever is queued there at once."""
        return not ring.interval_ns and not self.node.may_skip(ring.input)

    def outlet(self, name: str) -> Outlet:
        """Return a producer's end of a ring, for the daemon itself; see `BrokerState.wake`."""
        ring = self.rings[name]
        for word in (layout.RING_HEAD, layout.RING_BYTES):
            if self._words[ring.plan.base + word] > _SANE:
                self._words[ring.plan.base + word] = 0
        kind = LatchedOutlet if ring.latched else Outlet
        return kind(Peer(self._mapping, _NO_BELL), ring.plan, blocking=False)

    def close(self) -> None:
        """Let go of the descriptors; the memory ends with the last process that maps it."""
        for descriptor in (self.memory, self.bell, self.space):
            with contextlib.suppress(OSError):
                os.close(descriptor)


def _has_lane(node: NodeSpec, item: Input) -> bool:
    """Tell whether an input keeps what belongs to an exchange, which not all can that choose."""
    return (
        isinstance(item.source, NodeOutput)
        and item.queue_policy is not QueuePolicy.LATEST
        and not item.latched
        and item.max_rate_hz is None
        and not node.may_skip(item.id)
    )


def _origin(item: Input) -> tuple[str | None, int | None]:
    """Return the node an input's messages come from, and a timer's interval in ns."""
    source = item.source
    return (
        source.node if isinstance(source, NodeOutput) else None,
        source.interval_ns if isinstance(source, Timer) else None,
    )

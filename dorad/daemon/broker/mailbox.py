"""The daemon's side of a mailbox: the shared memory that holds the rings of a node's inputs."""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterator, Sequence

from dorad.daemon.broker.readings import Lateness
from dorad.daemon.broker.rings import Ring, has_lane, origin_of
from dorad.daemon.broker.snapshot import MailboxSnapshot, RingSnapshot
from dorad.daemon.rules.health import Vitals
from dorad.dataflow.model import Input, NodeSpec
from dorad.node.protocol import VERSION, close_all
from dorad.shm import check, create, doorbell, hoplog, latencies, layout
from dorad.shm.counters import WORD_MASK, Counters, counters
from dorad.shm.fence import STRONG_ORDER, release
from dorad.shm.latch import LatchedOutlet, samples_of
from dorad.shm.mapping import Mapping
from dorad.shm.outlet import Outlet, Peer

GROWTH_ROOM = 1 << 21
"""Bytes of address space that a mailbox reserves for rings added later."""

_NO_BELL = -1
_LINE = layout.LINE * layout.WORD
_MAX_COUNT = 1 << 62
"""No valid counter of a ring is larger."""

_log = logging.getLogger(__name__)


class NoRoomError(OSError):
    """A mailbox has no place for one more ring."""


class Mailbox:
    """The daemon's side of one node: its segment, its bells, and the words the daemon writes.

    Every process that maps the segment may write any word. So the positions of rings are kept here,
    and no value of a word makes a method raise or loop forever. The bells are only passed on.
    """

    def __init__(self, node: NodeSpec) -> None:
        """Create the segment, with a ring for each input.

        Raises:
            create.ShmFullError: there is no memory for it.
        """
        items = node.all_inputs
        plan = layout.plan(
            [max(1, item.queue_size) for item in items],
            lanes=[has_lane(node, item) for item in items],
        )
        memory = create.create_mailbox(plan.size, room=plan.size + GROWTH_ROOM)
        self._set_up(node, (memory, doorbell.create(), doorbell.create()))
        words = self._words
        self._set_end(plan.rings[-1].end if items else layout.BOX_WORDS * layout.WORD)
        for item, ring in zip(items, plan.rings, strict=True):
            self.rings[item.id] = Ring(item.id, ring, *origin_of(item))
            words[ring.base + layout.RING_CAPACITY] = ring.capacity
            words[ring.base + layout.RING_QUEUE_SIZE] = ring.queue_size
            self._latch(item.id, item.latched)
            words[ring.base + layout.RING_LANE] = ring.lane
        words[layout.BOX_VERSION] = VERSION
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
        self.hops = hoplog.HopCursor()

    @classmethod
    def adopt(cls, node: NodeSpec, descriptors: Sequence[int], kept: MailboxSnapshot) -> Mailbox:
        """Return the mailbox that a previous daemon created and described with `snapshot`.

        Raises:
            ValueError, TypeError: the descriptors or the snapshot are invalid. The descriptors stay
                the caller's.
        """
        memory, bell, space = descriptors
        check.check_memory("its mailbox", memory, kept.size)
        check.check_bell(bell)
        check.check_bell(space)
        box = cls.__new__(cls)
        box._set_up(node, descriptors)
        if box._words[layout.BOX_MAGIC] != layout.MAGIC:
            raise ValueError("its mailbox is empty")
        for each in kept.rings:
            item = box.inputs.get(each.input)
            source, interval = origin_of(item) if item is not None else (None, None)
            plan = layout.RingPlan(*each.plan)
            ring = Ring(each.input, plan, source, interval, each.first, latched=each.latched)
            box.rings[each.name] = ring
        head = box._words[layout.BOX_HOPS]
        # A daemon of an earlier version has read none.
        read = box._words[layout.BOX_HOPS_READ] or max(0, head - layout.HOPS)
        box.hops = hoplog.HopCursor(read, read)
        # A ring may have been added after the snapshot: its place is not used again.
        end = max(kept.end, box._words[layout.BOX_END])
        box._set_end(end if end <= box._mapping.size and not end % _LINE else box._mapping.size)
        # Rings of ended operators are closed in any state of the mailbox: take the smallest.
        states = (box._words[ring.plan.base + layout.RING_STATE] for ring in box.rings.values())
        box._state = min(layout.STATE_CLOSED, min(states, default=layout.STATE_DETACHED))
        return box

    def snapshot(self) -> MailboxSnapshot:
        """Return the state that `adopt` needs besides the descriptors."""
        return MailboxSnapshot(
            size=self._mapping.size,
            end=self._end,
            rings=[
                RingSnapshot(name, ring.input, ring.first, ring.latched, [*ring.plan])
                for name, ring in self.rings.items()
                if not ring.retiring
            ],
            retiring=[(r.input, r.plan.base) for r in self.rings.values() if r.retiring],
        )

    def _set_end(self, end: int) -> None:
        self._end = self._words[layout.BOX_END] = end

    def add_ring(self, name: str, item: Input, source: str | None = None) -> Ring:
        """Add a ring that feeds an input; `source` is the sender if it is not the input's own.

        Raises:
            NoRoomError: the mailbox or the memory has no room for it.
        """
        words = self._words
        queue_size = max(1, item.queue_size)
        end = self._end
        plan = layout.plan_ring(end, queue_size, lane=has_lane(self.node, item))
        if plan.end <= self._mapping.size:
            try:
                create.extend(self.memory, end, plan.end - end)
            except OSError as error:
                raise NoRoomError(str(error)) from None
            self._set_end(plan.end)
            words[plan.base + layout.RING_CAPACITY] = plan.capacity
            words[plan.base + layout.RING_LANE] = plan.lane
        else:
            plan = self._reuse(item.id, queue_size, lane=has_lane(self.node, item))
        words[plan.base + layout.RING_QUEUE_SIZE] = queue_size
        words[plan.base + layout.RING_STATE] = self._state
        origin = (source, None) if source else origin_of(item)
        first = words[plan.base + layout.RING_HEAD] + words[plan.base + layout.RING_LANE_HEAD]
        ring = Ring(item.id, plan, *origin, first=first & WORD_MASK)
        self.rings[name] = ring
        _log.debug("node %s: ring %s at offset %d", self.node.id, name, plan.base)
        # Only messages of the input's own source are latched, not those of an observer.
        self._latch(name, item.latched and source is None)
        return ring

    def _latch(self, name: str, latched: bool) -> None:
        ring = self.rings[name]
        ring.latched = latched
        self._words[ring.plan.base + layout.RING_LATCHED] = int(latched)

    def unlatch(self, name: str) -> None:
        """Stop keeping the newest message of a ring after it was received."""
        self._words[self.rings[name].plan.base + layout.RING_LATCHED] = 0

    def segments_of(self, ring: Ring) -> set[int]:
        """Return the segments of the queued messages of a ring, and of its newest one."""
        words, base = self._words, ring.plan.base
        head = words[base + layout.RING_HEAD]
        if not words[base + layout.RING_LAST]:
            return set()
        first = max(head - ring.plan.queue_size, min(words[base + layout.RING_TAIL], head - 1))
        segments: set[int] = set()
        for index in range(first, head):
            at = ring.plan.entries + (index % ring.plan.capacity) * layout.ENTRY_SIZE
            segments |= {
                number
                for number, _ in samples_of(self._mapping.memory[at : at + layout.ENTRY.size])
            }
        return segments

    def free_name(self, input_id: str) -> str:
        """Return an unused name for one more ring of an input."""
        number = 1
        name = input_id
        while name in self.rings:
            number += 1
            name = f"{input_id}#{number}"
        return name

    def _reuse(self, input_id: str, queue_size: int, *, lane: bool) -> layout.RingPlan:
        """Return a free ring that fits, the longest free first, and reset its counters.

        Indexes continue: a producer that still waits for one of its messages in this ring must find
        it received.
        """
        need = layout.capacity_for(queue_size)
        for old in self._free:
            if need <= old.capacity <= 4 * need and (old.lane or not lane):
                break
        else:
            raise NoRoomError(
                f"node {self.node.id!r} has no room for one more queue of {queue_size} messages "
                f"(input {input_id!r}); restart it, or use a shorter queue"
            )
        self._free.remove(old)
        words = self._words
        head = words[old.base + layout.RING_HEAD]
        lane_head = words[old.base + layout.RING_LANE_HEAD]
        words[old.base + layout.RING_TAIL] = head
        words[old.base + layout.RING_LANE_TAIL] = lane_head
        words[old.base + layout.RING_RECEIVED] = head + lane_head & WORD_MASK
        for word in (
            layout.RING_BYTES,
            layout.RING_LAST,
            layout.RING_WAITING,
            layout.RING_REFUSED,
            layout.RING_LATENCY_SUM,
            layout.RING_LATENCY_DIFF,
            layout.RING_LATE_MAX,
            layout.RING_MISSED,
            layout.RING_NUMBERING,
            layout.RING_NUMBER_OFFSET,
            layout.RING_NUMBER_BEGIN,
            *range(layout.RING_BUCKETS, layout.RING_BUCKETS + layout.BUCKETS),
        ):
            words[old.base + word] = 0
        return old._replace(queue_size=queue_size)

    def recycle(self, name: str) -> None:
        """Free a ring into which no process pushes, and from which none receives."""
        self._free.append(self.rings.pop(name).plan)

    def attach(self) -> None:
        """Reset the mailbox for a process that connects: it has read no packets and is awake."""
        self.vacate()
        words = self._words
        words[layout.BOX_ASLEEP] = 0
        words[layout.BOX_BUSY] = 0
        self._set_state(layout.STATE_ATTACHED)

    def vacate(self) -> None:
        """Reset the counts of packets, which are those of one process, before another one comes."""
        self._words[layout.BOX_MAIL] = 0
        self._words[layout.BOX_SEEN] = 0

    def detach(self) -> None:
        """Mark all rings as unread for now: full rings drop messages, producers do not wait."""
        self._set_state(layout.STATE_DETACHED)

    def discard_queued(self) -> None:
        """Count queued messages as dropped: their samples may have been reused."""
        for ring in self.rings.values():
            base = ring.plan.base
            self._words[base + layout.RING_TAIL] = self._words[base + layout.RING_HEAD]
            self._words[base + layout.RING_LANE_TAIL] = self._words[base + layout.RING_LANE_HEAD]

    def close_rings(self) -> None:
        """Mark all rings as closed: no process will read them again."""
        self._set_state(layout.STATE_CLOSED)

    def close_rings_of(self, operator: str) -> None:
        """Mark the rings of an ended operator as closed; others of its node continue."""
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
        """Release the samples that an ended process held in `slots`; None stands for all slots.

        Must not be called while the process runs.
        """
        if slots is None:
            self._words[layout.BOX_ASLEEP] = 0
        for slot in self.hazards() if slots is None else slots:
            self._words[slot] = 0

    @property
    def asleep(self) -> bool:
        """Whether the node sleeps until a message or packet arrives."""
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
        """Publish how many packets were sent so far; the node reads it without a system call."""
        self._words[layout.BOX_MAIL] = count & WORD_MASK

    def step(self, time_ns: int, *, held: bool) -> None:
        """Set the logical time of a node that is stepped, and whether it must take no message.

        A time of 0 ends that. The caller wakes the node.
        """
        self._words[layout.BOX_STEP] = time_ns
        if not STRONG_ORDER:
            release()
        self._words[layout.BOX_HELD] = int(held)

    @property
    def due(self) -> int:
        """The time at which a stepped node goes on without a message; 0 is never."""
        return int(self._words[layout.BOX_DUE])

    def pushed(self) -> tuple[int, ...]:
        """Return how many messages were pushed into each ring and lane, ever."""
        bases = [ring.plan.base for ring in self.rings.values()]
        return tuple(
            self._words[base + word]
            for base in bases
            for word in (layout.RING_HEAD, layout.RING_LANE_HEAD)
        )

    def backlog(self, name: str) -> int:
        """Return how many messages were pushed into a ring since the last that was taken.

        More than its queue size if newer messages have displaced some.
        """
        words, base = self._words, self.rings[name].plan.base
        waiting = words[base + layout.RING_HEAD] - words[base + layout.RING_TAIL]
        lane = words[base + layout.RING_LANE_HEAD] - words[base + layout.RING_LANE_TAIL]
        return int(waiting + lane)

    def has_waiter(self, name: str) -> bool:
        """Return True if the sender of a ring waits for room."""
        return bool(self._words[self.rings[name].plan.base + layout.RING_WAITING])

    def counters(self, name: str) -> Counters:
        """Return the counters of the edge that ends at a ring.

        Raises:
            KeyError: there is no such ring.
        """
        ring = self.rings[name]
        values = counters(self._words, ring.plan.base)
        return values._replace(sent=values.sent - ring.first, received=values.received - ring.first)

    def latencies(self, name: str) -> latencies.Buckets:
        """Return the latencies of the edge that ends at a ring, counted by size.

        Raises:
            KeyError: there is no such ring.
        """
        return latencies.buckets(self._words, self.rings[name].plan.base)

    @property
    def unread_hops(self) -> int:
        """How many records the node has written since the last `read_hops`."""
        return self._words[layout.BOX_HOPS] - self.hops.next & WORD_MASK

    def read_hops(self) -> list[hoplog.HopFields]:
        """Return what the node has recorded since the last call; `hops` counts what was lost."""
        records, self.hops = hoplog.read(self._words, self.hops)
        self._words[layout.BOX_HOPS_READ] = self.hops.next
        return records

    def skip_hops(self) -> int:
        """Pass over what the node has recorded since the last call; return how many records."""
        head = self._words[layout.BOX_HOPS]
        skipped = min(head - self.hops.next & WORD_MASK, layout.COUNT_LIMIT)
        self.hops = self.hops._replace(next=head, seen=head)
        self._words[layout.BOX_HOPS_READ] = head
        return skipped

    def lateness(self) -> Iterator[Lateness]:
        """Yield how late the node is with each of its timers."""
        words = self._words
        for ring in self.rings.values():
            if ring.interval_ns is not None and not ring.retiring:
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
        """Return True if an idle node takes queued messages of this ring at once."""
        return not ring.interval_ns and not self.node.may_skip(ring.input)

    def outlet(self, name: str) -> Outlet:
        """Return the outlet of a ring, for the daemon as producer; see `BrokerState.wake`."""
        ring = self.rings[name]
        for word in (layout.RING_HEAD, layout.RING_BYTES):
            if self._words[ring.plan.base + word] > _MAX_COUNT:
                self._words[ring.plan.base + word] = 0
        kind = LatchedOutlet if ring.latched else Outlet
        return kind(Peer(self._mapping, _NO_BELL), ring.plan, blocking=False)

    def close(self) -> None:
        """Close the descriptors; the memory is freed with the last process that maps it."""
        close_all((self.memory, self.bell, self.space))

"""Rings: order, drops, counters, lapping."""

from __future__ import annotations

import select
from collections import deque

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from dorad.shm import layout
from dorad.shm.counters import add_lost
from dorad.shm.inlet import UnreadableError
from tests.shm.edge import content, edge


def test_messages_arrive_in_the_order_they_were_sent() -> None:
    with edge() as e:
        for n in range(5):
            e.push(b"%d" % n)
        assert [e.take() for _ in range(6)] == [b"0", b"1", b"2", b"3", b"4", None]


def test_metadata_and_payload_are_kept_apart() -> None:
    with edge() as e:
        e.push(b"payload", b"metadata", stamp=42)
        taken = e.inlet.take()
        assert taken is not None
        assert (taken[0], content(taken), taken[-1]) == (42, b"payload", b"metadata")


@pytest.mark.parametrize("queue_size", [1, 2, 10, 100])
def test_a_full_queue_keeps_the_newest_and_counts_the_rest(queue_size: int) -> None:
    with edge(queue_size) as e:
        for n in range(250):
            e.push(b"%d" % n)
        received = []
        while (payload := e.take()) is not None:
            received.append(int(payload))
        assert received == list(range(250 - queue_size, 250))
        assert e.counters.dropped == 250 - queue_size
        assert e.counters.received == queue_size


def test_drops_are_counted_before_the_consumer_takes_anything() -> None:
    with edge(3) as e:
        for _ in range(10):
            e.push(b"x")
        assert (e.counters.sent, e.counters.dropped, e.counters.queued) == (10, 7, 3)


def test_messages_lost_before_the_producer_are_a_count_of_their_own() -> None:
    with edge() as e:
        e.push(b"x")
        for number in (2, 1):
            add_lost(e.box.words, e.ring.base, number)
        assert (e.counters.sent, e.counters.lost, e.counters.dropped) == (1, 3, 0)
        # The link to another machine counts by numbers of its own.
        e.box.words[e.ring.base + layout.RING_NUMBERING] = 7
        add_lost(e.box.words, e.ring.base, 1)
        assert e.counters.lost == 3


def test_a_restarted_consumer_continues_where_the_last_one_stopped() -> None:
    with edge() as e:
        for n in range(4):
            e.push(b"%d" % n)
        assert e.take() == b"0"
        e.inlet = e.new_inlet()
        assert e.take() == b"1"


def test_a_restarted_producer_continues_where_the_last_one_stopped() -> None:
    with edge() as e:
        e.push(b"a")
        e.outlet = e.new_outlet()
        e.push(b"b")
        assert [e.take(), e.take()] == [b"a", b"b"]
        assert e.counters.payload_bytes == 2


def test_an_unfinished_entry_is_never_read() -> None:
    """A producer killed before it moved HEAD leaves no trace."""
    with edge() as e:
        at = e.ring.entries
        e.box.memory[at : at + 8] = b"garbage!"
        assert e.take() is None
        e.push(b"whole")
        assert e.take() == b"whole"


def test_a_frozen_inlet_returns_queued_messages_and_no_later_ones() -> None:
    with edge() as e:
        e.push(b"before")
        e.inlet.freeze()
        e.push(b"after")
        assert [e.take(), e.take()] == [b"before", None]


def test_discarded_messages_are_counted_as_dropped() -> None:
    with edge() as e:
        e.push(b"old")
        e.inlet.discard()
        e.push(b"new")
        assert e.take() == b"new"
        assert (e.counters.received, e.counters.dropped) == (1, 1)


def test_a_full_ring_without_a_consumer_does_not_count_as_full() -> None:
    with edge(2, blocking=True) as e:
        e.push(b"1")
        e.push(b"2")
        assert e.outlet.full()
        e.box.words[e.ring.base + layout.RING_STATE] = layout.STATE_DETACHED
        assert not e.outlet.full()


def test_taking_rings_the_space_bell_only_if_a_producer_waits() -> None:
    with edge(1, blocking=True) as e:
        e.push(b"1")
        e.take()
        assert select.select([e.space], [], [], 0)[0] == []
        e.push(b"2")
        e.outlet.announce_waiting(True)
        e.take()
        assert select.select([e.space], [], [], 0)[0] == [e.space]


def test_a_segment_that_was_never_shared_is_an_error_not_a_wrong_payload() -> None:
    with edge() as e:
        e.push_sample(b"x" * 1000)
        e.segments.clear()
        with pytest.raises(UnreadableError, match="segment 1, which was never shared"):
            e.take()


def test_a_borrowed_sample_is_released_when_the_last_reference_dies() -> None:
    with edge() as e:
        sample = e.push_sample(b"x" * 1000)
        taken = e.inlet.take()
        assert sample.reachable()
        del taken
        assert not sample.reachable()


def test_a_receiver_that_holds_more_than_there_are_slots_gets_copies() -> None:
    with edge(100) as e:
        for n in range(layout.HAZARDS + 5):
            e.push_sample(b"%5d" % n * 200)
        held = [e.inlet.take() for _ in range(layout.HAZARDS + 5)]
        copies = [taken for taken in held if taken is not None and taken[5] is not None]
        assert len(copies) == 5
        assert [content(t) for t in held if t] == [b"%5d" % n * 200 for n in range(len(held))]


def test_slots_of_an_earlier_process_are_reused_once_cleared() -> None:
    with edge(100) as e:
        slots = range(e.ring.base + layout.RING_HAZARDS, e.ring.base + layout.RING_HAZARDS + 30)
        for slot in slots:
            e.box.words[slot] = 1
        e.inlet = e.new_inlet()

        def borrowed() -> bool:
            e.push_sample(b"x" * 1000)
            taken = e.inlet.take()
            assert taken is not None
            held.append(taken)
            return taken[6] is not None

        held: list[object] = []
        assert [borrowed() for _ in range(4)] == [True, True, False, False]
        for slot in slots:
            e.box.words[slot] = 0
        assert [borrowed() for _ in range(31)] == [True] * 30 + [False]


@given(st.lists(st.integers(1, 100_000), min_size=1, max_size=5))
def test_rings_never_overlap(sizes: list[int]) -> None:
    plan = layout.plan(sizes)
    end = layout.BOX_WORDS * layout.WORD
    for ring, size in zip(plan.rings, sizes, strict=True):
        assert ring.base * layout.WORD == end
        assert ring.entries == end + layout.RING_WORDS * layout.WORD
        assert ring.capacity > size
        assert ring.capacity & (ring.capacity - 1) == 0
        assert ring.end == ring.entries + ring.capacity * layout.ENTRY_SIZE
        end = ring.end
    assert plan.size >= end
    assert plan.size % 4096 == 0


class DropOldest(RuleBasedStateMachine):
    """The ring against a deque of `queue_size`, with both sides restarting at will."""

    @initialize(queue_size=st.integers(1, 20))
    def start(self, queue_size: int) -> None:
        self.context = edge(queue_size)
        self.edge = self.context.__enter__()
        self.queue: deque[bytes] = deque(maxlen=queue_size)
        self.sent = self.received = 0
        self.held: list[tuple[bytes, object]] = []

    @rule(payload=st.binary(max_size=100))
    def push(self, payload: bytes) -> None:
        self.edge.push(payload)
        self.queue.append(payload)
        self.sent += 1

    @rule(size=st.integers(193, 3000), letter=st.integers(0, 255))
    def push_sample(self, size: int, letter: int) -> None:
        payload = bytes([letter]) * size
        self.edge.push_sample(payload)
        self.queue.append(payload)
        self.sent += 1

    @rule()
    def take(self) -> None:
        expected = self.queue.popleft() if self.queue else None
        assert self.edge.take() == expected
        self.received += expected is not None

    @rule()
    def take_and_hold(self) -> None:
        taken = self.edge.inlet.take()
        if taken is None:
            assert not self.queue
            return
        self.held.append((self.queue.popleft(), taken))
        self.received += 1

    @rule()
    def release(self) -> None:
        self.held.clear()

    @rule()
    def restart_consumer(self) -> None:
        self.edge.inlet = self.edge.new_inlet()

    @rule()
    def restart_producer(self) -> None:
        self.edge.outlet = self.edge.new_outlet()

    @invariant()
    def counters_are_exact(self) -> None:
        if not hasattr(self, "edge"):
            return
        seen = self.edge.counters
        assert seen.sent == self.sent
        assert seen.received == self.received
        assert seen.queued == len(self.queue)
        assert seen.sent == seen.received + seen.dropped + seen.queued

    @invariant()
    def held_arrays_stay_unchanged(self) -> None:
        for expected, taken in getattr(self, "held", ()):
            assert content(taken) == expected

    def teardown(self) -> None:
        if hasattr(self, "edge"):
            self.held.clear()
            self.context.__exit__(None, None, None)


TestDropOldest = pytest.mark.long(DropOldest.TestCase)


def test_a_consumer_killed_while_it_takes_has_dropped_that_message() -> None:
    with edge() as e:
        e.push(b"lost with the consumer")
        e.push(b"next")
        # What is left by a consumer killed between its two stores.
        e.box.words[e.ring.base + layout.RING_TAIL] = 1
        e.inlet = e.new_inlet()
        assert e.take() == b"next"
        assert (e.counters.sent, e.counters.received, e.counters.dropped) == (2, 1, 1)

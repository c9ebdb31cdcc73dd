"""Latched edges: the newest message can be received again, and its sample is not reused."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from dorad.shm import layout
from dorad.shm.latch import LatchedInlet, LatchedOutlet
from dorad.shm.picking import PickingInlet
from tests.shm.edge import Edge, content, edge

_SIZE = 1000


def latch(e: Edge) -> Edge:
    """Make an edge latched, as the daemon does."""
    e.box.words[e.ring.base + layout.RING_LATCHED] = 1
    renew(e)
    e.outlet = LatchedOutlet(e.peer, e.ring, blocking=e.blocking)
    return e


def renew(e: Edge) -> None:
    """Replace the consumer."""
    e.inlet = LatchedInlet(e.box, e.ring, e.segments, e.space if e.blocking else None)


def test_a_new_consumer_begins_with_the_last_message_its_predecessor_took() -> None:
    with edge() as e:
        latch(e)
        e.push(b"1", b"about", stamp=7)
        e.push(b"2", b"more", stamp=8)
        assert [e.take(), e.take(), e.take()] == [b"1", b"2", None]
        renew(e)
        assert e.inlet.ready()
        taken = e.inlet.take()
        assert taken is not None
        assert (taken[0], content(taken), taken[-1]) == (8, b"2", b"more")
        assert not e.inlet.ready()
        assert e.take() is None
        assert (e.counters.sent, e.counters.received, e.counters.dropped) == (2, 2, 0)


def test_a_queued_message_is_delivered_once() -> None:
    with edge() as e:
        latch(e)
        e.push(b"1")
        e.take()
        e.push(b"2")
        renew(e)
        assert [e.take(), e.take()] == [b"2", None]


def test_a_message_sent_before_the_first_take_replaces_the_latched_one() -> None:
    with edge() as e:
        latch(e)
        e.push(b"1")
        e.take()
        renew(e)
        e.push(b"2")
        assert [e.take(), e.take()] == [b"2", None]


def test_a_consumer_that_discards_keeps_the_newest() -> None:
    with edge() as e:
        latch(e)
        for payload in (b"1", b"2", b"3"):
            e.push(payload)
        e.inlet.discard()
        assert [e.take(), e.take()] == [b"3", None]
        assert (e.counters.received, e.counters.dropped) == (1, 2)


def test_an_edge_without_messages_has_no_latched_one() -> None:
    with edge() as e:
        latch(e)
        assert not e.inlet.ready()
        assert e.take() is None


def test_a_latched_message_does_not_count_in_the_latency() -> None:
    with edge() as e:
        latch(e)
        e.push(b"old", stamp=1)
        assert e.take() == b"old"
        assert e.counters.latency_sum == 0


def test_the_newest_sample_is_kept_until_there_is_a_newer_one() -> None:
    with edge() as e:
        latch(e)
        first = e.push_sample(b"1" * _SIZE)
        e.take()
        assert first.reachable()
        e.outlet.closed = True
        assert first.reachable(), "the next sender or consumer may still want it"
        e.outlet = LatchedOutlet(e.peer, e.ring, blocking=False)
        e.push_sample(b"2" * _SIZE)
        e.take()
        assert not first.reachable()


def test_the_sample_is_released_when_the_edge_is_removed() -> None:
    with edge() as e:
        latch(e)
        sample = e.push_sample(b"1" * _SIZE)
        e.take()
        e.box.words[e.ring.base + layout.RING_LATCHED] = 0
        assert not sample.reachable()


class Latched(RuleBasedStateMachine):
    """Ends restart at any point; every payload is intact, and the newest always arrives."""

    @initialize(queue_size=st.integers(1, 4))
    def begin(self, queue_size: int) -> None:
        self._context = edge(queue_size)
        self.edge = latch(self._context.__enter__())
        self.sent = 0
        self.seen = 0
        """The newest message that the present consumer has received."""

    @rule(count=st.integers(1, 6), large=st.booleans())
    def send(self, count: int, large: bool) -> None:
        for _ in range(count):
            self.sent += 1
            payload = b"%08d" % self.sent
            if large:
                self.edge.push_sample(payload * 100)
            else:
                self.edge.push(payload)

    @rule()
    def receive(self) -> None:
        payload = self.edge.take()
        if payload is None:
            assert self.seen == self.sent
            return
        number = int(payload[:8])
        assert payload == payload[:8] * (len(payload) // 8)
        assert self.seen < number <= self.sent
        self.seen = number

    @rule()
    def restart_consumer(self) -> None:
        renew(self.edge)
        self.seen = 0

    @rule()
    def restart_producer(self) -> None:
        old = self.edge.outlet
        self.edge.outlet = LatchedOutlet(self.edge.peer, self.edge.ring, blocking=False)
        old.closed = True

    @invariant()
    def the_counters_add_up(self) -> None:
        seen = self.edge.counters
        assert seen.sent == self.sent == seen.received + seen.dropped + seen.queued

    def teardown(self) -> None:
        self._context.__exit__(None, None, None)


TestLatched = Latched.TestCase
TestLatched.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)


# -- choosing ----------------------------------------------------------------------------------


def test_messages_can_be_inspected_and_skipped() -> None:
    with edge(3) as e:
        inlet = PickingInlet(e.box, e.ring, e.segments, None)
        for number in range(5):
            e.push(b"%d" % number, stamp=10 + number)
        assert inlet.stamps(10) == (2, [12, 13, 14])
        assert inlet.stamps(2) == (2, [12, 13])
        assert e.counters.queued == 3, "a look has changed something"
        inlet.skip_to(3)
        taken = inlet.take()
        assert taken is not None
        assert taken[0] == 13
        inlet.count_dropped()
        assert e.counters[:4] == (5, 0, 4, 1)
        inlet.freeze()
        e.push(b"5", stamp=15)
        assert inlet.stamps(10) == (4, [14])
        inlet.keep_newest()
        taken = inlet.take()
        assert taken is not None
        assert taken[0] == 14
        assert inlet.take() is None

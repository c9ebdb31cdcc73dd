"""The lane of an edge against a plain list that follows the rules of a queue literally."""

from __future__ import annotations

import gc
import threading
import time
import weakref
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dorad.shm.layout import CORRELATED, FLUSH, HAZARDS
from tests.shm.edge import Edge, content, edge


@dataclass
class Message:
    number: int
    flags: int
    session: str


class Queue:
    """The rules for a queue of `size`, message by message: evict on arrival, flush at once."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.waiting: list[Message] = []
        self.dropped = 0
        self.sent = 0

    def push(self, message: Message) -> None:
        self.sent += 1
        if message.flags & FLUSH:
            kept = [
                m
                for m in self.waiting
                if m.flags & CORRELATED or (message.session and m.session != message.session)
            ]
            self.dropped += len(self.waiting) - len(kept)
            self.waiting = kept
        self.waiting.append(message)
        if len(self.waiting) > self.size:
            ordinary = [m for m in self.waiting if not m.flags]
            self.waiting.remove(ordinary[0] if ordinary else self.waiting[0])
            self.dropped += 1


def push(e: Edge, message: Message) -> None:
    e.push(b"%d" % message.number, message.session.encode(), flags=message.flags)


def watch(e: Edge) -> list[int]:
    """Let a consumer read sessions; return the list of losses that it reports."""
    lost: list[int] = []
    e.inlet.session_of = bytes.decode
    e.inlet.on_lost = lost.append
    return lost


def drain(e: Edge) -> list[int]:
    received = []
    while (payload := e.take()) is not None:
        received.append(int(payload))
    return received


def drain_all(e: Edge) -> int:
    count = 0
    while e.take() is not None:
        count += 1
    return count


@given(
    size=st.integers(1, 5),
    steps=st.lists(st.sampled_from(["ordinary", "correlated", "take", "restart", "kill"])),
)
def test_the_queue_equals_a_model_whatever_order_messages_come_in(
    size: int, steps: list[str]
) -> None:
    with edge(size, lane=True) as e:
        queue = Queue(size)
        for number, step in enumerate(steps):
            match step:
                case "take":
                    expected = queue.waiting.pop(0).number if queue.waiting else None
                    taken = e.take()
                    assert (None if taken is None else int(taken)) == expected
                case "restart":
                    e.inlet = e.new_inlet()
                case "kill":
                    e.outlet = e.new_outlet()
                case _:
                    message = Message(number, CORRELATED if step == "correlated" else 0, "")
                    queue.push(message)
                    push(e, message)
            counters = e.counters
            assert counters.queued == len(queue.waiting)
            assert counters.dropped == queue.dropped
            assert (
                counters.sent
                == queue.sent
                == counters.received + counters.dropped + len(queue.waiting)
            )
        assert drain(e) == [message.number for message in queue.waiting]


@given(
    steps=st.lists(
        st.tuples(
            st.sampled_from([0, CORRELATED, FLUSH, CORRELATED | FLUSH, -1]), st.sampled_from("ab")
        )
    )
)
def test_a_flush_drops_older_messages_of_its_own_session(steps: list[tuple[int, str]]) -> None:
    # A queue that is never full: until the consumer looks, what is void takes up its place.
    with edge(len(steps) + 1, lane=True) as e:
        watch(e)
        queue = Queue(len(steps) + 1)
        for number, (flags, session) in enumerate(steps):
            if flags < 0:
                expected = queue.waiting.pop(0).number if queue.waiting else None
                assert e.inlet.ready() == (expected is not None)
                taken = e.take()
                assert (None if taken is None else int(taken)) == expected
                continue
            message = Message(number, flags, session)
            queue.push(message)
            push(e, message)
        assert drain(e) == [message.number for message in queue.waiting]
        counters = e.counters
        assert (counters.queued, counters.dropped) == (0, queue.dropped)
        assert counters.sent == counters.received + counters.dropped


def test_a_flush_without_a_session_drops_all_but_messages_of_calls_and_goals() -> None:
    with edge(lane=True) as e:
        watch(e)
        for number, (flags, session) in enumerate(
            [(0, "a"), (0, ""), (CORRELATED, "a"), (FLUSH, "")]
        ):
            push(e, Message(number, flags, session))
        assert drain(e) == [2, 3]


def test_dropped_messages_of_calls_and_goals_are_reported() -> None:
    with edge(3, lane=True) as e:
        lost = watch(e)
        for number in range(5):
            push(e, Message(number, CORRELATED, ""))
        assert (drain(e), sum(lost)) == ([2, 3, 4], 2)


def test_a_long_burst_of_ordinary_messages_displaces_no_request() -> None:
    with edge(2, lane=True) as e:
        push(e, Message(0, CORRELATED, ""))
        for number in range(1, 1000):
            push(e, Message(number, 0, ""))
        assert drain(e) == [0, 999]
        assert (e.counters.dropped, e.counters.received) == (998, 2)


def test_a_sample_in_the_lane_is_kept_while_its_entry_may_be_read() -> None:
    with edge(2, lane=True) as e:
        request = b"r" * 1000
        first = e.push_sample(request, flags=CORRELATED)
        for _ in range(100):
            e.push_sample(b"x" * 1000)
        assert first.reachable()
        taken = e.inlet.take()
        assert taken is not None
        assert content(taken) == request
        assert first.reachable()
        del taken
        assert not first.reachable()
        assert drain_all(e) == 1
        held = []
        for _ in range(HAZARDS + 3):
            e.push_sample(request, flags=CORRELATED)
            held.append(e.inlet.take())
        assert all(item is not None and content(item) == request for item in held)


def test_after_a_stop_both_rings_give_only_queued_messages() -> None:
    with edge(lane=True) as e:
        for number, flags in enumerate([0, CORRELATED, 0]):
            push(e, Message(number, flags, ""))
        e.inlet.freeze()
        for number, flags in enumerate([CORRELATED, 0], start=3):
            push(e, Message(number, flags, ""))
        assert drain(e) == [0, 1, 2]
        assert not e.inlet.ready()


def test_a_consumer_may_discard_its_queue() -> None:
    with edge(lane=True) as e:
        for number, flags in enumerate([0, CORRELATED, 0]):
            push(e, Message(number, flags, ""))
        e.inlet.discard()
        assert drain(e) == []
        assert e.counters.dropped == 3


def test_room_is_counted_over_both_rings() -> None:
    with edge(3, blocking=True, lane=True) as e:
        lane = e.outlet.lane
        assert lane is not None
        for number, flags in enumerate([0, CORRELATED]):
            assert not e.outlet.full()
            push(e, Message(number, flags, ""))
        assert not lane.full()
        push(e, Message(2, 0, ""))
        assert e.outlet.full()
        assert lane.full()
        assert e.take() == b"0"
        assert not e.outlet.full()


@pytest.mark.parametrize("queue_size", [1, 4, 50])
def test_order_and_counts_hold_while_both_ends_run(queue_size: int) -> None:
    total = 6_000
    with edge(queue_size, lane=True) as e:
        lost = watch(e)
        ended = threading.Event()

        def produce() -> None:
            for number in range(total):
                push(e, Message(number, CORRELATED if number % 7 == 0 else 0, ""))
                if number % 50 == 0:
                    time.sleep(0)
            ended.set()

        thread = threading.Thread(target=produce)
        thread.start()
        received = []
        while True:
            over = ended.is_set()
            payload = e.take()
            if payload is not None:
                received.append(int(payload))
            elif over:
                break
        thread.join()
        assert received == sorted(set(received))
        correlated = sum(number % 7 == 0 for number in received)
        assert correlated + sum(lost) == len(range(0, total, 7))
        counters = e.counters
        assert (counters.sent, counters.received, counters.queued) == (total, len(received), 0)
        assert counters.dropped == total - len(received)


def test_an_outlet_and_its_lane_are_freed_with_the_last_reference() -> None:
    with edge(3, lane=True) as e:
        push(e, Message(0, CORRELATED, ""))
        ring, lane = weakref.ref(e.outlet), weakref.ref(e.outlet.lane)
        gc.disable()
        try:
            del e.outlet
            assert (ring(), lane()) == (None, None)
        finally:
            gc.enable()

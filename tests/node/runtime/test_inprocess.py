"""The queue between two operators of one process, and its counters in the mailbox."""

import threading
from array import array
from collections import deque

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dorad.node.clock import Clock
from dorad.node.runtime.inprocess import InProcessInput, Message
from dorad.shm import layout
from dorad.shm.counters import counters

PLAN = layout.RingPlan(base=0, entries=0, capacity=16, queue_size=3)


def queue(words: memoryview | None = None) -> tuple[InProcessInput, memoryview]:
    if words is None:
        words = memoryview(array("Q", bytes(8 * layout.RING_WORDS)))
        words[layout.RING_QUEUE_SIZE] = PLAN.queue_size
    return InProcessInput("in", words, PLAN, Clock(), lambda: None), words


def put(item: InProcessInput, value: object, **metadata: object) -> None:
    item.put(Message.of(1, value, 8, metadata))


def taken(item: InProcessInput) -> list[object]:
    found = []
    while (event := item.take()) is not None:
        found.append(event["value"])
    return found


def test_the_array_itself_arrives_with_its_metadata() -> None:
    item, _ = queue()
    value = pa.array([1, 2])
    item.put(Message.of(2_000_000_000, value, value.nbytes, {"a": 1}))
    event = item.take()
    assert event is not None
    assert event["value"] is value
    assert event["metadata"]["a"] == 1
    assert event["metadata"]["timestamp"].timestamp() == 2.0
    assert {key: event[key] for key in ("kind", "type", "id")} == {
        "kind": "dora",
        "type": "INPUT",
        "id": "in",
    }


def test_a_full_queue_drops_the_oldest_and_counts_it() -> None:
    item, words = queue()
    for value in range(5):
        put(item, value)
    seen = counters(words, 0)
    assert (seen.sent, seen.received, seen.dropped, seen.queued) == (5, 0, 2, 3)
    assert taken(item) == [2, 3, 4]
    assert seen.payload_bytes == 40


@given(st.lists(st.sampled_from(["put", "take"]), max_size=40))
def test_the_queue_equals_a_model_that_keeps_the_newest(steps: list[str]) -> None:
    item, words = queue()
    model: deque[int] = deque(maxlen=PLAN.queue_size)
    for number, step in enumerate(steps):
        if step == "put":
            put(item, number)
            model.append(number)
        else:
            event = item.take()
            assert (event and event["value"]) == (model.popleft() if model else None)
        seen = counters(words, 0)
        assert seen.sent == seen.received + seen.dropped + seen.queued
        assert seen.queued == len(model)
        assert item.ready() is bool(model)


def test_after_a_stop_only_queued_messages_are_received() -> None:
    item, _ = queue()
    put(item, "before")
    item.stop()
    put(item, "after")
    assert taken(item) == ["before"]
    assert not item.ready()


def test_queued_messages_of_a_dead_process_count_as_dropped() -> None:
    item, words = queue()
    put(item, 1)
    again, _ = queue(words)
    assert taken(again) == []
    assert counters(words, 0).dropped == 1


def test_a_sender_with_backpressure_waits_for_room() -> None:
    item, words = queue()
    done = threading.Event()

    def send() -> None:
        for value in range(10):
            item.put_blocking(Message.of(1, value, 8, None), may_wait=lambda: True)
        done.set()

    threading.Thread(target=send, daemon=True).start()
    found: list[object] = []
    while len(found) < 10:
        found += taken(item)
    assert done.wait(10)
    assert found == list(range(10))
    assert counters(words, 0).dropped == 0


@pytest.mark.parametrize("how", ["stopping", "closed"])
def test_a_sender_with_backpressure_does_not_wait_without_a_receiver(how: str) -> None:
    item, words = queue()
    for value in range(3):
        put(item, value)
    if how == "closed":
        item.close()
    item.put_blocking(Message.of(1, 3, 8, None), may_wait=lambda: False)
    seen = counters(words, 0)
    assert (seen.sent, seen.refused) == (3, 0 if how == "closed" else 1)


def test_an_operator_that_has_ended_accepts_no_messages() -> None:
    item, words = queue()
    put(item, 1)
    item.close()
    put(item, 2)
    assert taken(item) == []
    seen = counters(words, 0)
    assert (seen.sent, seen.dropped, seen.queued) == (1, 1, 0)


def test_a_request_is_not_displaced_by_ordinary_messages() -> None:
    item, words = queue()
    put(item, "request", request_id="r")
    for value in range(5):
        put(item, value)
    assert taken(item) == ["request", 3, 4]
    for value in range(5):
        put(item, value, goal_id="g")
    put(item, "ordinary")
    assert taken(item) == [2, 3, 4]
    seen = counters(words, 0)
    assert (seen.sent, seen.received, seen.dropped, seen.queued) == (12, 6, 6, 0)


def test_a_flush_voids_its_own_session() -> None:
    item, words = queue()
    put(item, "a", session_id="one")
    put(item, "b", session_id="two")
    put(item, "now", session_id="one", flush=True)
    assert taken(item) == ["b", "now"]
    put(item, "c", session_id="one")
    put(item, "kept", request_id="r")
    put(item, "all", flush=True)
    assert taken(item) == ["kept", "all"]
    assert counters(words, 0).dropped == 2

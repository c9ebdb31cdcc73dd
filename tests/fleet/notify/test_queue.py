"""Notifications that wait: order, pauses, their end, and what is counted."""

from __future__ import annotations

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from dorafleet.notify.queue import (
    MAX_AGE_S,
    MAX_PAUSE_S,
    MAX_WAITING,
    DeliveryQueue,
    Receiver,
    Waiting,
)

from .receivers import NOTIFICATION

T = 1_000_000_000.0


def notification(number, at=T):
    return msgspec.structs.replace(NOTIFICATION, id=str(number), at=at)


def test_pauses_grow_up_to_a_bound_and_a_success_ends_them():
    queue = DeliveryQueue(["webhook"])
    queue.add(notification(0), T)
    clock, pauses = 0.0, []
    for _ in range(15):
        due = queue.due("webhook", T, clock)
        assert due is not None
        queue.failed("webhook", due, "500", T, clock)
        before = clock
        while queue.due("webhook", T, clock) is None:
            clock += 1.0
        pauses.append(clock - before)
    assert pauses[:5] == [1, 2, 4, 8, 16]
    assert pauses[-1] == MAX_PAUSE_S
    assert (queue.receivers["webhook"].failing_since, queue.receivers["webhook"].error) == (
        T,
        "500",
    )
    queue.delivered("webhook", queue.due("webhook", T, clock), T)
    assert queue.receivers["webhook"] == Receiver(delivered_at=T)
    queue.add(notification(1), T)
    assert queue.due("webhook", T, clock).id == "1"


def test_a_pause_that_the_server_asks_for_is_kept_within_the_bound():
    queue = DeliveryQueue(["webhook"])
    queue.add(notification(0), T)
    due = queue.due("webhook", T, 0.0)
    queue.failed("webhook", due, "429", T, 0.0, pause=60.0)
    assert queue.due("webhook", T, 59.0) is None
    queue.failed("webhook", queue.due("webhook", T, 61.0), "429", T, 61.0, pause=99999.0)
    assert queue.due("webhook", T, 61.0 + MAX_PAUSE_S) is not None


def test_one_that_is_a_day_old_is_given_up_and_the_next_one_says_so():
    queue = DeliveryQueue(["webhook", "mail"])
    queue.add(notification(0, T), T)
    queue.add(notification(1, T + 10), T)
    later = T + MAX_AGE_S + 1
    due = queue.due("webhook", later, 0.0)
    assert (due.id, due.dropped) == ("1", 1)
    assert "within 24 hours" in queue.receivers["webhook"].why
    queue.delivered("webhook", due, later)
    queue.add(notification(2, later), later)
    assert queue.due("webhook", later, 0.0).dropped == 0
    assert queue.receivers["webhook"].dropped == 1


def test_one_that_is_refused_does_not_hold_up_the_next_one():
    queue = DeliveryQueue(["webhook"])
    queue.add(notification(0), T)
    queue.add(notification(1), T)
    queue.failed("webhook", queue.due("webhook", T, 0.0), "400", T, 0.0, refused=True)
    due = queue.due("webhook", T, 10.0)
    assert (due.id, due.dropped) == ("1", 1)


def test_a_receiver_that_fails_does_not_hold_up_the_other_one():
    queue = DeliveryQueue(["webhook", "mail"])
    for number in range(3):
        queue.add(notification(number), T)
        queue.delivered("mail", queue.due("mail", T, 0.0), T)
    assert queue.of("mail") == []
    assert [each.id for each in queue.of("webhook")] == ["0", "1", "2"]


ACTS = st.lists(
    st.tuples(
        st.sampled_from(["add", "deliver", "fail", "refuse", "restart", "wait"]),
        st.sampled_from(["webhook", "mail"]),
    ),
    max_size=200,
)


@given(ACTS, st.integers(0, 2 * MAX_WAITING))
def test_each_notification_is_delivered_once_in_order_or_counted_as_dropped(acts, first):
    queue = DeliveryQueue(["webhook", "mail"])
    added, clock, now = 0, 0.0, T
    got = {"webhook": [], "mail": []}
    said = {"webhook": 0, "mail": 0}
    for act, name in [("add", "mail")] * first + acts:
        clock += 1.0
        now += 1.0
        due = queue.due(name, now, clock)
        if act == "add":
            queue.add(notification(added, now), now)
            added += 1
        elif act == "wait":
            clock += 1000.0
            now += 20_000.0
        elif act == "restart":
            stored = msgspec.json.encode((queue.receivers, list(queue.waiting.values())))
            kind = tuple[dict[str, Receiver], list[Waiting]]
            receivers, waiting = msgspec.json.decode(stored, type=kind)
            queue = DeliveryQueue(["webhook", "mail"])
            assert queue.restore(receivers, waiting[::-1]) == 0
        elif due is not None and act == "deliver":
            got[name].append(int(due.id))
            said[name] += due.dropped
            queue.delivered(name, due, now)
        elif due is not None:
            queue.failed(name, due, "no", now, clock, refused=act == "refuse")
        for each in ("webhook", "mail"):
            assert len(queue.of(each)) <= MAX_WAITING
    for name, ids in got.items():
        assert ids == sorted(set(ids))
        receiver = queue.receivers[name]
        assert len(ids) + receiver.dropped + len(queue.of(name)) == added
        assert said[name] == receiver.told <= receiver.dropped


def test_what_waits_for_a_receiver_that_is_not_configured_any_more_is_counted():
    queue = DeliveryQueue(["webhook", "mail"])
    queue.add(notification(0), T)
    queue.add(notification(1), T)
    queue.delivered("webhook", queue.due("webhook", T, 0.0), T)
    after = DeliveryQueue(["webhook"])
    assert after.restore(queue.receivers, queue.waiting.values()) == 2
    assert [each.id for each in after.of("webhook")] == ["1"]
    assert list(after.waiting) == ["1"]

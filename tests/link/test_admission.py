"""Which connections of strangers and peers shake hands at a link's port, and which are closed."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dorad.link.admission import (
    COOLING_S,
    GREETING_S,
    HANDSHAKE_S,
    MAX_GREETING,
    MAX_WAITING,
    READY_S,
    UNDISTURBED_S,
    Admission,
    Refusal,
    greeting_size,
)
from dorad.link.gate import MAX_HOSTS, RECENT_S, REPORT_S, Refusals
from tests.link.strangers import client_hello

PLACES = 4


def shaking(admission: Admission, keys: range, host: str, now_s: float) -> None:
    """Let connections of a host be complete and get a place."""
    for key in keys:
        assert admission.arrive(key, host, now_s) is None
        admission.complete(key, now_s)
        assert admission.next(now_s) is not None


def test_a_connection_gets_a_place_only_with_its_whole_greeting() -> None:
    admission = Admission(PLACES)
    admission.arrive(1, "a", 0.0)
    assert admission.next(0.0) is None
    admission.complete(1, 0.1)
    assert admission.next(0.1) == (1, 0)
    assert admission.next(0.1) is None
    assert admission.shaking == [1]


def test_of_the_host_with_the_most_connections_the_oldest_is_closed_for_a_new_one() -> None:
    admission = Admission(PLACES)
    admission.arrive(0, "peer", 0.0)
    for key in range(1, MAX_WAITING):
        assert admission.arrive(key, "attacker", float(key)) is None
    assert admission.most_waiting() == 1
    assert admission.arrive(MAX_WAITING, "attacker", 1000.0) == 1
    admission.leave(1, 1000.0, failed=True)
    # The peer's connection is the oldest of all, and stays.
    assert admission.arrive(MAX_WAITING + 1, "other", 1001.0) == 2
    assert len(admission) == MAX_WAITING + 1


def test_those_that_have_a_place_do_not_count_as_waiting() -> None:
    admission = Admission(PLACES)
    shaking(admission, range(PLACES), "a", 0.0)
    for key in range(PLACES, PLACES + MAX_WAITING):
        assert admission.arrive(key, "b", 1.0) is None
    assert admission.arrive(1000, "b", 2.0) == PLACES
    assert Admission(PLACES).most_waiting() is None


def test_a_host_with_fewer_handshakes_comes_first_and_then_the_newest() -> None:
    admission = Admission(PLACES)
    shaking(admission, range(1), "attacker", 0.0)
    for key, host in ((1, "attacker"), (2, "peer"), (3, "attacker")):
        admission.arrive(key, host, 1.0 + key)
        admission.complete(key, 1.0 + key)
    assert [admission.next(5.0) for _ in range(3)] == [(2, 1), (3, 2), (1, 3)]


def test_a_place_is_used_again_at_once_after_success_and_cools_after_failure() -> None:
    admission = Admission(1)
    shaking(admission, range(1), "a", 0.0)
    for key in (1, 2):
        admission.arrive(key, "a", 0.0)
        admission.complete(key, 0.0)
    admission.leave(0, 1.0, failed=False)
    assert admission.next(1.0) == (2, 0)
    admission.leave(2, 2.0, failed=True)
    assert admission.next(2.0 + COOLING_S - 0.01) is None
    assert admission.next(2.0 + COOLING_S) == (1, 0)


def test_a_host_with_many_handshakes_gives_way_to_another_one_at_once() -> None:
    admission = Admission(PLACES)
    shaking(admission, range(PLACES), "attacker", 0.0)
    assert admission.displaced(0.0) is None, "no connection waits"
    admission.arrive(10, "peer", 0.1)
    assert admission.displaced(0.1) is None, "its greeting is not complete"
    admission.complete(10, 0.1)
    assert admission.displaced(0.1) == 0
    admission.leave(0, 0.1, failed=True)
    # One place is enough for one connection, although it still cools.
    assert admission.displaced(0.1) is None
    assert admission.next(0.1 + COOLING_S) == (10, 0)


def test_while_all_places_cool_nothing_gives_way() -> None:
    admission = Admission(1)
    shaking(admission, range(1), "attacker", 0.0)
    admission.leave(0, 0.1, failed=True)
    for key, host in ((1, "peer"), (2, "attacker")):
        admission.arrive(key, host, 0.1)
        admission.complete(key, 0.1)
    assert admission.displaced(0.1) is None
    assert admission.next(0.1 + COOLING_S) == (2, 0)


@pytest.mark.parametrize(
    ("attacker", "peer", "gives_way"),
    [(2, 0, True), (1, 0, False), (3, 1, True), (2, 1, False), (4, 2, True), (3, 2, False)],
)
def test_a_host_gives_way_at_once_to_one_that_has_two_handshakes_less(
    attacker: int, peer: int, gives_way: bool
) -> None:
    admission = Admission(attacker + peer)
    shaking(admission, range(attacker), "attacker", 0.0)
    shaking(admission, range(50, 50 + peer), "peer", 0.0)
    admission.arrive(99, "peer", 0.1)
    admission.complete(99, 0.1)
    assert (admission.displaced(0.1) is not None) is gives_way
    # Other connections of the same host change nothing.
    admission.arrive(98, "attacker", 0.1)
    admission.complete(98, 0.1)
    assert (admission.displaced(0.1) is not None) is gives_way


def test_handshakes_of_hosts_that_have_as_few_give_way_only_after_some_time() -> None:
    admission = Admission(2)
    shaking(admission, range(1), "a", 0.0)
    shaking(admission, range(1, 2), "b", 0.25)
    for key in (5, 6):
        admission.arrive(key, "c", 0.3)
        admission.complete(key, 0.3)
    assert admission.displaced(UNDISTURBED_S - 0.01) is None
    assert admission.displaced(UNDISTURBED_S) == 0
    admission.leave(0, UNDISTURBED_S, failed=True)
    assert admission.displaced(UNDISTURBED_S) is None
    assert admission.displaced(UNDISTURBED_S + 0.25) == 1


def test_each_step_has_its_own_time() -> None:
    admission = Admission(1)
    shaking(admission, range(1), "a", 10.0)
    admission.arrive(1, "a", 10.0)
    admission.arrive(2, "a", 10.0)
    admission.complete(2, 11.0)
    assert admission.overdue(11.0 + READY_S - 0.01) == []
    assert admission.overdue(11.0 + READY_S) == [(2, Refusal.CROWDED)]
    admission.leave(2, 12.0, failed=True)
    assert admission.overdue(10.0 + GREETING_S - 0.01) == []
    assert admission.overdue(10.0 + GREETING_S) == [(1, Refusal.SLOW)]
    admission.leave(1, 13.0, failed=True)
    assert admission.overdue(10.0 + HANDSHAKE_S - 0.01) == []
    assert admission.overdue(10.0 + HANDSHAKE_S) == [(0, Refusal.LATE)]


events = st.lists(
    st.tuples(
        st.sampled_from(["arrive", "complete", "next", "displace", "leave", "overdue"]),
        st.integers(0, 30),
        st.sampled_from("abc"),
        st.floats(0, 1),
    ),
    max_size=80,
)


@given(events)
def test_whatever_happens_places_and_connections_are_within_their_limits(
    what: list[tuple[str, int, str, float]],
) -> None:
    admission, now_s, key = Admission(PLACES), 0.0, 0
    alive: dict[int, str] = {}
    places: dict[int, int] = {}

    def leave(one: int, *, failed: bool) -> None:
        admission.leave(one, now_s, failed=failed)
        del alive[one]
        places.pop(one, None)

    for step, number, host, wait_s in what:
        now_s += wait_s
        waiting = [one for one in alive if one not in places]
        if step == "arrive":
            alive[key] = host
            assert admission.arrive(key, host, now_s) is None
            key += 1
        elif step == "complete" and waiting:
            admission.complete(waiting[number % len(waiting)], now_s)
        elif step == "next" and (given_place := admission.next(now_s)) is not None:
            one, place = given_place
            assert one in alive
            assert place not in places.values(), "a place was given twice"
            places[one] = place
        elif step == "displace" and (one := admission.displaced(now_s)) is not None:
            assert one in places
            leave(one, failed=True)
        elif step == "leave" and alive:
            leave(sorted(alive)[number % len(alive)], failed=number % 2 == 0)
        elif step == "overdue":
            for one, _ in admission.overdue(now_s):
                leave(one, failed=True)
        assert set(admission.shaking) == set(places)
        assert len(places) <= PLACES
        assert len(admission) == len(alive)


def test_a_greeting_is_known_by_its_beginning() -> None:
    hello = client_hello()
    assert {greeting_size(hello[:length]) for length in range(5)} == {5}
    assert {greeting_size(hello[:length]) for length in range(5, len(hello) + 1)} == {len(hello)}
    assert greeting_size(hello + b"more") == len(hello)


@pytest.mark.parametrize(
    "data",
    [
        b"G",
        b"\x16\x02",
        b"\x16\x03\x01\x00\x03",
        b"\x16\x03\x01\x40\x01",
        b"\x16\x03\x01\x00\x10\x02",
        b"\x16\x03\x01\x00\x10\x01\x00\x00\x0d",
        b"\x16\x03\x01\x00\x10\x01\x00\x00\x0b",
        b"\x15\x03\x01\x00\x02\x02\x28",
    ],
)
def test_what_is_no_greeting_is_known_as_early_as_possible(data: bytes) -> None:
    assert greeting_size(data) is None
    assert greeting_size(data[:-1]) is not None or data[:-1] == b"\x15\x03\x01\x00\x02\x02"


@given(st.binary(max_size=40))
def test_any_bytes_are_a_greeting_of_bounded_size_or_none(data: bytes) -> None:
    size = greeting_size(data)
    assert size is None or 5 <= size <= MAX_GREETING


def test_the_largest_and_the_smallest_record_are_greetings() -> None:
    assert greeting_size(b"\x16\x03\x01\x40\x00\x01\x00\x3f\xfc") == MAX_GREETING
    assert greeting_size(b"\x16\x03\x03\x00\x04\x01\x00\x00\x00") == 9


def test_refusals_are_reported_together_once_in_a_while_with_hosts_and_reasons() -> None:
    refusals = Refusals()
    assert refusals.report(100.0) == refusals.recent(100.0) == ""
    assert refusals.wait_s(100.0) is None
    refusals.add("10.0.0.5", Refusal.SLOW)
    first = refusals.report(100.0)
    assert first == (
        "connections of strangers that were closed: 1, from 10.0.0.5 "
        "(1 without a TLS greeting in time)"
    )
    for _ in range(3):
        refusals.add("10.0.0.6", Refusal.NOT_TLS)
    refusals.add("10.0.0.5", Refusal.SLOW)
    assert refusals.report(100.0 + REPORT_S - 0.1) == ""
    assert refusals.wait_s(100.0 + REPORT_S - 1) == pytest.approx(1)
    assert refusals.recent(101.0) == first
    second = refusals.report(100.0 + REPORT_S)
    assert second == (
        "connections of strangers that were closed: 4, from 10.0.0.6 and 1 more "
        "(3 without TLS, 1 without a TLS greeting in time)"
    )
    assert refusals.recent(110.0 + REPORT_S + RECENT_S - 1) == second
    assert refusals.recent(110.0 + REPORT_S + RECENT_S) == ""
    assert refusals.total == 5


def test_the_refusals_of_very_many_hosts_take_bounded_memory_and_are_all_counted() -> None:
    refusals = Refusals()
    for number in range(2 * MAX_HOSTS):
        refusals.add(f"host {number}", Refusal.SLOW)
    assert refusals.report(0.0).startswith(
        f"connections of strangers that were closed: {2 * MAX_HOSTS}, "
    )

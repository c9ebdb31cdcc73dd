"""The word for a robot that fails by turns while its release is changed."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate

from hypothesis import given
from hypothesis import strategies as st

from dorad.control import messages as m
from dorafleet.coordinator.rows import HELD_S, resumed, steady

WORDS = ("ok", "warn", "fail", "update", "busy", "unreach")
spans = st.floats(0.5, 1.5 * HELD_S)
short = st.floats(0.5, HELD_S / 2 - 0.5)
"""A failure and the time until the next one take less than it is held."""


def shown(words: Sequence[str], times: Sequence[float]) -> list[m.FleetRow]:
    """Return the rows to show of a robot that is in these states from these times on."""
    found: list[m.FleetRow] = []
    failure = None
    for word, at in zip(words, times, strict=True):
        row = m.FleetRow(robot="x", state=word, why=f"why {word}", since=at)
        row, failure = steady(row, found[-1] if found else None, failure, at)
        found.append(row)
    return found


@given(st.lists(st.tuples(st.sampled_from(WORDS), spans), max_size=30))
def test_only_an_update_after_a_failure_is_shown_as_one(steps: list[tuple[str, float]]) -> None:
    words = [word for word, _ in steps]
    times = [*accumulate(span for _, span in steps)]
    for at, row in enumerate(shown(words, times)):
        failed = [t for word, t in zip(words[:at], times, strict=False) if word == "fail"]
        if row.state != words[at]:
            assert (words[at], row.state) == ("update", "fail")
            assert times[at] - failed[-1] < HELD_S


@given(st.lists(short, min_size=1, max_size=30), st.sampled_from(["ok", "warn", "busy"]))
def test_a_crash_loop_during_a_change_is_one_word(gaps: list[float], end: str) -> None:
    words = ["update", *("fail" if at % 2 == 0 else "update" for at in range(len(gaps))), end]
    rows = shown(words, [*accumulate((0.0, *gaps, 1.0))])
    assert [row.state for row in rows] == ["update"] + ["fail"] * len(gaps) + [end]
    assert {row.since for row in rows[1:-1]} == {gaps[0]}


def test_what_holds_says_what_has_failed_and_what_goes_on() -> None:
    rows = shown(["update", "fail", "update", "update"], [0.0, 5.0, 9.0, 5.0 + HELD_S])
    assert rows[2].why == "why fail; why update"
    assert rows[3].state == "update", "it has run for long enough"


def test_a_robot_that_has_failed_before_its_change_is_updated_once_it_does_not_fail() -> None:
    assert [row.state for row in shown(["fail", "update"], [0.0, 1.0])] == ["fail", "update"]


def test_a_robot_is_well_since_the_last_coordinator_saw_it_so_or_since_it_says_so_itself() -> None:
    assert resumed(500.0, None, 1000.0) == 500.0
    assert resumed(500.0, ("ok", 700.0), 1000.0) == 700.0, "it was out of reach until then"
    assert resumed(900.0, ("ok", 700.0), 1000.0) == 900.0, "it has failed meanwhile"
    assert resumed(500.0, ("unreach", 700.0), 1000.0) == 1000.0
    assert resumed(900.0, ("fail", 700.0), 1000.0) == 900.0
    assert resumed(9e9, ("ok", 700.0), 1000.0) == 1000.0, "its clock is ahead"

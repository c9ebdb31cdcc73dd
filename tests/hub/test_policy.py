"""An asyncio node that polls is_empty(), and struct arrays built from slices of a message."""

import struct
from itertools import pairwise
from typing import Any

import pytest

from tests.harness.process import Outcome

from .conftest import Case
from .tap import Event, Tap

SECONDS = 10
STRUCT = "struct<new_position: float, other_arm_position: float>"

Halves = tuple[bytes, bytes]


@pytest.fixture(scope="module")
def outcome(run_case: Case) -> Outcome:
    return run_case("policy", "policy.yml", stop_after=SECONDS)


@pytest.fixture(scope="module")
def tap(outcome: Outcome) -> Tap:
    return Tap(outcome.folder)


def bits(values: list[float]) -> bytes:
    """Return the 32-bit patterns, so that equal means bit for bit."""
    return struct.pack(f"<{len(values)}f", *values)


def fields(event: Event) -> Halves:
    """Return the struct's two columns."""
    rows: list[dict[str, Any]] = event["head"]
    return (
        bits([row["new_position"] for row in rows]),
        bits([row["other_arm_position"] for row in rows]),
    )


def test_it_ends_with_0_so_the_polling_executor_saw_the_stop(outcome: Outcome) -> None:
    outcome.expect(0)


def test_actions_are_ten_lists_of_floats_with_an_interval(tap: Tap) -> None:
    actions = tap.inputs("actions")
    assert actions, "no actions at all"
    for event in actions:
        assert (event["arrow"], event["len"]) == ("list<item: float>", 10)
        assert event["meta"]["interval"] == 33333333


@pytest.mark.parametrize("arm", ["right", "left"])
def test_at_least_30_positions_of_each_arm_arrive(tap: Tap, arm: str) -> None:
    count = len(tap.inputs(arm))
    assert count >= 30, f"{count} of {arm} in {SECONDS} s"


@pytest.mark.parametrize("arm", ["right", "left"])
def test_positions_are_structs_of_two_columns(tap: Tap, arm: str) -> None:
    assert {(e["arrow"], e["len"]) for e in tap.inputs(arm)} == {(STRUCT, 8)}


@pytest.mark.parametrize("arm", ["right", "left"])
def test_positions_have_rising_integer_timestamps(tap: Tap, arm: str) -> None:
    times = [event["meta"]["timestamp"] for event in tap.inputs(arm)]
    assert all(isinstance(time, int) for time in times)
    assert all(earlier < later for earlier, later in pairwise(times))


def test_left_has_the_fields_of_right_swapped_bit_for_bit(tap: Tap) -> None:
    left = {event["meta"]["timestamp"]: fields(event) for event in tap.inputs("left")}
    right = tap.inputs("right")
    unpaired = [e for e in right if e["meta"]["timestamp"] not in left]
    # Right is sent first: the stop may come between the two.
    assert unpaired in ([], right[-1:]), f"no left for {len(unpaired)} of {len(right)} right"
    for event in right:
        if event not in unpaired:
            assert fields(event) == left[event["meta"]["timestamp"]][::-1]


def test_most_positions_are_rows_of_an_action_bit_for_bit(tap: Tap) -> None:
    rows = {
        (bits(row[:8]), bits(row[8:]))
        for event in tap.inputs("actions")
        for row in event["head"]
        if len(row) == 16
    }
    assert rows, "the actions have no rows of 16"
    right = tap.inputs("right")
    exact = [event for event in right if fields(event) in rows]
    assert len(exact) >= 0.7 * len(right), f"{len(exact)} of {len(right)} are rows"


def test_the_arm_reports_ready_once(tap: Tap) -> None:
    assert tap.values("status") == [["ready"]]


def test_each_position_after_ready_is_one_that_was_asked_for(tap: Tap) -> None:
    asked = {fields(event)[0] for event in tap.inputs("right")}
    ready = next(i for i, event in enumerate(tap.events) if event["id"] == "status")
    positions = [e for e in tap.events[ready:] if e["type"] == "INPUT" and e["id"] == "position"]
    assert positions, "no position after ready"
    for event in positions:
        assert bits(event["head"]) in asked

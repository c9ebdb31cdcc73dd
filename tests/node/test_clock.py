"""The node's time: never before a received message, bounded ahead."""

import json
import time
from datetime import UTC
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dorad.node import clock as module
from dorad.node.clock import MAX_AHEAD_NS, Clock, StampCounter, as_datetime
from dorad.shm.layout import BOX_STAMPS_REFUSED, BOX_WORDS

NOW = 1_800_000_000_000_000_000
STAMPS = st.integers(0, NOW + MAX_AHEAD_NS)


@given(st.lists(st.one_of(st.none(), STAMPS), min_size=1))
def test_a_timestamp_is_later_than_all_given_and_seen(seen: list[int | None]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_time_ns", lambda: NOW)
        clock = Clock()
        newest = 0
        for stamp in seen:
            if stamp is None:
                now = clock.now()
                assert now > newest
                newest = now
            else:
                clock.saw(stamp)
                newest = max(newest, stamp)
        assert clock.now() > newest


def test_a_timestamp_is_the_wall_clock_when_nothing_newer_was_seen() -> None:
    before = time.time_ns()
    assert before <= Clock().now() <= time.time_ns()


def test_an_old_timestamp_changes_nothing() -> None:
    clock = Clock()
    first = clock.now()
    clock.saw(first - 10**12)
    assert clock.last == first


@pytest.mark.parametrize("stamp", [2_626_000_000 * 10**9, (1 << 64) - 1])
def test_a_timestamp_far_ahead_does_not_move_the_clock(stamp: int) -> None:
    refused: list[int] = []
    clock = Clock(refused.append)
    clock.saw(stamp)
    assert refused == [stamp]
    assert clock.now() <= time.time_ns()


def test_a_clock_is_never_more_than_half_a_second_ahead() -> None:
    clock = Clock()
    for _ in range(1000):
        clock.saw(clock.now() + MAX_AHEAD_NS // 2)
    assert clock.now() <= time.time_ns() + MAX_AHEAD_NS + 1


def test_refused_timestamps_are_counted_and_the_first_is_reported(
    capsys: pytest.CaptureFixture[str],
) -> None:
    words: Any = [0] * BOX_WORDS
    clock = Clock(StampCounter("cam", words))
    for _ in range(3):
        clock.saw(2_626_000_000 * 10**9)
    assert words[BOX_STAMPS_REFUSED] == 3
    (line,) = capsys.readouterr().out.splitlines()
    record = json.loads(line)
    assert (record["level"], record["node_id"]) == ("warn", "cam")
    assert "2053-03-" in record["message"]


@given(st.integers(0, 4 * 10**18))
def test_a_datetime_is_utc_and_right_to_the_microsecond(stamp: int) -> None:
    moment = as_datetime(stamp)
    assert moment.tzinfo is UTC
    assert abs(moment.timestamp() - stamp / 1e9) < 2e-6

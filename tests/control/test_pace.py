"""How fast a client reads from one server: the token bucket."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dorad.control.pace import FRAME, WARN_S, WINDOW_S, Pace


class Clock:
    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now


def made(rate=1000, burst=10_000, weights=None):
    clock = Clock()
    return Pace("robot `arm1`", rate, burst, weights or {}, clock), clock


def test_what_is_within_the_burst_is_read_at_once_and_then_at_the_rate():
    pace, clock = made(burst=10 * FRAME)
    for _ in range(10):
        assert pace.pause() == 0
        pace.took("logs.read", 0)
    assert pace.pause() == 0
    pace.took("logs.read", 1000)
    seconds = pace.pause()
    assert seconds == pytest.approx((1000 + FRAME) / 1000)
    clock.now += seconds
    assert pace.pause() == pytest.approx(0)


def test_a_byte_of_a_heavy_method_counts_more():
    pace, _ = made(weights={"agent.watch": 16.0}, burst=FRAME)
    pace.took("agent.watch", 1000)
    assert pace.pause() == pytest.approx(16.0)


@given(st.lists(st.tuples(st.integers(0, 5000), st.floats(0, 20)), max_size=50))
def test_over_any_time_no_more_is_read_than_the_burst_the_rate_and_one_frame(frames):
    pace, clock = made()
    taken = largest = 0
    for size, gap in frames:
        clock.now += gap + pace.pause()
        pace.took("logs.read", size)
        taken += size + FRAME
        largest = max(largest, size + FRAME)
        assert taken <= 10_000 + 1000 * (clock.now - 100.0) + largest + 1e-3


def test_one_that_exceeds_its_rate_all_the_time_is_said_once_a_minute(caplog):
    pace, clock = made()
    while clock.now < 100 + 3 * WINDOW_S:
        clock.now += pace.pause()
        pace.took("agent.watch", 2000)
    assert pace.exceeded
    lines = [each.message for each in caplog.records]
    assert lines == ["robot `arm1` sends faster than it may: the rest waits"]
    clock.now += WARN_S
    assert not pace.exceeded


def test_one_that_waits_now_and_then_is_not_said(caplog):
    pace, clock = made()
    for _ in range(100):
        clock.now += pace.pause()
        pace.took("logs.read", 10_000)
        clock.now += 25
    assert not pace.exceeded
    assert not caplog.records

"""How a soak tells growth from chance, and tasks that are left over from those that end."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hwtests.console.soak import Sample, leftovers, verdict
from hwtests.console.trend import MIN_VALUES, trend

RUNS = 200


def walk(seed: int, count: int, memory: float, slope: float = 0.0) -> list[float]:
    """Return noise of which each value keeps a part of the one before, on a slope."""
    chance, value, values = random.Random(seed), 0.0, []
    for at in range(count):
        value = memory * value + chance.gauss(0.0, 1.0)
        values.append(value + slope * at)
    return values


@given(
    st.floats(-100, 100),
    st.floats(-1e3, 1e3),
    st.lists(st.integers(0, 10_000), min_size=MIN_VALUES, max_size=40, unique=True),
)
def test_the_slope_of_a_line_is_its_own(slope: float, start: float, places: list[int]) -> None:
    times = [float(each) for each in sorted(places)]
    low_to_high = trend(times, [start + slope * at for at in times])
    assert low_to_high == pytest.approx((slope, slope, slope), abs=1e-6)


@given(st.integers(0, 19), st.floats(-1e9, 1e9))
def test_one_wild_value_does_not_make_a_slope(place: int, wild: float) -> None:
    values = [5.0] * 20
    values[place] = wild
    slope, low, high = trend(range(20), values)
    assert (slope, low <= 0.0 <= high) == (0.0, True)


@pytest.mark.parametrize("memory", [0.0, 0.5])
def test_what_does_not_rise_is_said_to_rise_as_rarely_as_promised(memory: float) -> None:
    """Five of a hundred ranges miss the slope, on both sides; a few more where values depend."""
    missed = 0
    for seed in range(RUNS):
        _, low, high = trend(range(30), walk(seed, 30, memory))
        missed += not low <= 0.0 <= high
    assert missed <= RUNS * 0.13


def test_what_rises_slowly_is_seen_in_its_noise() -> None:
    ranges = [trend(range(40), walk(seed, 40, 0.3, slope=0.15)) for seed in range(RUNS)]
    assert sum(low > 0.0 for _, low, _ in ranges) >= RUNS * 0.9


def test_few_values_are_no_series() -> None:
    with pytest.raises(ValueError, match="too few"):
        trend(range(MIN_VALUES - 1), [0.0] * (MIN_VALUES - 1))


def sample(number: int, memory: float = 100.0, **tasks: int) -> Sample:
    """Return what a console costs after so many minutes."""
    return Sample(number / 60, memory, 400_000, tasks, [100.0])


def test_tasks_that_stay_are_left_over_and_those_that_come_and_go_are_not() -> None:
    comes_and_goes = [sample(each, run=1, read=each % 3) for each in range(20)]
    assert leftovers(comes_and_goes) == []
    stays = [sample(each, run=1, read=1 + (each > 15)) for each in range(20)]
    assert leftovers(stays) == ["2 tasks of read, not 1"]
    of_another_kind = [
        sample(each, run=1, **({"late": 1} if each > 12 else {})) for each in range(20)
    ]
    assert leftovers(of_another_kind) == ["1 tasks of late, not 0"]


def test_a_soak_fails_for_what_grows_for_screens_that_do_not_open_and_if_it_was_too_short() -> None:
    noise = random.Random(1)
    flat = [sample(each, 100.0 + noise.random()) for each in range(40)]
    assert verdict(flat) == []
    filling = [sample(each, 100.0 + min(each, 15) + noise.random()) for each in range(40)]
    assert verdict(filling) == [], "caches fill at first"
    growing = [sample(each, 100.0 + each / 10 + noise.random()) for each in range(40)]
    (wrong,) = verdict(growing)
    assert wrong.startswith("memory grows by ") and wrong.endswith(" MB an hour or more")
    flat[3].missed.append("logs")
    assert verdict(flat) == ["logs did not open"]
    (short,) = verdict(flat[:3] + flat[4:13])
    assert short.startswith("too short")

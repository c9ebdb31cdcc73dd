"""Memory that grows without end is told from a start, from noise, and from one that fills up."""

from __future__ import annotations

from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dorad.daemon.rules.growth import (
    BLOCKS,
    FACTOR,
    FAST_S,
    MIN_BYTES,
    SLOW_S,
    USUAL_S,
    Growth,
    growth_after,
)

MB = 1_000_000
LEARNT = [64 * MB] * round(FAST_S * (BLOCKS + 1))


def growths(
    memory: Iterable[int], before: Growth | None = None, *, step: float = 1.0
) -> list[Growth]:
    """Return what is known after each of samples that are `step` seconds apart."""
    growth = before or Growth(FAST_S)
    at = 0.0 if growth.began is None else growth.began + growth.block_s
    found = []
    for number, each in enumerate(memory):
        growth = growth_after(growth, at + number * step, each)
        found.append(growth)
    return found


def rising(start: int, per_sample: float, samples: int) -> list[int]:
    return [start + round(per_sample * number) for number in range(samples)]


def test_a_leak_is_found_within_a_minute_and_lasts_until_the_level_is_usual() -> None:
    learnt = growths(LEARNT)[-1]
    assert learnt.base == 64 * MB
    found = growths(rising(64 * MB, 6 * MB, 60), learnt)
    assert found[-1].growing
    assert found[-1].base == 64 * MB
    kept = growths([420 * MB] * round(USUAL_S), found[-1])
    assert kept[-60].growing
    later = growths([420 * MB] * 120, kept[-1])[-1]
    assert not later.growing
    assert later.base == 420 * MB


def test_memory_that_is_given_back_ends_it() -> None:
    found = growths(rising(64 * MB, 6 * MB, 60), growths(LEARNT)[-1])
    assert not growths([70 * MB] * 30, found[-1])[-1].growing


def test_memory_that_still_rises_a_little_is_not_yet_the_usual_state() -> None:
    found = growths(rising(64 * MB, 6 * MB, 60), growths(LEARNT)[-1])
    assert found[-1].growing
    # A third of a percent in ten seconds: by itself no growth, but the end of one neither.
    level = found[-1].lows[-1]
    more = growths(rising(level, level * 0.0003, 2 * round(USUAL_S)), found[-1])
    assert more[-1].growing
    assert not any(each.growing for each in growths(rising(level, level * 0.0003, 1200)))


def test_the_least_of_a_block_counts_not_its_first_or_last_sample() -> None:
    growth = growth_after(Growth(FAST_S), 0.0, 90 * MB)
    assert growth.low == 90 * MB
    for at, memory in ((1.0, 70 * MB), (2.0, 80 * MB), (3.0, 60 * MB), (4.0, 95 * MB)):
        growth = growth_after(growth, at, memory)
    assert growth.low == 60 * MB
    growth = growth_after(growth, FAST_S, 85 * MB)
    assert (growth.lows, growth.low, growth.began) == ((60 * MB,), 85 * MB, FAST_S)


def test_memory_rises_if_it_is_a_percent_more_three_times_and_never_much_less() -> None:
    def rises(*lows: int) -> bool:
        return Growth(FAST_S, lows=tuple(mb * MB for mb in lows)).rises

    assert rises(1000, 1020, 1040, 1060, 1060)
    assert not rises(1000, 1020, 1040, 1040, 1040)
    assert not rises(1000, 1005, 1010, 1015, 1020)
    assert rises(1000, 1020, 1010, 1030, 1050)
    assert not rises(1000, 1050, 1020, 1050, 1100)


def test_a_large_node_must_double() -> None:
    learnt = growths([900 * MB] * len(LEARNT))[-1]
    assert not any(each.growing for each in growths(rising(900 * MB, 10 * MB, 60), learnt))
    assert growths(rising(900 * MB, 30 * MB, 60), learnt)[-1].growing


def test_only_the_last_blocks_are_kept() -> None:
    found = growths(rising(MB, MB, round(FAST_S) * (BLOCKS + 5)))
    assert max(len(each.lows) for each in found) == BLOCKS


def test_a_small_node_may_have_several_times_as_much() -> None:
    learnt = growths([10 * MB] * len(LEARNT))[-1]
    assert not any(each.growing for each in growths(rising(10 * MB, MB, 80), learnt))
    assert growths(rising(10 * MB, MB, 200), learnt)[-1].growing


def test_what_a_start_loads_and_what_is_loaded_at_once_later_is_no_growth() -> None:
    found = growths(rising(10 * MB, 30 * MB, 30) + [900 * MB] * 100)
    assert not any(each.growing for each in found)
    found = growths([900 * MB, 901 * MB, 899 * MB] * 60, growths(LEARNT)[-1])
    assert not any(each.growing for each in found)


def test_garbage_that_is_collected_now_and_then_is_no_growth() -> None:
    saw = [(64 + 30 * (second % 7)) * MB for second in range(400)]
    assert not any(each.growing for each in growths(saw))


def test_a_slow_leak_is_found_by_long_blocks() -> None:
    hours = [64 * MB + MB * minute for minute in range(3 * 60)]
    found = growths(hours, Growth(SLOW_S), step=60.0)
    assert found[-1].growing
    assert not any(each.growing for each in growths(hours, step=60.0)[:60])


@given(st.lists(st.integers(1, 2000), max_size=60))
def test_what_grows_has_become_much_more(blocks) -> None:
    found = growths(mb * MB for mb in blocks for _ in range(round(FAST_S)))
    seen = [mb * MB for mb in blocks]
    for number, growth in enumerate(found):
        if growth.growing and not (number and found[number - 1].growing):
            level = growth.lows[-1]
            assert level >= FACTOR * min(seen)
            assert level >= min(seen) + MIN_BYTES


@pytest.mark.parametrize(("fall", "rises"), [(0.02, True), (0.021, False)])
def test_memory_that_falls_by_no_more_than_a_bound_still_rises(fall: float, rises: bool) -> None:
    lows = [1000, 1100, 1200, 1300, 1000]
    lows[-1] = round(lows[-2] * (1 - fall))
    assert Growth(FAST_S, lows=tuple(lows)).rises == rises


def test_what_is_loaded_after_the_start_is_the_base_up_to_the_last_block() -> None:
    lows = tuple((64 + 6 * number) * MB for number in range(BLOCKS - 1))
    before = Growth(FAST_S, began=0.0, low=200 * MB, lows=lows)
    assert growth_after(before, FAST_S, 300 * MB) == Growth(
        FAST_S, began=FAST_S, low=300 * MB, lows=(*lows, 200 * MB), base=200 * MB, grown_at=FAST_S
    )
    # Then the last block alone counts.
    known = Growth(FAST_S, began=0.0, low=400 * MB, lows=lows, base=100 * MB)
    assert growth_after(known, FAST_S, 400 * MB).growing
    assert not growth_after(known, FAST_S - 0.1, 400 * MB).growing
    almost = Growth(FAST_S, began=0.0, low=200 * MB - 1, lows=lows, base=100 * MB)
    assert not growth_after(almost, FAST_S, 0).growing


def test_the_base_of_memory_that_does_not_rise_is_the_least_of_the_first_block() -> None:
    lows = tuple((80 - number) * MB for number in range(BLOCKS - 1))
    before = Growth(FAST_S, began=0.0, low=70 * MB, lows=lows, base=50 * MB)
    assert growth_after(before, FAST_S, 0).base == 80 * MB
    longer = Growth(FAST_S, began=0.0, low=70 * MB, lows=(90 * MB, *lows))
    assert growth_after(longer, FAST_S, 0).lows == (*lows, 70 * MB)


@pytest.mark.parametrize(("percent", "rises"), [(1.0, False), (1.1, True)])
def test_three_steps_of_more_than_a_percent_are_a_rise(percent: float, rises: bool) -> None:
    lows = [100_000]
    for _ in range(3):
        lows.append(int(lows[-1] * (1 + percent / 100)))
    assert Growth(FAST_S, lows=tuple(lows)).rises == rises
    assert not Growth(FAST_S, lows=tuple(lows[:-1])).rises
    # What grows too much does so with any step.
    assert Growth(FAST_S, lows=tuple(lows), growing=True).rises


@pytest.mark.parametrize(("level", "growing"), [(150 * MB, False), (150 * MB + 1, True)])
def test_memory_grows_until_half_of_what_was_too_much_is_given_back(
    level: int, growing: bool
) -> None:
    before = Growth(
        FAST_S, began=0.0, low=level, lows=(level,) * (BLOCKS - 1), base=100 * MB, growing=True
    )
    assert growth_after(before, FAST_S, level).growing == growing

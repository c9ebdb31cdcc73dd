"""An output is slow if it has less than its usual rate, or than the rate it must have, for long."""

from __future__ import annotations

import math
import random
from collections.abc import Iterable
from itertools import accumulate, chain, repeat

from hypothesis import given
from hypothesis import strategies as st

from dorad.daemon.rules.pace import (
    BACK,
    LEARN_S,
    MIN_RATE,
    RELEARN_S,
    SLOW,
    SLOW_S,
    SPREAD,
    Block,
    Pace,
    Steady,
    pace_after,
)
from dorad.daemon.rules.samples import GAP_S, SAMPLES

MINUTE = round(LEARN_S) + 11
"""Samples after which a first rate is the usual one, in any case."""
LONG = round(RELEARN_S) + 21
"""The same for a rate that is not the first one."""
SOON = round(SLOW_S) + SAMPLES + 1
"""Samples after which a slow output is slow."""


def paces(
    counts: Iterable[float],
    before: Pace | None = None,
    *,
    limit: float | None = None,
    at: float = 0,
) -> list[Pace]:
    """Return the pace after each second with these numbers of messages."""
    pace, sent = before or Pace(), 0
    if before is not None and before.samples:
        at, sent = before.samples[-1]
    found = []
    for total in accumulate(counts):
        at += 1.0
        pace = pace_after(pace, at, sent + int(total), limit)
        found.append(pace)
    return found


def after(counts: Iterable[float], before: Pace | None = None, **how: float) -> Pace:
    return paces(counts, before, **how)[-1]


STEADY = after(repeat(10, MINUTE))


def test_a_third_of_the_usual_rate_is_slow_after_ten_seconds_and_not_before() -> None:
    assert STEADY.usual == 10
    found = paces([3] * SOON, STEADY)
    assert found[-1].slow
    assert math.isclose(found[-1].rate, 3, abs_tol=0.1)
    assert not any(each.slow for each in found[: round(SLOW_S)])


def test_an_output_that_stops_is_slow_and_it_is_over_when_it_is_back() -> None:
    stopped = after([0] * SOON, STEADY)
    assert stopped.slow
    assert not after([10] * SAMPLES, stopped).slow


def test_a_slow_output_that_recovers_is_judged_by_the_same_rate_again() -> None:
    slow = after([3] * SOON, STEADY)
    back = after([10] * SAMPLES, slow)
    assert not back.slow
    assert after([3] * SOON, back).slow


def test_three_quarters_of_the_usual_rate_are_enough_to_be_back() -> None:
    steady = after(repeat(12, MINUTE))
    slow = after([3] * SOON, steady)
    assert slow.slow
    assert after([round(BACK * 12) - 1] * 30, slow).slow
    assert not after([round(BACK * 12)] * SAMPLES * 2, slow).slow


def test_one_that_was_slow_is_slow_again_only_after_as_long_a_time() -> None:
    back = after([10] * SAMPLES, after([3] * SOON, STEADY))
    again = paces([3] * SOON, back)
    assert not any(each.slow for each in again[: round(SLOW_S)])
    assert again[-1].slow


def test_a_pause_that_began_with_a_few_messages_is_one_too() -> None:
    """It was silent meanwhile, however it became slow, and is not judged by its rate then."""
    stopped = after([3] * 6 + [0] * SOON + [3] * 6, STEADY)
    assert stopped.slow
    assert stopped.silent
    assert after([10] * SAMPLES * 2, stopped).usual is None
    never = after([3] * SOON, STEADY)
    assert not never.silent
    assert after([10] * SAMPLES * 2, never).usual == 10


def test_the_usual_rate_is_the_mean_of_a_steady_time() -> None:
    drifting = after([10] * 30 + [11] * 41, at=1e6)
    assert drifting.usual is not None
    assert 10.3 < drifting.usual < 10.8


def test_a_rate_that_is_nearly_the_usual_one_changes_nothing() -> None:
    """Else each ten minutes of nine messages a second would move the limit down a little."""
    nearly = after([9] * LONG, STEADY)
    assert nearly.usual == 10


def test_a_hiccup_is_not_slow() -> None:
    for hiccup in ([0] * 8, [0] * 5 + [50], [3] * 9, [10, 0] * 20):
        assert not any(each.slow for each in paces([*hiccup, *[10] * 10], STEADY))


def test_one_that_pauses_by_itself_needs_a_long_time_at_one_rate_from_then_on() -> None:
    back = after([10] * SAMPLES, after([0] * SOON, STEADY))
    assert back.usual is None
    again = after([10] * 120, back)
    assert not after([0] * 60, again).slow
    usual = after([10] * LONG, back)
    assert after([0] * SOON, usual).slow


def test_one_that_rests_from_its_start_pauses_too() -> None:
    working = after([10] * 120, after([0] * MINUTE))
    assert not after([0] * 60, working).slow


def test_a_new_rate_is_the_usual_one_after_ten_minutes() -> None:
    slow = after([3] * SOON, STEADY)
    later = after([3] * (round(RELEARN_S) - SOON - 20), slow)
    assert later.slow
    usual = after([3] * 60, later)
    assert not usual.slow
    assert usual.usual == 3
    assert not usual.silent
    assert after([1] * SOON, usual).slow
    # From that very moment, also if it was silent before.
    settled = paces([3] * LONG, after([0] * SOON, STEADY))
    first = next(each for each in settled if each.usual == 3)
    assert (first.slow, first.silent, first.pauses) == (False, False, False)
    resting = after([0] * LONG, STEADY)
    assert not resting.slow
    assert resting.usual is None


def test_a_faster_minute_does_not_become_the_usual_rate() -> None:
    faster = after([30] * MINUTE, STEADY)
    assert not any(each.slow for each in paces([10] * 60, faster))


def test_nothing_is_known_of_the_time_in_which_the_machine_slept() -> None:
    at, sent = STEADY.samples[-1]
    woken = pace_after(STEADY, at + 60 * GAP_S, sent)
    assert not any(each.slow for each in paces([10] * 30, woken))
    assert woken.usual == 10
    assert (woken.samples, woken.rate, woken.steady) == (((at + 60 * GAP_S, sent),), None, None)
    # Nor of a sample at the same time, which would be infinitely fast.
    assert pace_after(STEADY, at, sent + 5).rate is None


def test_one_that_was_short_before_the_machine_slept_is_not_if_it_sends_enough_then() -> None:
    short = after([12] * 40, after([30] * MINUTE, limit=25), limit=25)
    assert short.short
    at, sent = short.samples[-1]
    woken = pace_after(short, at + 60 * GAP_S, sent, 25)
    assert not after([25], woken, limit=25).short


def test_what_the_next_daemon_keeps_is_enough_to_go_on() -> None:
    slow = after([3] * SOON, STEADY)
    kept = Pace(usual=slow.usual, pauses=slow.pauses, slow=slow.slow)
    found = paces([3] * 20, kept)
    assert all(each.slow for each in found)
    assert not after([10] * 10, found[-1]).slow


def test_a_limit_counts_instead_of_the_usual_rate() -> None:
    assert not after([30] * 10 + [26] * 100, limit=25).short
    found = paces([12] * 40, after([30] * MINUTE, limit=25), limit=25)
    assert found[-1].short
    assert not found[9].short
    assert not found[-1].slow
    assert not after([25] * SAMPLES, found[-1], limit=25).short
    assert not after([3] * 60, STEADY, limit=2).slow


def test_a_limit_may_be_less_than_one_message_a_second() -> None:
    every_20_s = chain.from_iterable(repeat([1, *[0] * 19], 10))
    assert not any(each.short for each in paces(every_20_s, limit=0.04))
    assert after([1] + [0] * 40, limit=0.1).short
    assert not any(each.short for each in paces([0] * 300, limit=0))


def test_a_node_may_take_its_time_to_send_its_first_message() -> None:
    starting = paces([0] * round(LEARN_S), limit=25, at=1e6)
    assert not any(each.short or each.missing for each in starting)
    assert after([0] * SOON, starting[-1], limit=25).short


@given(
    rate=st.floats(min_value=MIN_RATE * 1.3, max_value=2000),
    share=st.floats(min_value=0, max_value=1.5),
    phase=st.floats(min_value=0, max_value=1),
    late=st.lists(st.floats(min_value=0, max_value=0.4), min_size=5, max_size=20),
)
def test_a_timer_at_any_rate_is_slow_below_half_of_it_and_well_above_it(
    rate: float, share: float, phase: float, late: list[float]
) -> None:
    """Samples are late by other amounts each second, as on a busy machine."""
    pace, at, sent = Pace(), 0.0, phase
    for second in range(2 * MINUTE + SOON):
        step = 1.0 + late[second % len(late)]
        at += step
        sent += step * rate * (1.0 if second < 2 * MINUTE else share)
        pace = pace_after(pace, at, int(sent))
        if second < 2 * MINUTE:
            assert not pace.slow
    assert pace.usual is not None
    error = 1.5 / (SAMPLES * rate)
    if share < SLOW * 0.9 - error:
        assert pace.slow
    elif share > SLOW * 1.1 + error:
        assert not pace.slow


@given(
    bursts=st.lists(
        st.tuples(st.integers(0, 40), st.integers(0, 40), st.integers(1, 9)),
        min_size=1,
        max_size=15,
    ),
    limit=st.none() | st.floats(min_value=0, max_value=50),
)
def test_only_an_output_with_a_usual_rate_is_slow(
    bursts: list[tuple[int, int, int]], limit: float | None
) -> None:
    counts = chain.from_iterable([first] * seconds + [then] for first, then, seconds in bursts)
    for pace in paces(chain(counts, repeat(0, 30)), limit=limit):
        assert not pace.slow or (pace.usual is not None and limit is None)
        assert not pace.short or limit
        assert not (pace.slow and pace.rate is not None and pace.rate >= BACK * pace.usual)


@given(seed=st.integers(0, 1 << 32), mean=st.floats(min_value=0.1, max_value=30))
def test_events_that_happen_by_chance_are_never_slow(seed: int, mean: float) -> None:
    """For example detections, or what people do: the numbers of a Poisson process."""
    chance = random.Random(seed)

    def events() -> int:
        left, count = mean, 0
        while (left := left - chance.expovariate(1.0)) > 0:
            count += 1
        return count

    assert not any(each.slow for each in paces(events() for _ in range(250)))


def test_two_samples_of_one_moment_and_one_after_a_long_gap_begin_anew() -> None:
    pace = after(repeat(10, 5))
    at, sent = pace.samples[-1]
    for later in (at, at - 1, at + GAP_S + 0.1):
        assert pace_after(pace, later, sent + 5).samples == ((later, sent + 5),)
    assert len(pace_after(pace, at + GAP_S, sent + 5).samples) == len(pace.samples) + 1


def test_a_new_output_lacks_nothing_and_one_that_stops_lacks_a_bounded_number() -> None:
    assert (Pace().missing, Pace().short) == (0.0, False)
    assert after([10, 10], limit=10).missing == 0
    silent = after(chain(repeat(10, 20), repeat(0, 100)), limit=10)
    assert (silent.missing, silent.short) == (10 * SLOW_S + 1, True)
    # With the limit goes what was counted for it.
    free = after([10], silent)
    assert (free.missing, free.short) == (0, False)


def test_seconds_that_differ_by_less_than_half_the_spread_are_even() -> None:
    for mean in (1000.0, 5000.0):
        for share, even in ((0.49, True), (0.51, False)):
            off = mean * SPREAD * share
            squares = 5 * (mean - off) ** 2 + 5 * (mean + off) ** 2
            assert Block(0.0, 10, 10 * mean, squares).is_even == even
    # Of few messages half of one is even, and of some a quarter of the mean.
    assert Block(0.0, 2, 2.0, 3.0).is_even
    assert not Block(0.0, 2, 2.0, 3.1).is_even
    assert Block(0.0, 2, 16.0, 2 * (64 + 2.0)).is_even
    assert not Block(0.0, 2, 16.0, 2 * (64 + 2.1)).is_even


def test_a_rate_is_learned_at_the_very_moment() -> None:
    first = next(each for each in paces(repeat(10, 200)) if each.usual is not None)
    assert first.steady is not None
    assert first.steady.seconds == LEARN_S
    resting = next(each for each in paces(repeat(0, 200)) if each.pauses)
    assert resting.steady is not None
    assert resting.steady.seconds == LEARN_S
    # Another rate takes longer, and so does a rest of one that had a rate.
    other = next(each for each in paces(repeat(30, 2000), STEADY) if each.usual == 30)
    assert other.steady is not None
    assert other.steady.seconds == RELEARN_S
    silent = next(each for each in paces(repeat(0, 2000), STEADY) if each.pauses)
    assert silent.steady is not None
    assert silent.steady.seconds == RELEARN_S


def test_an_output_is_slow_at_the_very_moment() -> None:
    slow = next(each for each in paces(repeat(3, 100), STEADY) if each.slow)
    assert slow.below_since is not None
    assert slow.samples[-1][0] - slow.below_since == SLOW_S
    exactly = after(repeat(round(SLOW * 10), 100), STEADY)
    assert not exactly.slow


def test_an_output_in_bursts_has_no_usual_rate_however_alike_they_are() -> None:
    bursts = after(chain.from_iterable(repeat([0] * 5 + [20] * 5, MINUTE)))
    assert bursts.usual is None
    assert not after([0] * SOON, bursts).slow


def test_with_a_limit_nothing_of_an_earlier_silence_counts_later() -> None:
    """It was silent for a moment; then a limit counts for a while, and then none again."""
    silent = after([0] * 8, STEADY)
    assert silent.silent
    assert not silent.slow
    limited = after([10] * SAMPLES, silent, limit=5)
    assert (limited.slow, limited.silent, limited.below_since) == (False, False, None)


def test_a_rate_that_is_the_usual_one_from_now_on_is_not_below_itself() -> None:
    learned = next(each for each in paces(repeat(3, 2000), STEADY) if each.usual == 3)
    assert (learned.slow, learned.silent, learned.below_since) == (False, False, None)


def test_of_an_output_that_pauses_nothing_is_known_of_the_time_before() -> None:
    """It was below its usual rate, slow and silent, until it went on by itself."""
    found = paces([10] * SAMPLES, after([0] * SOON, STEADY))
    first = next(each for each in found if each.usual is None)
    assert (first.pauses, first.below_since, first.slow, first.silent) == (True, None, False, False)


def test_the_rate_is_that_from_the_first_sample_to_the_last() -> None:
    squares = tuple((float(number), number**2) for number in range(SAMPLES + 1))
    assert Pace(samples=squares).rate == SAMPLES
    assert Pace(samples=squares[:-1]).rate is None


def test_after_a_gap_only_the_usual_rate_and_what_it_is_now_remain() -> None:
    before = Pace(
        samples=((5.0, 10),), began=1.0, block=Block(1.0), usual=10.0, pauses=True, slow=True,
        below_since=4.0, silent=True, missing=3.0, short=True,
    )  # fmt: skip
    assert pace_after(before, 5.1 + GAP_S, 20) == Pace(
        samples=((5.1 + GAP_S, 20),), began=1.0, usual=10.0, pauses=True, slow=True, silent=True,
        short=True,
    )  # fmt: skip


def test_an_output_is_short_when_it_lacks_ten_seconds_of_its_limit() -> None:
    found = paces([1, *repeat(0, 20)], limit=1.0)
    assert next(each for each in found if each.short).missing == SLOW_S


def test_a_moment_of_silence_is_forgotten_when_it_is_over() -> None:
    silent = after([0] * (SAMPLES + 1), STEADY)
    assert (silent.silent, silent.slow) == (True, False)
    back = after([10] * SAMPLES, silent)
    assert (back.usual, back.silent, back.below_since) == (10.0, False, None)


def before_the_block_ends(steady: float, count: int) -> Pace:
    """Return an output at the end of ten minutes at a rate, after nine seconds at another."""
    return Pace(
        samples=((599.0, 0),),
        block=Block(590.0, 9, 9.0 * count, 9.0 * count**2),
        steady=Steady(0.0, 590.0, steady),
        usual=10.0,
    )


def test_a_rate_that_is_a_fifth_off_is_the_same_one() -> None:
    """That is the spread itself; what is more is another rate."""
    count = round(10 * (1 + SPREAD))
    for steady, rate, began, usual in (
        (10.0, count, 0.0, 10.0),
        (10.0, count + 1, 590.0, 10.0),
        (float(count), count, 0.0, 10.0),
        (float(count + 1), count + 1, 0.0, count + 1),
    ):
        found = pace_after(before_the_block_ends(steady, rate), 600.0, rate)
        assert found.steady is not None
        assert (found.steady.began, found.usual) == (began, usual)


def test_an_output_at_the_lowest_rate_is_not_idle() -> None:
    assert after(repeat(round(MIN_RATE), MINUTE)).usual == MIN_RATE
    assert after(repeat(round(MIN_RATE) - 1, MINUTE)).usual is None


def test_what_is_sent_beyond_the_limit_makes_up_for_what_is_missing_and_no_more() -> None:
    silent = tuple((float(second), 0) for second in range(SAMPLES + 1))
    before = Pace(samples=silent, missing=8.0, short=True)
    for sent, missing, short in ((15, 3.0, True), (18, 0.0, False), (30, 0.0, False)):
        now = pace_after(before, SAMPLES + 1.0, sent, 10)
        assert (now.missing, now.short) == (missing, short)


def test_a_slow_output_that_stops_altogether_is_silent() -> None:
    slow = after([3] * SOON, STEADY)
    stopped = after([0] * (SAMPLES + 1), slow)
    assert (slow.silent, stopped.slow, stopped.silent) == (False, True, True)

"""An input that begins to lose messages is found soon, one that does from the start later."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import repeat

from hypothesis import given
from hypothesis import strategies as st

from dorad.daemon.rules.loss import (
    CLEAN_S,
    LITTLE_S,
    LOSING_S,
    MUCH,
    STEADY_S,
    Loss,
    loss_after,
)
from dorad.daemon.rules.samples import GAP_S, SAMPLES

RATE = 50
CLEAN = round(CLEAN_S) + 3
"""Samples without drops after which drops are news."""
SOON = round(LOSING_S) + SAMPLES + 1
STEADY = round(STEADY_S) + 2
"""Samples with drops after which an input loses messages that was never without."""


def losses(drops: Iterable[int], before: Loss | None = None) -> list[Loss]:
    """Return what is known after each second with so many drops of fifty messages."""
    loss = before or Loss()
    at, sent, dropped = loss.samples[-1] if loss.samples else (0.0, 0, 0)
    found = []
    for count in drops:
        at, sent, dropped = at + 1.0, sent + RATE, dropped + count
        loss = loss_after(loss, at, sent, dropped)
        found.append(loss)
    return found


def after(drops: Iterable[int], before: Loss | None = None) -> Loss:
    return losses(drops, before)[-1]


WELL = after(repeat(0, CLEAN))


def test_an_input_that_begins_to_drop_is_losing_after_ten_seconds_until_it_no_longer_drops() -> (
    None
):
    found = losses(repeat(8, SOON), WELL)
    assert found[-1].losing
    assert found[-1].dropped == 8
    assert not any(each.losing for each in found[: round(LOSING_S)])
    assert all(each.losing for each in losses([2] * 60 + [8] * 3, found[-1]))
    assert not after(repeat(0, SAMPLES), found[-1]).losing


def test_an_input_that_drops_from_the_start_is_losing_after_ten_minutes_until_that_ends() -> None:
    found = losses(repeat(30, STEADY + 600))
    assert not any(each.losing for each in found[: round(STEADY_S)])
    assert all(each.losing for each in found[STEADY:])
    over = losses(repeat(0, SAMPLES), found[-1])[-1]
    assert not over.losing
    assert not any(each.losing for each in losses(repeat(30, round(STEADY_S)), over))


def test_an_input_that_drops_now_and_then_is_not_losing() -> None:
    assert not any(each.losing for each in losses(([25] * 500 + [0] * 20) * 3))
    assert not any(each.losing for each in losses(([0] * 300 + [25] * 20) * 4))
    assert not any(each.losing for each in losses([25] * 9, WELL))


def test_a_tenth_of_the_messages_is_much_and_what_is_less_is_not() -> None:
    tenth = round(MUCH * RATE)
    assert after(repeat(tenth, SOON), WELL).losing
    assert not any(each.losing for each in losses(repeat(tenth - 1, SOON), WELL))


def test_an_input_that_hardly_ever_drops_counts_as_one_without_drops() -> None:
    loss, sent, dropped = Loss(), 0, 0
    # One of a thousand messages, all the time.
    for at in range(CLEAN + 60):
        sent, dropped = sent + 1000, dropped + (at % 2)
        loss = loss_after(loss, float(at), sent, dropped)
    assert loss.clean
    for at in range(CLEAN + 60, CLEAN + 60 + SOON):
        sent, dropped = sent + 1000, dropped + 300
        loss = loss_after(loss, float(at), sent, dropped)
    assert loss.losing


def test_an_input_with_a_few_drops_for_long_was_not_without_them() -> None:
    assert not any(each.losing for each in losses([1] * 90 + [10] * 30, WELL))


def test_drops_that_last_stay_an_alert_and_are_no_news_after_their_end() -> None:
    losing = after(repeat(8, SOON), WELL)
    assert after(repeat(8, round(STEADY_S)), losing).losing
    over = after(repeat(0, SAMPLES), losing)
    assert not any(each.losing for each in losses([0] * 300 + [8] * 60, over))


def test_nothing_is_known_of_the_time_in_which_the_machine_slept() -> None:
    at, sent, dropped = WELL.samples[-1]
    woken = loss_after(WELL, at + 60 * GAP_S, sent + 3000, dropped + 3000)
    assert not any(each.losing for each in losses([8] * 30, woken))


@given(
    parts=st.lists(st.tuples(st.integers(0, RATE), st.integers(1, 25)), min_size=1, max_size=4),
    well=st.booleans(),
)
def test_only_much_is_news_and_only_after_a_long_time_without(
    parts: list[tuple[int, int]], *, well: bool
) -> None:
    drops = [count for count, seconds in parts for _ in range(seconds)]
    found = losses(drops, WELL if well else None)
    if not well or max(drops) < MUCH * RATE:
        assert not any(each.losing for each in found)
    for number, loss in enumerate(found):
        assert not loss.losing or sum(drops[: number + 1]) >= MUCH * RATE * LOSING_S


def test_drops_that_are_over_do_not_count_for_those_that_come_later() -> None:
    once = after([8, *repeat(0, 2 * round(LITTLE_S))], WELL)
    assert (once.clean, once.dirty_since, once.losing) == (True, None, False)
    assert after(repeat(8, SOON), once).losing


def test_an_input_is_without_drops_up_to_a_minute_of_a_few() -> None:
    states = set()
    for loss in losses(repeat(1, 90), WELL):
        seconds = 0.0 if loss.dirty_since is None else loss.samples[-1][0] - loss.dirty_since
        assert loss.clean == (seconds < LITTLE_S)
        states.add(loss.clean)
    assert states == {True, False}


def test_an_input_is_clean_and_losing_at_the_very_moment() -> None:
    clean = next(each for each in losses(repeat(0, 2 * CLEAN)) if each.clean)
    assert clean.clean_since is not None
    assert clean.samples[-1][0] - clean.clean_since == CLEAN_S
    for before, seconds in ((WELL, LOSING_S), (None, STEADY_S)):
        first = next(each for each in losses(repeat(8, 1000), before) if each.losing)
        assert first.since is not None
        assert first.samples[-1][0] - first.since == seconds


def test_a_sample_counts_up_to_the_longest_gap() -> None:
    first = Loss(((5.0, 100, 7),), clean_since=1.0)
    assert loss_after(first, 5.0 + GAP_S, 200, 7).clean_since == 1.0
    for at in (5.0 + GAP_S + 0.1, 5.0, 4.0):
        assert loss_after(first, at, 200, 7) == Loss(((at, 200, 7),))


def test_an_input_that_gets_nothing_any_more_drops_nothing_either() -> None:
    loss = after([8, 8, 8], WELL)
    at, sent, dropped = loss.samples[-1]
    for second in range(1, SAMPLES + 2):
        loss = loss_after(loss, at + second, sent, dropped)
    assert (loss.rate, loss.dirty_since, loss.clean) == (0, None, True)


def test_one_of_a_thousand_messages_each_second_is_as_good_as_none() -> None:
    loss = Loss()
    for second in range(CLEAN):
        loss = loss_after(loss, float(second), 1000 * second, second)
    assert (loss.clean, loss.dirty_since, loss.dropped) == (True, None, 1)

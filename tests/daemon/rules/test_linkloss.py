"""A link that loses messages again and again is told from one that was interrupted."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import repeat

from hypothesis import given
from hypothesis import strategies as st

from dorad.daemon.rules.linkloss import (
    MUCH,
    OVER_S,
    SPAN_S,
    TIMES,
    WINDOW_S,
    LinkLoss,
    link_loss_after,
)

RATE = 50


def after_each(counts: Iterable[int], before: LinkLoss | None = None) -> list[LinkLoss]:
    """Return what is known after each second in which so many of fifty messages are lost."""
    loss, at, arrived, lost = before or link_loss_after(LinkLoss(), 0.0, 0, 0), 0.0, 0, 0
    if before is not None and before.recent:
        at = before.recent[-1].at
        arrived, lost = before.arrived or 0, before.lost
    states = []
    for count in counts:
        at, arrived, lost = at + 1.0, arrived + RATE - min(count, RATE), lost + count
        loss = link_loss_after(loss, at, arrived, lost)
        states.append(loss)
    return states


def test_a_link_that_loses_some_messages_every_few_seconds_is_losing_until_it_no_longer_does() -> (
    None
):
    states = after_each([5, 0, 0] * 5)
    assert states[-1].losing
    assert 0.03 < states[-1].share < 0.05
    assert not any(each.losing for each in states[: int(SPAN_S)])
    calm = after_each(repeat(0, int(OVER_S)), states[12])
    assert calm[-2].losing
    assert not calm[-1].losing


def test_one_interruption_is_no_alert_however_much_it_has_lost() -> None:
    assert not any(each.losing for each in after_each([0] * 9 + [1500] + [0] * 90))
    assert not any(each.losing for each in after_each([25] * int(SPAN_S)))
    assert not any(each.losing for each in after_each(([500] + [0] * 14) * 8))


def test_less_than_one_of_a_hundred_is_as_good_as_none() -> None:
    assert not any(each.losing for each in after_each([1, 0, 0] * 60))
    assert after_each([2, 0, 0] * 60)[-1].losing


def test_counters_that_begin_anew_are_those_of_another_link() -> None:
    losing = after_each([5, 0, 0] * 5)[-1]
    assert link_loss_after(losing, 16.0, 0, 0) == LinkLoss(0, 0)


@given(st.lists(st.sampled_from((0, 0, 0, 1, 10, 60)), max_size=200))
def test_only_a_minute_is_kept_and_only_repeated_losses_are_news(counts: list[int]) -> None:
    before = False
    for number, loss in enumerate(after_each(counts), 1):
        window = counts[max(0, number - int(WINDOW_S)) : number]
        assert len(loss.recent) == sum(count > 0 for count in window)
        if loss.losing and not before:
            assert len(loss.recent) >= TIMES
            assert sum(window) >= MUCH * RATE * SPAN_S
        before = loss.losing

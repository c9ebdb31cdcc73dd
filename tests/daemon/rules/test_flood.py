"""A node that logs more than anybody reads is told from one that logs much for a moment."""

from __future__ import annotations

from collections.abc import Iterable

from hypothesis import given
from hypothesis import strategies as st

from dorad.daemon.rules.flood import ERRORS, FLOOD_S, LINES, Flood, flood_after
from dorad.daemon.rules.samples import SAMPLES, rate_of, with_sample

SOON = round(FLOOD_S) + SAMPLES + 1


def floods(each_second: Iterable[tuple[int, int]], before: Flood | None = None) -> list[Flood]:
    """Return what is known after each second with so many lines and errors."""
    flood = before or Flood()
    at, lines, errors = flood.samples[-1] if flood.samples else (0.0, 0, 0)
    found = []
    for more, wrong in each_second:
        at, lines, errors = at + 1.0, lines + more, errors + wrong
        flood = flood_after(flood, at, lines, errors)
        found.append(flood)
    return found


def test_many_errors_for_ten_seconds_are_a_flood_until_they_end() -> None:
    found = floods([(200, 200)] * SOON)
    assert found[-1].flooding
    assert found[-1].errors == 200
    assert not any(each.flooding for each in found[: round(FLOOD_S)])
    assert floods([(3, 3)] * SOON, found[-1])[-1].flooding
    assert not floods([(0, 0)] * SAMPLES, found[-1])[-1].flooding


def test_many_lines_are_a_flood_too_and_a_few_errors_or_a_burst_are_none() -> None:
    assert floods([(4000, 0)] * SOON)[-1].flooding
    assert not any(each.flooding for each in floods([(900, 4)] * 60))
    assert not any(each.flooding for each in floods(([(5000, 500)] + [(1, 0)] * 9) * 6))


def test_counters_that_begin_again_are_no_flood() -> None:
    flood = floods([(10, 0)] * 9)[-1]
    again = flood_after(flood, flood.samples[-1][0] + 1.0, 0, 0)
    assert again.samples[1:] == ()
    assert not again.flooding


@given(st.lists(st.tuples(st.integers(0, 3000), st.integers(0, 20)), max_size=60))
def test_a_flood_had_enough_lines_or_errors_in_the_last_seconds(counts) -> None:
    for number, flood in enumerate(floods(counts)):
        last = counts[max(0, number - SAMPLES + 1) : number + 1]
        most = max(max(more / LINES, wrong / ERRORS) for more, wrong in last)
        assert not flood.flooding or most >= 0.5
        assert not flood.flooding or number >= FLOOD_S


def test_a_flood_begins_and_ends_at_its_bounds() -> None:
    found = floods([(5, 5)] * SOON)
    first = next(each for each in found if each.flooding)
    assert first.since is not None
    assert first.samples[-1][0] - first.since == FLOOD_S
    assert floods([(1000, 0)] * SOON)[-1].flooding
    assert not floods([(999, 4)] * 60)[-1].flooding
    # It is over below a half.
    half = floods([(500, 0)] * 60, floods([(1000, 0)] * SOON)[-1])
    assert half[-1].flooding
    assert not floods([(499, 2)] * 60, half[-1])[-1].flooding
    again = floods([(1000, 0)] * SOON, floods([(0, 0)] * 9, half[-1])[-1])
    assert [each.flooding for each in again][:5] == [False] * 5


def test_a_rate_is_known_from_two_samples_on() -> None:
    assert rate_of([], 1) == rate_of([(5.0, 100, 7)], 1) == 0.0
    two = [(5.0, 100, 7), (7.0, 110, 8)]
    assert (rate_of(two, 1), rate_of(two, 2)) == (5.0, 0.5)
    assert with_sample(two, (9.0, 0, 0)) == (*two, (9.0, 0, 0))
    assert len(with_sample([*two] * SAMPLES, (9.0, 0, 0))) == SAMPLES + 1


def test_a_second_sample_of_the_same_moment_begins_anew() -> None:
    first = flood_after(Flood(), 5.0, 10, 1)
    for at in (5.0, 4.0):
        assert flood_after(first, at, 11, 1) == Flood(((at, 11, 1),))
    assert len(flood_after(first, 5.1, 11, 1).samples) == 2
    assert flood_after(first, 5.1, 9, 1) == Flood(((5.1, 9, 1),))

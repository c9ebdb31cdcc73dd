"""Percentiles, medians over rounds, ratios."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hwtests.bench.stats import Figure, Key, percentile, ratio, summarise

KEY = Key("round trip", "ours", 8, "p50_us")


def test_median_of_an_even_number_of_values_lies_between_the_middle_two():
    assert percentile([4, 1, 3, 2], 0.5) == 2.5


def test_percentile_interpolates_between_ranks():
    assert percentile(range(101), 0.99) == 99
    assert percentile([0, 10], 0.99) == pytest.approx(9.9)


def test_the_percentile_of_no_values_is_an_error():
    with pytest.raises(ValueError, match="no values"):
        percentile([], 0.5)


@given(st.lists(st.integers(0, 10**9), min_size=1), st.floats(0, 1))
def test_percentile_lies_within_the_values(values, share):
    assert min(values) <= percentile(values, share) <= max(values)


def test_a_summary_holds_the_median_of_the_rounds():
    figures = [Figure(KEY, number, value) for number, value in enumerate((9.0, 1.0, 2.0))]
    assert summarise(figures) == {KEY: 2.0}


def test_a_ratio_needs_both_numbers():
    assert ratio(6, 2) == 3
    assert ratio(None, 2) is None
    assert ratio(6, None) is None
    assert ratio(6, 0) is None

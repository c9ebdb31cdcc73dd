"""Whether a series of measurements rises: its slope, with the range in which the true one is."""

from __future__ import annotations

from itertools import combinations, pairwise
from math import ceil, floor, sqrt
from statistics import median
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Sequence

Z = 1.96
"""Standard deviations on each side of a range that has the true value 95 times of 100."""
MIN_VALUES = 8
"""Fewer measurements cannot tell a slope from chance."""
MAX_KEPT = 0.95
"""Largest part of a value that is taken for that of the one before."""


class Trend(NamedTuple):
    """How fast values rise, in their unit for each unit of time."""

    slope: float
    low: float
    high: float
    """The true slope is between these, with 95 % confidence."""


def trend(times: Sequence[float], values: Sequence[float]) -> Trend:
    """Return the slope by Theil and Sen, the median of the slopes between all pairs.

    A few wild values do not move it. The range is Sen's (1968), widened where values depend on
    those before them, as memory does. Raises ValueError for fewer than `MIN_VALUES`.
    """
    count = len(values)
    if count < MIN_VALUES:
        raise ValueError(f"{count} measurements are too few: at least {MIN_VALUES}")
    pairs = combinations(zip(times, values, strict=True), 2)
    slopes = sorted((b - a) / (later - earlier) for (earlier, a), (later, b) in pairs)
    slope = median(slopes)
    rest = [value - slope * at for at, value in zip(times, values, strict=True)]
    variance = count * (count - 1) * (2 * count + 5) / 18 * _dependence(rest)
    reach = Z * sqrt(variance)
    low = floor((len(slopes) - reach) / 2) - 1
    high = ceil((len(slopes) + reach) / 2)
    return Trend(slope, slopes[max(low, 0)], slopes[min(high, len(slopes) - 1)])


def _dependence(values: Sequence[float]) -> float:
    """Return the factor by which dependence makes the variance of a rank statistic larger.

    It is that of a series in which each value keeps a part of the one before.
    """
    count, ranks = len(values), _ranks(values)
    off = [each - (count - 1) / 2 for each in ranks]
    total = sum(each * each for each in off)
    if not total:
        return 1.0
    known = sum(a * b for a, b in pairwise(off)) / total
    # A part that is measured in few values, from which a slope was taken, is too small.
    kept = min((known + 1 / count) / (1 - 4 / count), MAX_KEPT)
    return max(1.0, (1 + kept) / (1 - kept))


def _ranks(values: Sequence[float]) -> list[float]:
    """Return the place of each value among all; equal ones share the mean of their places."""
    order = sorted(values)
    first = {value: at for at, value in reversed(list(enumerate(order)))}
    last = {value: at for at, value in enumerate(order)}
    return [(first[each] + last[each]) / 2 for each in values]

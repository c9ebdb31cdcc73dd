"""Percentiles, medians over rounds, ratios."""

import statistics
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Key:
    """The subject of a figure. ``size`` is the payload in bytes, 0 without a payload."""

    measure: str
    system: str
    size: int
    metric: str


@dataclass(frozen=True, slots=True)
class Figure:
    """One measured number of one round."""

    key: Key
    round: int
    value: float


Summary = Mapping[Key, float]


def percentile(values: Sequence[float], share: float) -> float:
    """Return the value below which a ``share`` (0 to 1) of ``values`` is, interpolated.

    Raises:
        ValueError: there are no values.
    """
    if not values:
        raise ValueError("no values")
    ordered = sorted(values)
    position = share * (len(ordered) - 1)
    low = int(position)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (ordered[high] - ordered[low]) * (position - low)


def summarise(figures: Iterable[Figure]) -> dict[Key, float]:
    """Return the median over all rounds of every figure."""
    rounds: defaultdict[Key, list[float]] = defaultdict(list)
    for figure in figures:
        rounds[figure.key].append(figure.value)
    return {key: statistics.median(values) for key, values in rounds.items()}


def spread(figures: Iterable[Figure], key: Key) -> tuple[float, float]:
    """Return the lowest and the highest round of one figure.

    Raises:
        ValueError: it was never measured.
    """
    values = [figure.value for figure in figures if figure.key == key]
    return min(values), max(values)


def ratio(numerator: float | None, denominator: float | None) -> float | None:
    """Return the quotient, or None if either is missing or the denominator is zero."""
    return numerator / denominator if numerator is not None and denominator else None

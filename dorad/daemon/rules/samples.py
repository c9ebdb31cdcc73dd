"""The last samples of the counters of one thing, and their rates."""

from collections.abc import Sequence
from typing import TypeAlias

SAMPLES = 5
"""Samples, one a second, over which the present rates are measured: one late second is not slow."""
GAP_S = 3.0
"""Time between two samples from which nothing is known of the time between: the machine slept."""

Sample: TypeAlias = tuple[float, int, int]
"""The time in seconds, and the two counts since the start."""


def with_sample(samples: Sequence[Sample], new: Sample) -> tuple[Sample, ...]:
    """Return the last samples and a new one."""
    return (*samples[-SAMPLES:], new)


def rate_of(samples: Sequence[Sample], index: int) -> float:
    """Return how often a second the count at `index` rises; 0 if there is one sample only."""
    if len(samples) < 2:
        return 0.0
    first, last = samples[0], samples[-1]
    return (last[index] - first[index]) / (last[0] - first[0])

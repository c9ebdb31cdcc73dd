"""Random spans of time, so that many machines do not do the same thing at one moment."""

from __future__ import annotations

import random

_RANDOM = random.SystemRandom()


def between(shortest: float, longest: float) -> float:
    """Return a random number of seconds from `shortest` to `longest`."""
    return _RANDOM.uniform(shortest, longest)

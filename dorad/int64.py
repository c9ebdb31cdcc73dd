"""Whole numbers in what other programs send: none is too large for a file, a figure or a plot."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

MAX_INT64 = (1 << 63) - 1

Int64 = Annotated[int, Meta(ge=-MAX_INT64 - 1, le=MAX_INT64)]
"""A whole number of 64 bits. JSON allows one of 4,000 digits, which is no float, and no integer of
a database."""


def clamped(value: int) -> int:
    """Return the number of 64 bits that is nearest to a sum or a count that may be larger."""
    return min(max(value, -MAX_INT64 - 1), MAX_INT64)

"""How often tests repeat random trials: a few times, or many times with HWTEST_LONG=1."""

from __future__ import annotations

import os

import pytest

LONG = os.environ.get("HWTEST_LONG", "") not in ("", "0")


def times(few: int, many: int) -> int:
    """Return how often to do something: `few` in CI, `many` by `make hwtest-long`."""
    return many if LONG else few


only_long = pytest.mark.skipif(not LONG, reason="only `make hwtest-long` does this")
"""Marks what differs little from something that is always tried."""

"""Wait in an event loop for a condition that no event announces."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

DEADLINE_S = 60.0


async def until(holds: Callable[[], object]) -> None:
    """Wait until a condition holds that other tasks or processes bring about.

    Raises:
        AssertionError: it does not hold in time.
    """
    end = time.monotonic() + DEADLINE_S
    while not holds():
        assert time.monotonic() < end, "the condition did not hold in time"
        await asyncio.sleep(0.002)

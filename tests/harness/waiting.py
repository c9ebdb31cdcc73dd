"""Wait in an event loop for a condition that no event announces."""

import asyncio
import time
from collections.abc import Callable

DEADLINE_S = 60.0
MAX_PAUSE_S = 0.015
"""Between two looks at a condition. The first are nearer together: most conditions hold soon."""


async def until(holds: Callable[[], object]) -> None:
    """Wait until a condition holds that other tasks or processes bring about.

    Raises:
        AssertionError: it does not hold in time.
    """
    end, pause = time.monotonic() + DEADLINE_S, 0.001
    while not holds():
        assert time.monotonic() < end, "the condition did not hold in time"
        await asyncio.sleep(pause)
        pause = min(1.2 * pause, MAX_PAUSE_S)

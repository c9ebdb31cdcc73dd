"""Wait for a condition that no event announces: `until` in an event loop, else `wait_until`."""

import asyncio
import inspect
import time
from collections.abc import Awaitable, Callable, Iterator
from typing import TypeVar

DEADLINE_S = 60.0
MAX_PAUSE_S = 0.015
"""Between two looks at a condition. The first are nearer together: most conditions hold soon."""

T = TypeVar("T")


async def until(
    look: Callable[[], T | Awaitable[T]],
    wanted: Callable[[T], object] = bool,
    *,
    why: str | Callable[[], str] = "",
    deadline_s: float = DEADLINE_S,
) -> T:
    """Look until `wanted` holds for what is seen, and return it.

    Args:
        look: Returns what is seen now, or a coroutine that does.
        wanted: Is true when the wait is over; by default, when something true is seen.
        why: What did not happen, for the error; a function is called for it then.
        deadline_s: How long it may take; more than a minute only for what has many steps.

    Raises:
        AssertionError: it does not hold in time; the error has what was seen last.
    """
    pauses = _pauses(deadline_s)
    while True:
        seen = look()
        if inspect.isawaitable(seen):
            seen = await seen
        if wanted(seen):
            return seen
        await asyncio.sleep(_next_pause(pauses, seen, why))


def wait_until(
    look: Callable[[], T],
    wanted: Callable[[T], object] = bool,
    *,
    why: str | Callable[[], str] = "",
    deadline_s: float = DEADLINE_S,
) -> T:
    """Do as `until` does, without an event loop: it blocks the thread."""
    pauses = _pauses(deadline_s)
    while not wanted(seen := look()):
        time.sleep(_next_pause(pauses, seen, why))
    return seen


def _pauses(deadline_s: float) -> Iterator[float]:
    end, pause = time.monotonic() + deadline_s, 0.001
    while time.monotonic() < end:
        yield pause
        pause = min(1.2 * pause, MAX_PAUSE_S)


def _next_pause(pauses: Iterator[float], seen: object, why: str | Callable[[], str]) -> float:
    pause = next(pauses, None)
    if pause is None:
        what = why if isinstance(why, str) else why()
        raise AssertionError(f"{what or 'the condition did not hold in time'}; seen last: {seen!r}")
    return pause

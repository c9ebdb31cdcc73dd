"""The restart policies: whether a node that ended is restarted, and when."""

from collections.abc import Callable

from msgspec import Struct

from dorad.dataflow.settings import Restart as RestartKeys
from dorad.dataflow.settings import RestartPolicy

MAX_DOUBLINGS = 16
JITTER = 0.25
"""Maximum random addition to a delay, as a fraction of it: nodes that ended together then restart
at different times."""


class RestartHistory(Struct, frozen=True):
    """How often a node was restarted within its window; times in monotonic seconds."""

    count: int = 0
    window_start: float | None = None
    """None until the first process has started."""


class Restart(Struct, frozen=True):
    """The node is restarted."""

    after: float
    """Seconds from its end to its restart."""
    history: RestartHistory


class GiveUp(Struct, frozen=True):
    """The node has reached the maximum number of restarts."""

    reason: str
    """Words that follow the reason of its end: `gave up after 3 restarts`."""


class NoRestart(Struct, frozen=True):
    """The policy does not restart the node."""


Decision = Restart | GiveUp | NoRestart


def decide(
    keys: RestartKeys, ok: bool, history: RestartHistory, now: float, random: Callable[[], float]
) -> Decision:
    """Return what the restart policy does after the end of a node; `ok` if it ended well.

    The counter starts again at 0 when the restart window has passed. The delay doubles with every
    restart within the window, up to `max_restart_delay`, and a random part is added to it below
    that bound; `random` returns a number from 0 to 1.
    """
    if keys.policy is RestartPolicy.NEVER or (keys.policy is RestartPolicy.ON_FAILURE and ok):
        return NoRestart()
    count, start = history.count, history.window_start
    if start is None:
        start = now
    elif keys.window is not None and now - start > keys.window:
        count, start = 0, now
    if 0 < keys.max_restarts <= count:
        times = "restart" if count == 1 else "restarts"
        within = "" if keys.window is None else f" within {keys.window:g} s"
        return GiveUp(f"gave up after {count} {times}{within}")
    return Restart(_delay(keys, count, random), RestartHistory(count + 1, start))


def _delay(keys: RestartKeys, before: int, random: Callable[[], float]) -> float:
    """Return the seconds to wait after `before` restarts within the window."""
    base = (keys.delay or 0.0) * 2.0 ** min(before, MAX_DOUBLINGS)
    delay = base * (1 + JITTER * random())
    return delay if keys.max_delay is None else min(delay, keys.max_delay)

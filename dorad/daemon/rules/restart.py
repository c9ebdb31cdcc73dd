"""Whether a node that ended is started again, and when: the restart policies as one function."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec import Struct

from dorad.dataflow.model import RestartPolicy

if TYPE_CHECKING:
    from collections.abc import Callable

    from dorad.dataflow.model import Restart as RestartKeys

MAX_DOUBLINGS = 16
JITTER = 0.25
"""The greatest part of a delay that is added to it by chance, so that nodes that fell together do
not rise together."""


class History(Struct, frozen=True):
    """How often a node was restarted within its window; times in monotonic seconds."""

    count: int = 0
    window_start: float | None = None
    """None until it is first looked at."""


class Restart(Struct, frozen=True):
    """Start it again."""

    after: float
    """Seconds from its end."""
    history: History


class GiveUp(Struct, frozen=True):
    """Its policy would restart it, but its limit is reached."""

    reason: str
    """Goes on after how it ended: `gave up after 3 restarts`."""


class NoRestart(Struct, frozen=True):
    """Its policy does not restart it."""


Decision = Restart | GiveUp | NoRestart


def decide(
    keys: RestartKeys, ok: bool, history: History, now: float, random: Callable[[], float]
) -> Decision:
    """Return what follows on the end of a node whose restarts are not disabled.

    The counter starts anew once more than `restart_window` seconds have passed since the window
    began. The delay doubles with every restart within the window, up to `max_restart_delay`;
    `random` returns a number from 0 to 1 for the part that is added by chance, which never
    lifts a delay above its cap.
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
    return Restart(_delay(keys, count, random), History(count + 1, start))


def _delay(keys: RestartKeys, before: int, random: Callable[[], float]) -> float:
    """Return the seconds to wait after `before` restarts within the window."""
    base = (keys.delay or 0.0) * 2.0 ** min(before, MAX_DOUBLINGS)
    delay = base * (1 + JITTER * random())
    return delay if keys.max_delay is None else min(delay, keys.max_delay)

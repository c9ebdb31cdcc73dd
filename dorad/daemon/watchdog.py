"""Signs of life for systemd: given only while the daemon does its work in time."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from dorad.daemon.notify import ServiceNotifier

IDLE_SECONDS = 2.0
"""Between looks where nobody watches; systemd is told how things are all the same."""
_BEATS = 4
"""Beats in the time that systemd waits for one."""
_log = logging.getLogger("dorad")


@dataclass(frozen=True, slots=True)
class Heartbeat:
    """What is known at one look: how late it is, and what is wrong."""

    lag: float
    """Seconds after the moment at which it was due."""
    fault: str | None
    """What the daemon's own checks have found."""


def verdict(beat: Heartbeat, patience: float) -> str | None:
    """Return why the watchdog is not to be fed, None if it is.

    `patience` is in seconds, how long systemd waits. A loop that is behind by half of that does
    nobody any good even if it comes round; when it is in time again, it is fed again.
    """
    if beat.lag > patience / 2:
        return f"the event loop is {beat.lag:.1f} s late"
    return beat.fault


async def watch(
    notices: ServiceNotifier, check: Callable[[], str | None], status: Callable[[], str]
) -> None:
    """Feed the watchdog until cancelled, and keep systemd's status line up to date."""
    loop = asyncio.get_running_loop()
    patience = notices.watchdog_seconds
    interval = IDLE_SECONDS if patience is None else patience / _BEATS
    before: str | None = None
    while True:
        due = loop.time() + interval
        await asyncio.sleep(interval)
        why = verdict(Heartbeat(loop.time() - due, check()), patience or 2 * interval)
        if why is None:
            if patience is not None:
                notices.alive()
            notices.status(status())
        else:
            notices.status(f"not well: {why}")
            if why != before:
                _log.error("not well: %s", why)
        before = why

"""Notify systemd that a service is ready, of its status, and feed the watchdog.

Without systemd, nothing is sent.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Callable
from dataclasses import dataclass

from sdnotify import SystemdNotifier

IDLE_S = 2.0
"""Time between two updates of the status line without a watchdog."""

_BEATS = 4
"""Notifications per watchdog timeout."""
_SEND_TIMEOUT_S = 1.0
_log = logging.getLogger(__name__)


class ServiceNotifier:
    """Sends notifications to systemd, if it has started this process."""

    def __init__(self) -> None:
        self._notifier: SystemdNotifier | None = None
        self._status = ""
        if os.environ.get("NOTIFY_SOCKET"):
            try:
                self._notifier = SystemdNotifier(debug=True)
                self._notifier.socket.settimeout(_SEND_TIMEOUT_S)
            except OSError as error:
                _log.warning("cannot notify systemd: %s", error)

    @property
    def watchdog_seconds(self) -> float | None:
        """Time after which systemd kills a silent service; None if it has no watchdog."""
        micros = os.environ.get("WATCHDOG_USEC", "")
        pid = os.environ.get("WATCHDOG_PID", str(os.getpid()))
        if self._notifier is None or not micros.isdecimal() or pid != str(os.getpid()):
            return None
        return int(micros) / 1e6

    def ready(self, status: str) -> None:
        """Report that the service works; also ends a reload."""
        self._send(f"READY=1\nSTATUS={_line(status)}")
        self._status = status

    def reloading(self) -> None:
        """Report that the configuration is being reloaded; `ready` must follow."""
        self._send(f"RELOADING=1\nMONOTONIC_USEC={time.monotonic_ns() // 1000}")

    def stopping(self, status: str) -> None:
        """Report that the service ends."""
        self._send(f"STOPPING=1\nSTATUS={_line(status)}")

    def status(self, status: str) -> None:
        """Report the status, if it has changed."""
        if status != self._status:
            self._status = status
            self._send(f"STATUS={_line(status)}")

    def alive(self) -> None:
        """Feed the watchdog."""
        self._send("WATCHDOG=1")

    def close(self) -> None:
        """Send nothing from now on. Idempotent."""
        if self._notifier is not None:
            self._notifier.socket.close()
            self._notifier = None

    def _send(self, text: str) -> None:
        if self._notifier is None:
            return
        _log.debug("notifying systemd: %r", text)
        try:
            # The library encodes Latin-1, and systemd expects UTF-8: this passes the bytes through.
            self._notifier.notify(text.encode().decode("latin-1"))
        except OSError as error:
            _log.warning("could not send %r to systemd: %s", text, error)


def _line(text: str) -> str:
    return " ".join(text.split())


@dataclass(frozen=True, slots=True)
class Heartbeat:
    """The result of one check."""

    lag: float
    """Time in seconds by which the check came late."""
    fault: str | None
    """A fault of the service itself."""


def unhealthy(beat: Heartbeat, timeout: float) -> str | None:
    """Return the reason not to feed the watchdog, or None.

    `timeout` is that of systemd's watchdog. An event loop that is late by half of it does not serve
    its clients. Once it is in time again, the watchdog is fed again.
    """
    if beat.lag > timeout / 2:
        return f"the event loop is {beat.lag:.1f} s late"
    return beat.fault


async def feed_watchdog(
    notifier: ServiceNotifier, check: Callable[[], str | None], status: Callable[[], str]
) -> None:
    """Feed the watchdog while the service is healthy, and update the status, until cancelled."""
    loop = asyncio.get_running_loop()
    timeout = notifier.watchdog_seconds
    interval = IDLE_S if timeout is None else timeout / _BEATS
    before: str | None = None
    while True:
        due = loop.time() + interval
        await asyncio.sleep(interval)
        why = unhealthy(Heartbeat(loop.time() - due, check()), timeout or 2 * interval)
        if why is None:
            if timeout is not None:
                notifier.alive()
            notifier.status(status())
        else:
            notifier.status(f"unhealthy: {why}")
            if why != before:
                _log.error("unhealthy: %s", why)
        before = why

"""What systemd is told of the daemon: ready, how it is, that it is alive. Nothing elsewhere."""

from __future__ import annotations

import logging
import os
import time

from sdnotify import SystemdNotifier

_SEND_SECONDS = 1.0
_log = logging.getLogger("dorad")


class ServiceNotifier:
    """Talks to the systemd that has started this process, if one has."""

    def __init__(self) -> None:
        self._notifier: SystemdNotifier | None = None
        self._status = ""
        if os.environ.get("NOTIFY_SOCKET"):
            try:
                self._notifier = SystemdNotifier(debug=True)
                self._notifier.socket.settimeout(_SEND_SECONDS)
            except OSError as error:
                _log.warning("systemd cannot be told anything: %s", error)

    @property
    def watchdog_seconds(self) -> float | None:
        """How long systemd waits for a sign of life; None: it does not."""
        micros = os.environ.get("WATCHDOG_USEC", "")
        pid = os.environ.get("WATCHDOG_PID", str(os.getpid()))
        if self._notifier is None or not micros.isdecimal() or pid != str(os.getpid()):
            return None
        return int(micros) / 1e6

    def ready(self, status: str) -> None:
        """Say that everything works; also ends a reload."""
        self._say(f"READY=1\nSTATUS={_line(status)}")
        self._status = status

    def reloading(self) -> None:
        """Say that the configuration is read again; `ready` has to follow."""
        self._say(f"RELOADING=1\nMONOTONIC_USEC={time.monotonic_ns() // 1000}")

    def stopping(self, status: str) -> None:
        """Say that the daemon ends."""
        self._say(f"STOPPING=1\nSTATUS={_line(status)}")

    def status(self, status: str) -> None:
        """Say how things are, if that has changed."""
        if status != self._status:
            self._status = status
            self._say(f"STATUS={_line(status)}")

    def alive(self) -> None:
        """Feed the watchdog."""
        self._say("WATCHDOG=1")

    def close(self) -> None:
        """Say nothing any more. Idempotent."""
        if self._notifier is not None:
            self._notifier.socket.close()
            self._notifier = None

    def _say(self, text: str) -> None:
        if self._notifier is None:
            return
        try:
            # The library knows only Latin-1; systemd wants UTF-8, whose bytes pass through it so.
            self._notifier.notify(text.encode().decode("latin-1"))
        except OSError as error:
            _log.warning("systemd was not told %r: %s", text, error)


def _line(text: str) -> str:
    return " ".join(text.split())

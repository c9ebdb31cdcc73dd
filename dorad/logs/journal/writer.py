"""The socket of the journal: sending never blocks, and no entry is lost when it is full."""

from __future__ import annotations

import asyncio
import errno
import fcntl
import os
import socket
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from dorad.logrecord import Level

SOCKET = "/run/systemd/journal/socket"
TIMEOUT_S = 10.0
"""Seconds that nodes wait for a full journal before their lines go to files instead."""
RETRY_S = 3.0
"""Seconds between attempts after that."""

_POLL_S = 0.1
_BUFFER = 8 << 20
_FULL = {errno.EAGAIN, errno.ENOBUFS, errno.ENOMEM, errno.ETOOMANYREFS}

_SEALS = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE | fcntl.F_SEAL_SEAL


class Journal:
    """One connection to the journal. Belongs to one event loop."""

    def __init__(
        self,
        path: str,
        report: Callable[[Level, str], None],
    ) -> None:
        """`report` gets a level and a sentence when the journal stops or resumes taking entries."""
        self._path = path
        self._report = report
        self._socket: socket.socket | None = None
        self._stuck_since: float | None = None
        self._next_try = 0.0
        self._reported = False
        self._waiting: list[Callable[[], None]] = []
        self._timer: asyncio.TimerHandle | None = None

    def usable(self) -> bool:
        """Return True if it is worth sending now: not given up, or time for another attempt."""
        return not self.given_up() or time.monotonic() >= self._next_try

    def given_up(self) -> bool:
        """Return True if the journal has taken nothing for too long: lines go elsewhere."""
        since = self._stuck_since
        return since is not None and time.monotonic() - since >= TIMEOUT_S

    def send(self, entry: bytes) -> bool:
        """Send an entry; return False if the journal did not take it. Never blocks."""
        try:
            self._send(entry)
        except OSError as error:
            self._failed(error)
            return False
        self._stuck_since = None
        if self._reported:
            self._reported = False
            self._report("warn", "the journal takes lines again")
        return True

    def when_writable(self, callback: Callable[[], None]) -> None:
        """Call back once when the journal may take entries again, or after a short while."""
        self._waiting.append(callback)
        if self._timer is None:
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(_POLL_S, self._wake)
            if self._socket is not None:
                loop.add_writer(self._socket, self._wake)

    def close(self) -> None:
        """Close the connection. Idempotent."""
        self._stop_waiting()
        self._waiting.clear()
        self._disconnect()

    def _send(self, entry: bytes) -> None:
        if self._socket is None:
            self._socket = _connected(self._path)
        try:
            self._socket.send(entry)
        except OSError as error:
            if error.errno != errno.EMSGSIZE:
                raise
            self._send_memory(self._socket, entry)

    def _send_memory(self, connection: socket.socket, entry: bytes) -> None:
        """Send an entry that is too large for a datagram, as sealed memory."""
        memory = os.memfd_create("dora-entry", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        try:
            with open(memory, "wb", closefd=False) as file:
                file.write(entry)
            fcntl.fcntl(memory, fcntl.F_ADD_SEALS, _SEALS)
            socket.send_fds(connection, [b""], [memory])
        finally:
            os.close(memory)

    def _failed(self, error: OSError) -> None:
        now = time.monotonic()
        if self._stuck_since is None:
            self._stuck_since = now
        if error.errno not in _FULL:
            self._disconnect()
        if self.given_up():
            self._next_try = now + RETRY_S
            if not self._reported:
                self._reported = True
                reason = "it is full" if error.errno in _FULL else error.strerror or str(error)
                self._report(
                    "error",
                    f"the journal takes no lines ({self._path}: {reason}); they go to files"
                    " until it does; see `systemctl status systemd-journald`",
                )

    def _disconnect(self) -> None:
        if self._socket is not None:
            self._stop_waiting()
            self._socket.close()
            self._socket = None
            if self._waiting:
                loop = asyncio.get_running_loop()
                self._timer = loop.call_later(_POLL_S, self._wake)

    def _stop_waiting(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
            if self._socket is not None:
                asyncio.get_running_loop().remove_writer(self._socket)

    def _wake(self) -> None:
        self._stop_waiting()
        waiting, self._waiting = self._waiting, []
        for callback in waiting:
            callback()


def _connected(path: str) -> socket.socket:
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
    try:
        connection.setblocking(False)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _BUFFER)
        connection.connect(path)
    except OSError:
        connection.close()
        raise
    return connection

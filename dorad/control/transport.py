"""The bytes of a connection: a socket as it is. `tlstransport` has the one with TLS."""

from __future__ import annotations

import select
import socket
from contextlib import suppress
from typing import Protocol


class Transport(Protocol):
    """Sends and receives bytes. One thread may receive while others send, one at a time."""

    def send(self, data: bytes) -> None:
        """Send everything.

        Raises:
            BlockingIOError: the peer does not read.
            OSError: the connection has ended.
        """

    def send_now(self, data: bytes) -> None:
        """Send as much as possible without waiting. Raises OSError."""

    def receive(self, size: int, timeout: float) -> bytes:
        """Return at most `size` bytes, or none at the end of the connection.

        Raises:
            TimeoutError: nothing arrived within `timeout` seconds.
            OSError: the connection has ended.
        """

    def close(self) -> None:
        """Close the connection. A thread inside `receive` gets its end."""


class SocketTransport:
    """A connected socket in blocking mode; its own timeout limits sending."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._readable = select.poll()
        self._readable.register(sock, select.POLLIN)

    def send(self, data: bytes) -> None:
        """Send everything."""
        self._sock.sendall(data)

    def send_now(self, data: bytes) -> None:
        """Send as much as possible without waiting."""
        self._sock.send(data, socket.MSG_DONTWAIT)

    def receive(self, size: int, timeout: float) -> bytes:
        """Return at most `size` bytes, or none at the end of the connection."""
        if not self._readable.poll(max(0.0, timeout) * 1e3):
            raise TimeoutError
        return self._sock.recv(size)

    def close(self) -> None:
        """Close the connection."""
        with suppress(OSError):  # the peer has closed it already
            self._sock.shutdown(socket.SHUT_RDWR)
        self._sock.close()

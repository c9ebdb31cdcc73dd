"""The bytes of a connection over TLS, for threads that send while another one receives.

Python's own TLS sockets cannot be used by two threads at once. Here OpenSSL only sees memory, under
a lock that is never held while waiting for the network.
"""

from __future__ import annotations

import ssl
import threading
import time
from typing import TYPE_CHECKING

from dorad.control.errors import ControlError
from dorad.control.tls import check_coordinator

if TYPE_CHECKING:
    from dorad.control.faults import Server
    from dorad.control.transport import SocketTransport

_CHUNK = 64 << 10


class TlsTransport:
    """A connection to a coordinator over TLS."""

    def __init__(self, below: SocketTransport, context: ssl.SSLContext, timeout: float) -> None:
        """Make the handshake.

        Raises:
            ControlError: the server is not a coordinator.
            TimeoutError: the handshake was not complete after `timeout` seconds.
            OSError: it failed.
        """
        self._below = below
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing)
        self._lock = threading.Lock()
        """Protects the three above."""
        self._sending = threading.Lock()
        """Keeps records on the wire in the order of their creation."""
        deadline = time.monotonic() + timeout
        while not self._shake_hands():
            self._flush()
            self._feed(deadline - time.monotonic())
        self._flush()
        check_coordinator(self._tls)

    def send(self, data: bytes) -> None:
        """Send everything."""
        with self._sending:
            self._below.send(self._encrypt(data))

    def send_now(self, data: bytes) -> None:
        """Send as much as possible without waiting."""
        with self._sending:
            self._below.send_now(self._encrypt(data))

    def receive(self, size: int, timeout: float) -> bytes:
        """Return at most `size` bytes, or none at the end of the connection."""
        deadline = time.monotonic() + timeout
        while True:
            try:
                with self._lock:
                    return self._tls.read(size)
            except ssl.SSLZeroReturnError:
                return b""
            except ssl.SSLWantReadError:
                if self._outgoing.pending:  # the peer wants new keys
                    self._flush()
            self._feed(deadline - time.monotonic())

    def close(self) -> None:
        """Close the connection."""
        self._below.close()

    def _shake_hands(self) -> bool:
        """Continue the handshake; return True at its end."""
        try:
            self._tls.do_handshake()
        except ssl.SSLWantReadError:
            return False
        return True

    def _encrypt(self, data: bytes) -> bytes:
        left = memoryview(data)
        with self._lock:
            while left:
                left = left[self._tls.write(left) :]
            return self._outgoing.read()

    def _flush(self) -> None:
        with self._sending:
            self._below.send(self._encrypt(b""))

    def _feed(self, timeout: float) -> None:
        data = self._below.receive(_CHUNK, timeout)
        with self._lock:
            if data:
                self._incoming.write(data)
            else:
                self._incoming.write_eof()


def tls_failed(server: Server, error: Exception) -> ControlError:
    """Return the error for a connection that ended before its WebSocket was open."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return ControlError(
            "refused",
            f"{server.place} is not of this fleet: {error.verify_message}",
            "check that `ca` is the authority of its fleet; after a hand-over of the authority an "
            "admin makes a new file: `dorafleet operator add`",
        )
    reason = "it ended the connection" if isinstance(error, OSError) else str(error)
    if isinstance(error, ssl.SSLError) and not isinstance(error, ssl.SSLEOFError) and error.reason:
        reason = error.reason.replace("_", " ").lower()
    hint = "check that it speaks TLS at this port"
    return ControlError(
        "refused",
        f"TLS with {server.place} failed: {reason}",
        f"{hint}, and that your certificate, if you have one, is of its fleet and not revoked",
    )

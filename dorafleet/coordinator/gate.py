"""Bound the number of sockets that are not authenticated yet.

Any host on the network may open connections, and hold them open without sending. At most
`MAX_PENDING` wait at a time. A further one replaces the oldest one of the host with the most.
"""

from __future__ import annotations

import logging
import socket
import time
from collections import Counter
from contextlib import suppress
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

MAX_PENDING = 256

MIN_HANDSHAKE_S = 1.0
"""Seconds after which a socket without a handshake may lose its place; one takes milliseconds."""

KEEPALIVE = {
    socket.TCP_KEEPIDLE: 30,
    socket.TCP_KEEPINTVL: 10,
    socket.TCP_KEEPCNT: 3,
    socket.TCP_USER_TIMEOUT: 60_000,
}
"""A peer that vanishes is detected after a minute."""

_log = logging.getLogger(__name__)


class Pending(NamedTuple):
    """A connection that is not admitted yet."""

    host: str
    since: float


def choose_victim(pending: Mapping[Any, Pending], host: str, now: float) -> Any:
    """Return which connection a new one from `host` replaces; None if it gets no place itself."""
    counts = Counter(each.host for each in pending.values())
    busiest, most = counts.most_common(1)[0]
    key, oldest = min(
        ((key, each) for key, each in pending.items() if each.host == busiest),
        key=lambda item: item[1].since,
    )
    # With equal shares two hosts would replace each other's connections again and again.
    if most > counts[host] + 1 or now - oldest.since >= MIN_HANDSHAKE_S:
        return key
    return None


class Gate:
    """Counts connections until they are admitted or closed."""

    def __init__(
        self, limit: int = MAX_PENDING, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """`limit` is the maximum number of connections that are not admitted."""
        self._limit = limit
        self._clock = clock
        self._sockets: dict[Any, _Accepted] = {}
        """By the address of the peer."""
        self._pending: dict[Any, Pending] = {}

    def __len__(self) -> int:
        """Return the number of connections that are not admitted."""
        return len(self._pending)

    def enter(self, connection: socket.socket, address: Any) -> socket.socket | None:
        """Return the socket of a new connection, None if there is no place for it."""
        now, host = self._clock(), address[0]
        if len(self._pending) >= self._limit:
            victim = choose_victim(self._pending, host, now)
            if victim is None:
                _log.debug("no place for a connection from %s", host)
                return None
            _log.debug("a connection from %s replaces one from %s", host, victim[0])
            self._pending.pop(victim)
            # Not `close`: the descriptor belongs to the transport, which notices the end.
            with suppress(OSError):
                self._sockets.pop(victim).shutdown(socket.SHUT_RDWR)
        accepted = _Accepted(self, address, connection)
        self._sockets[address] = accepted
        self._pending[address] = Pending(host, now)
        return accepted

    def admit(self, address: Any) -> None:
        """Stop counting the connection from this address: it is authenticated."""
        self._pending.pop(address, None)
        self._sockets.pop(address, None)

    def closed(self, accepted: _Accepted) -> None:
        """Stop counting a connection that was closed."""
        if self._sockets.get(accepted.address) is accepted:
            _log.debug("a connection from %s ended before it was admitted", accepted.address[0])
            self.admit(accepted.address)


class _Accepted(socket.socket):
    """A connection that notifies its gate when it is closed."""

    def __init__(self, gate: Gate, address: Any, connection: socket.socket) -> None:
        super().__init__(connection.family, connection.type, connection.proto, connection.detach())
        self._gate = gate
        self.address = address

    def close(self) -> None:
        """Close the socket."""
        self._gate.closed(self)
        super().close()


class GatedSocket(socket.socket):
    """A listening socket that accepts a connection only if its gate has a place."""

    def __init__(self, family: socket.AddressFamily, gate: Gate) -> None:
        super().__init__(family, socket.SOCK_STREAM)
        self._gate = gate

    def accept(self) -> tuple[socket.socket, Any]:
        """Return the next connection. Raises BlockingIOError if there is none."""
        while True:
            connection, address = super().accept()
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            for option, value in KEEPALIVE.items():
                connection.setsockopt(socket.IPPROTO_TCP, option, value)
            accepted = self._gate.enter(connection, address)
            if accepted is not None:
                return accepted, address
            connection.close()

"""The limits of the control API: sizes, counts and times."""

from __future__ import annotations

import time
from collections import Counter
from typing import TYPE_CHECKING

import msgspec

from dorad.control.errors import ControlError

if TYPE_CHECKING:
    from websockets.frames import Frame

    from dorad.control.peer import Peer

MAX_REQUEST = 4 << 20
"""Maximum bytes of a frame from a client. A larger one closes its connection with code 1009."""

MAX_REPLY = 64 << 20
"""Maximum bytes of a frame from the daemon."""

IDLE_FRAMES = 256
IDLE_S = 10.0
"""A peer may send this many frames without a message in this many seconds: pings, pongs, and
pieces of a message shorter than `SHORT_PIECE`. Nothing else limits them: each ping has an answer,
which waits in memory until the peer reads, and each piece waits for the last one."""

SHORT_PIECE = 1024
"""Bytes; the longer pieces of a message count for its size."""

_CONTROL = (9, 10)
"""The opcodes of pings and pongs."""

_RESERVES = {"viewer": 2, "enrolling": 2, "operator": 1}
"""How many of the reserves are not for a role."""


class Limits(msgspec.Struct, frozen=True):
    """Limits on a server's clients. Times are in seconds."""

    connections: int = 128
    """Maximum number of clients; a further one is answered with HTTP status 503."""
    connections_each: int | None = None
    """Maximum number of clients with one name."""
    accepted_each: int = 4
    """Maximum number of open connections of one peer that is a server itself: a robot. One is in
    use, one takes its place, and others are being closed."""
    reserve: int = 0
    """How many of `connections` are for admins only, and as many more for admins and operators."""
    opening: int = 512
    """Maximum number of open sockets, including those that have sent no request yet."""
    calls: int = 64
    """Maximum number of calls that run at a time for one client."""
    streams: int = 32
    """Maximum number of streams that run at a time for one client."""
    calls_each: int | None = None
    streams_each: int | None = None
    """The same for all clients with one name."""
    hello: float = 10.0
    """Time from the connection to the HTTP request, and from there to the `hello` frame."""
    call: float = 60.0
    """Time for a call whose parameters do not request more."""
    reply: int = MAX_REPLY
    """Maximum bytes of a frame to the client."""
    retry_after: int = 1
    """Seconds to wait before the next try, for who is answered with HTTP status 503."""
    slow: float = 120.0
    """Time for a client to read one frame; then its stream, or its connection, is ended."""


class IdleFrames:
    """Counts the frames of one peer that carry no message."""

    def __init__(self) -> None:
        self._since = time.monotonic()
        self._count = 0

    def too_many(self, frame: Frame) -> bool:
        """Return True if a frame that has arrived is one too many."""
        is_piece = not frame.fin and len(frame.data) < SHORT_PIECE
        if frame.opcode not in _CONTROL and not is_piece:
            return False
        if (now := time.monotonic()) - self._since >= IDLE_S:
            self._since, self._count = now, 0
        self._count += 1
        return self._count > IDLE_FRAMES


class Usage:
    """What the clients of a server use at the moment, by the owner of their connections."""

    def __init__(self) -> None:
        self.connections: Counter[str] = Counter()
        self.calls: Counter[str] = Counter()
        self.streams: Counter[str] = Counter()


class Held:
    """One of the things that an owner has, counted until `release`."""

    def __init__(self, counts: Counter[str], owner: str) -> None:
        self._counts: Counter[str] | None = counts
        self._owner = owner
        counts[owner] += 1

    def release(self) -> None:
        """Stop counting it. Releasing it twice does nothing."""
        counts, self._counts = self._counts, None
        if counts is None:
            return
        counts[self._owner] -= 1
        if not counts[self._owner]:
            del counts[self._owner]


def check_client(limits: Limits, server: str, peer: Peer, usage: Usage) -> None:
    """Check that one more client of this owner may connect.

    Raises:
        ControlError: with code `busy`.
    """
    own, total = usage.connections[peer.owner], usage.connections.total()
    if limits.connections_each is not None and own >= limits.connections_each:
        raise ControlError(
            "busy",
            f"`{peer}` has {own} connections to this {server}, the maximum for one name",
            "end some of its programs, or give each program a token of its own",
        )
    kept = _RESERVES.get(peer.role, 0) * limits.reserve
    if total >= limits.connections - kept:
        others = f"; {kept} more are for higher roles" if kept else ""
        raise ControlError(
            "busy",
            f"{server} has {total} clients, the maximum{others}",
            "try again when some of them have disconnected",
        )

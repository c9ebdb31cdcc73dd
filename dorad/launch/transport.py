"""Send and receive data with descriptors over Unix sockets, in order, without ever blocking.

Few imports, because a process holder pays for each one before it starts the first node.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from collections import deque

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

_FULL = frozenset({errno.EAGAIN, errno.ETOOMANYREFS, errno.ENOBUFS, errno.ENOMEM})
"""Errors after which sending succeeds once the peer has read some of its backlog."""
_INT = struct.Struct("i")


class SendQueue:
    """Sends at once if the socket takes it; queues the rest until `flush` is called.

    The owner calls `flush` when the socket is writable, for as long as there is a backlog.
    """

    def __init__(
        self,
        sock: socket.socket,
        on_backlog: Callable[[bool], None],
        *,
        duplicates: bool = True,
    ) -> None:
        """Call `on_backlog` with True when a backlog begins, and with False when it ends.

        Queued descriptors are duplicated, so that the caller may close its own. Without
        `duplicates` the caller keeps them open until they are sent.
        """
        self._sock = sock
        self._on_backlog = on_backlog
        self._duplicates = duplicates
        self._waiting: deque[tuple[bytes, Sequence[int]]] = deque()

    @property
    def has_backlog(self) -> bool:
        """Whether something waits to be sent."""
        return bool(self._waiting)

    def try_send(self, packet: bytes) -> bool:
        """Send a packet now; return False if the socket, or an earlier packet, makes it wait.

        Raises:
            OSError: the peer has closed its end.
        """
        return not self._waiting and self._try(packet, ()) is not None

    def send(self, data: bytes, fds: Sequence[int] = ()) -> None:
        """Send now, or queue what the socket does not take.

        Raises:
            OSError: the peer has closed its end, or no descriptor is left for a duplicate.
        """
        if not self._waiting:
            sent = self._try(data, fds)
            if sent == len(data):
                return
            if sent is not None:
                data, fds = data[sent:], ()  # descriptors go with the first byte
        self._waiting.append((data, duplicate(fds) if self._duplicates else fds))
        if len(self._waiting) == 1:
            self._on_backlog(True)

    def flush(self) -> None:
        """Send as much of the backlog as the socket takes.

        Raises:
            OSError: the peer has closed its end; the backlog stays until `clear`.
        """
        while self._waiting:
            data, fds = self._waiting[0]
            sent = self._try(data, fds)
            if sent is None:
                return
            self._discard(fds)
            if sent < len(data):
                self._waiting[0] = (data[sent:], ())
                return
            self._waiting.popleft()
        self._on_backlog(False)

    def clear(self) -> None:
        """Discard the backlog. Idempotent."""
        if not self._waiting:
            return
        for _, fds in self._waiting:
            self._discard(fds)
        self._waiting.clear()
        self._on_backlog(False)

    def _try(self, data: bytes, fds: Sequence[int]) -> int | None:
        """Return the number of bytes sent; None if the socket takes nothing now."""
        try:
            if fds:
                return socket.send_fds(self._sock, [data], fds)
            return self._sock.send(data)
        except OSError as error:
            if error.errno in _FULL:
                return None
            raise

    def _discard(self, fds: Iterable[int]) -> None:
        if self._duplicates:
            close_all(fds)


def receive(sock: socket.socket, size: int, max_fds: int) -> tuple[bytes, list[int]]:
    """Return a packet of up to `size` bytes and its descriptors; no bytes at the end.

    Children do not inherit the descriptors. (In Python 3.11 `socket.recv_fds` passes no flags.)

    Raises:
        OSError: as `recvmsg`.
    """
    room = socket.CMSG_SPACE(max_fds * _INT.size)
    packet, ancillary, _, _ = sock.recvmsg(size, room, socket.MSG_CMSG_CLOEXEC)
    fds = [
        number
        for level, kind, data in ancillary
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS)
        for (number,) in _INT.iter_unpack(data[: len(data) - len(data) % _INT.size])
    ]
    return packet, fds


def duplicate(fds: Iterable[int]) -> list[int]:
    """Return duplicates of all descriptors. Raises OSError, and then leaves none."""
    duplicates: list[int] = []
    try:
        for fd in fds:
            duplicates.append(os.dup(fd))
    except OSError:
        close_all(duplicates)
        raise
    return duplicates


def close_all(fds: Iterable[int]) -> None:
    """Close descriptors."""
    for fd in fds:
        os.close(fd)

"""One accepted connection of a node: packets in, packets out, nothing blocks."""

from __future__ import annotations

import asyncio
import contextlib
import os
import select
import socket
import struct
from collections import deque
from typing import TYPE_CHECKING, Any

from dorad.node import protocol
from dorad.node.protocol import Packet, ProtocolError

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence

_CREDENTIALS = struct.Struct("3i")

MAX_BACKLOG = 512
"""Packets that may wait for a node that does not read, beyond what its socket holds (about 300)."""

TURN = 64
"""Packets that one node may say before the others are listened to again."""


class Connection:
    """A node's socket. Every received packet goes to `on_packet`, the end to `on_end`, once.

    A packet that is none ends this connection, with the reason, and nothing else; so does a node
    that lets too much of what it is told lie.
    """

    def __init__(
        self,
        sock: socket.socket,
        on_packet: Callable[[Connection, Packet], None],
        on_end: Callable[[Connection, str], None],
        *,
        sent: int = 0,
        pid: int | None = None,
    ) -> None:
        """Listen to an accepted socket, over which `sent` packets went before.

        `pid` is the process at the other end, if the socket itself does not know.
        """
        self.sent = sent
        self.on_sent: Callable[[int], None] | None = None
        """Told how many packets have gone out, whenever one has."""
        self.kept_as: str | None = None
        """The name under which a copy of the socket is kept open."""
        self.pid, self.uid, _ = _CREDENTIALS.unpack(
            sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
        )
        if pid is not None:
            self.pid = pid
        self._sock = sock
        self._on_packet = on_packet
        self._on_end = on_end
        self._backlog: deque[tuple[str, dict[str, Any], list[int]]] = deque()
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(sock.fileno(), self._readable)
        self.closed = False

    @property
    def said(self) -> int:
        """Packets that the node will have read when it has read all it was told so far."""
        return self.sent + len(self._backlog)

    def fileno(self) -> int:
        """Return the socket's descriptor."""
        return self._sock.fileno()

    def hung_up(self) -> bool:
        """Tell whether the node is gone, even if nobody has taken note of it yet."""
        if self.closed:
            return True
        looks = select.poll()
        looks.register(self._sock, select.POLLRDHUP)
        if looks.poll(0):
            return True
        try:
            # A child that it forked may keep the socket open.
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return True
        except PermissionError:
            return False
        return False

    def forget_questions(self, kinds: Collection[str]) -> bool:
        """Leave out what the node has asked so far by packets of these kinds; it will ask again.

        Everything else it has said is heard in the next turn of the loop. False if it has ended.
        """
        while True:
            try:
                packet = protocol.receive(self._sock)
            except BlockingIOError:
                return True
            except (OSError, ProtocolError) as error:
                self._loop.call_soon(self.close, str(error))
                return False
            if packet is None:
                self._loop.call_soon(self.close, "hung up")
                return False
            if packet.kind in kinds:
                packet.close()
            else:
                self._loop.call_soon(self._hear, packet)

    def _hear(self, packet: Packet) -> None:
        try:
            if not self.closed:
                self._on_packet(self, packet)
        except ProtocolError as error:
            self.close(str(error))
        except OSError as error:
            self.close(error.strerror or str(error))
        finally:
            packet.close()

    def _readable(self) -> None:
        for _ in range(TURN):
            if self.closed:
                return
            try:
                packet = protocol.receive(self._sock)
                if packet is None:
                    self.close("hung up")
                    return
                self._hear(packet)
            except BlockingIOError:
                return
            except ProtocolError as error:
                self.close(str(error))
            except OSError as error:
                self.close(error.strerror or str(error))

    def send(self, kind: str, fields: dict[str, Any], fds: tuple[int, ...] = ()) -> None:
        """Send a packet, now or as soon as the node reads; after the end it goes nowhere."""
        if self.closed:
            return
        if not self._backlog and self._deliver(kind, fields, fds):
            return
        if len(self._backlog) == MAX_BACKLOG:
            self.close("does not read what it is sent")
            return
        # What waits must stay open even if the sender closes its own descriptor meanwhile.
        self._backlog.append((kind, fields, [os.dup(fd) for fd in fds]))
        self._loop.add_writer(self._sock.fileno(), self._flush)

    def _flush(self) -> None:
        while self._backlog:
            kind, fields, fds = self._backlog[0]
            if not self._deliver(kind, fields, fds):
                return
            if self.closed:
                return
            self._backlog.popleft()
            _close_all(fds)
        self._loop.remove_writer(self._sock.fileno())

    def _deliver(self, kind: str, fields: dict[str, Any], fds: Sequence[int]) -> bool:
        """Send a packet, or find that the connection has ended; False if it must wait."""
        try:
            protocol.send(self._sock, kind, fields, list(fds))
        except BlockingIOError:
            return False
        except (OSError, ProtocolError) as error:
            self.close(str(error))
            return True
        self.sent += 1
        if self.on_sent is not None:
            self.on_sent(self.sent)
        return True

    def close(self, reason: str) -> None:
        """End the connection."""
        if self.closed:
            return
        self.closed = True
        self._loop.remove_reader(self._sock.fileno())
        self._loop.remove_writer(self._sock.fileno())
        self._sock.close()
        for _, _, fds in self._backlog:
            _close_all(fds)
        self._backlog.clear()
        self._on_end(self, reason)


def _close_all(descriptors: list[int]) -> None:
    for descriptor in descriptors:
        with contextlib.suppress(OSError):
            os.close(descriptor)

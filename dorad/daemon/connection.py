"""One accepted connection of a node: packets in, packets out, nothing blocks."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import struct
from collections import deque
from typing import TYPE_CHECKING, Any

from dorad.node import protocol
from dorad.node.protocol import Packet, ProtocolError

if TYPE_CHECKING:
    from collections.abc import Callable

_CREDENTIALS = struct.Struct("3i")


class Connection:
    """A node's socket. Every received packet goes to `on_packet`, the end to `on_end`, once.

    A packet that is none ends this connection, with the reason, and nothing else.
    """

    def __init__(
        self,
        sock: socket.socket,
        on_packet: Callable[[Connection, Packet], None],
        on_end: Callable[[Connection, str], None],
    ) -> None:
        self.sent = 0
        self.pid, self.uid, _ = _CREDENTIALS.unpack(
            sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
        )
        self._sock = sock
        self._on_packet = on_packet
        self._on_end = on_end
        self._backlog: deque[tuple[str, dict[str, Any], list[int]]] = deque()
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(sock.fileno(), self._readable)
        self.closed = False

    def _readable(self) -> None:
        while not self.closed:
            try:
                packet = protocol.receive(self._sock)
                if packet is None:
                    self.close("hung up")
                    return
                try:
                    self._on_packet(self, packet)
                finally:
                    packet.close()
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
        self.sent += 1
        # What waits must stay open even if the sender closes its own descriptor meanwhile.
        self._backlog.append((kind, fields, [os.dup(fd) for fd in fds]))
        self._flush()

    def _flush(self) -> None:
        while self._backlog:
            kind, fields, fds = self._backlog[0]
            try:
                protocol.send(self._sock, kind, fields, fds)
            except BlockingIOError:
                self._loop.add_writer(self._sock.fileno(), self._flush)
                return
            except (OSError, ProtocolError) as error:
                self.close(str(error))
                return
            self._backlog.popleft()
            _close_all(fds)
        self._loop.remove_writer(self._sock.fileno())

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

"""One accepted connection of a node: packets in, packets out, nothing blocks."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import select
import time
from collections import deque
from typing import TYPE_CHECKING, Any

from dorad.control.peer import peer_of, pidfd_of
from dorad.daemon.broker.foreign import close_apart, close_foreign
from dorad.node import protocol
from dorad.node.protocol import Packet, ProtocolError
from dorad.procinfo import start_time

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Collection, Sequence

MAX_BACKLOG = 512
"""Packets that may wait for a node that does not read, beyond what its socket holds (about 300)."""

MAX_UNHEARD = 512
"""More packets than a socket holds: those that come after are said to the new daemon."""
HUNG_UP = "hung up"
"""Why a connection ends that its node has ended."""

SCM_MAX_FD = 253
"""Descriptors that may come with a packet; all are received, since even the kernel may wait as it
closes one."""

TURN = 64
"""Packets that one node may say before the others are listened to again."""

SHARE = 0.2
"""What part of the daemon's time one node may take with its packets, beyond `BURST_S`."""

BURST_S = 0.1
"""Seconds of the daemon's time that a node may take at once."""

_log = logging.getLogger(__name__)


class Connection:
    """A node's socket. Every received packet goes to `on_packet`, the end to `on_end`, once.

    A packet that is none ends this connection, with the reason, and nothing else; so does a node
    that lets too much of what it is told lie. A node that says very much is heard slowly.
    """

    def __init__(
        self,
        sock: socket.socket,
        on_packet: Callable[[Connection, Packet], None],
        on_end: Callable[[Connection, str], None],
        *,
        sent: int = 0,
        pid: int | None = None,
        reserved_for: str | None = None,
    ) -> None:
        """Listen to an accepted socket, over which `sent` packets went before.

        `pid` is the process at the other end, if the socket itself does not know; `reserved_for` is
        the observer that alone may say hello over it.
        """
        self.sent = sent
        self.on_sent: Callable[[int], None] | None = None
        """Called with the number of packets sent, after each one."""
        self.kept_as: str | None = None
        """The name under which a copy of the socket is kept open."""
        self.peer = peer_of(sock)
        self.pid = self.peer.pid if pid is None else pid
        self.reserved_for = reserved_for
        self._started = start_time(self.pid)
        self._sock = sock
        self._on_packet = on_packet
        self._on_end = on_end
        self._backlog: deque[tuple[str, dict[str, Any], list[int]]] = deque()
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(sock.fileno(), self._readable)
        self.closed = False
        self.violation: str | None = None
        """What the node did wrong, if the connection was ended for that."""
        self._credit = BURST_S
        """Seconds that may be spent on the node's packets, as of `_credited_at`."""
        self._credited_at = time.monotonic()
        self._rest: asyncio.TimerHandle | None = None
        """Set while the node is not listened to."""

    @property
    def said(self) -> int:
        """Packets that the node will have read when it has read all it was told so far."""
        return self.sent + len(self._backlog)

    def fileno(self) -> int:
        """Return the socket's descriptor."""
        return self._sock.fileno()

    def pidfd(self) -> int:
        """Return a descriptor of the process that connected. Raises OSError if it has ended."""
        return pidfd_of(self._sock)

    def is_original(self) -> bool:
        """Tell whether the process with this pid is the one that had it at the beginning."""
        return self._started is not None and start_time(self.pid) == self._started

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
        for _ in range(MAX_UNHEARD):
            try:
                packet = self._receive()
            except BlockingIOError:
                return True
            except (OSError, ProtocolError) as error:
                self._loop.call_soon(self.refuse, str(error))
                return False
            if packet is None:
                self._loop.call_soon(self.close, HUNG_UP)
                return False
            if packet.kind in kinds:
                packet.close()
            else:
                self._loop.call_soon(self._hear, packet)
        return True

    def _receive(self) -> Packet | None:
        return protocol.receive(self._sock, closes=close_foreign, room=SCM_MAX_FD)

    def _hear(self, packet: Packet) -> None:
        try:
            if not self.closed:
                self._on_packet(self, packet)
        except ProtocolError as error:
            self.refuse(str(error))
        except OSError as error:
            self.close(error.strerror or str(error))
        except Exception:  # noqa: BLE001 - a fault that one node meets must not reach the others
            _log.exception("process %d said %r", self.pid, packet.kind)
            self.refuse(f"packet {packet.kind!r} met a fault of dorad")
        finally:
            packet.close()

    def _readable(self) -> None:
        begun = time.monotonic()
        for _ in range(TURN):
            if self.closed:
                return
            try:
                packet = self._receive()
                if packet is None:
                    self.close(HUNG_UP)
                    return
                self._hear(packet)
            except BlockingIOError:
                break
            except ProtocolError as error:
                self.refuse(str(error))
            except OSError as error:
                self.close(error.strerror or str(error))
        self._charge(begun, time.monotonic())

    def _charge(self, begun: float, ended: float) -> None:
        """Take note of time spent on the node; do not listen to it while it has had too much."""
        earned = SHARE * (begun - self._credited_at)
        self._credit = min(self._credit + earned, BURST_S) - (ended - begun)
        self._credited_at = ended
        if self._credit < 0 and not self.closed:
            _log.debug("process %d talks much; it is heard later", self.pid)
            self._loop.remove_reader(self._sock.fileno())
            self._rest = self._loop.call_later(-self._credit / SHARE, self._listen)

    def _listen(self) -> None:
        self._rest = None
        self._loop.add_reader(self._sock.fileno(), self._readable)

    def send(self, kind: str, fields: dict[str, Any], fds: tuple[int, ...] = ()) -> None:
        """Send a packet, now or as soon as the node reads; after the end it goes nowhere."""
        if self.closed:
            return
        _log.debug("to process %d: %s, %d descriptors", self.pid, kind, len(fds))
        if not self._backlog and self._deliver(kind, fields, fds):
            return
        if len(self._backlog) == MAX_BACKLOG:
            self.violation = "does not read what it is sent"
            self.close(self.violation)
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
            protocol.send_any(self._sock, kind, fields, list(fds))
        except BlockingIOError:
            return False
        except (OSError, ProtocolError) as error:
            self.close(str(error))
            return True
        self.sent += 1
        if self.on_sent is not None:
            self.on_sent(self.sent)
        return True

    def refuse(self, why: str) -> None:
        """End the connection because of what the node did, and tell it."""
        if self.closed:
            return
        self.violation = why
        if self.on_sent is not None:
            # It is a node; others are told nothing.
            self.send("refused", {"error": why})
        self.close(why)

    def close(self, reason: str) -> None:
        """End the connection."""
        if self.closed:
            return
        _log.debug("connection of process %d closes: %s", self.pid, reason)
        self.closed = True
        if self._rest is not None:
            self._rest.cancel()
        self._loop.remove_reader(self._sock.fileno())
        self._loop.remove_writer(self._sock.fileno())
        if reason == HUNG_UP:
            self._sock.close()
        else:
            # The node may have sent something that was not read, and descriptors with it.
            close_apart(self._sock.detach())
        for _, _, fds in self._backlog:
            _close_all(fds)
        self._backlog.clear()
        self._on_end(self, reason)


def _close_all(descriptors: list[int]) -> None:
    for descriptor in descriptors:
        with contextlib.suppress(OSError):
            os.close(descriptor)

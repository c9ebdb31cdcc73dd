"""The socket of one node: packets in, packets out, without ever blocking."""

from __future__ import annotations

import asyncio
import logging
import os
import select
import time
from collections import deque
from typing import TYPE_CHECKING, Any

from dorad.control.peer import peer_of, pidfd_of
from dorad.daemon.broker.foreign import close_foreign, close_in_thread
from dorad.node import protocol
from dorad.node.protocol import Packet, ProtocolError
from dorad.procinfo import start_time

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Collection, Sequence

    from dorad.daemon.broker.mailbox import Mailbox

MAX_BACKLOG = 512
"""Packets queued for a node that does not read, beyond what its socket holds (about 300)."""

MAX_UNREAD = 512
"""More packets than a socket holds: later ones were sent to the new daemon."""

HUNG_UP = "hung up"
"""The reason of a connection that its node has closed."""

SCM_MAX_FD = 253
"""Maximum number of descriptors in a packet. All are received, because the kernel closes those that
are not, and that may block."""

MAX_PER_TURN = 64
"""Packets of one node that are handled before those of others."""

TIME_SHARE = 0.2
"""The share of the daemon's time that one node may take with its packets, beyond `BURST_S`."""

BURST_S = 0.1
"""Seconds of the daemon's time that a node may take at once."""

_log = logging.getLogger(__name__)


def is_running(pid: int) -> bool:
    """Return True if there is a process with this pid, of any user."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


class Connection:
    """A node's socket. Every received packet goes to `on_packet`, the end goes to `on_end`, once.

    An invalid packet closes this connection with the reason, and affects nothing else. So do too
    many unread packets. A node that sends too many packets is throttled.
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
        """Read from an accepted socket, over which a previous daemon has sent `sent` packets.

        `pid` is the process at the other end, for sockets that do not know it; `reserved_for` is
        the only observer that may say hello over it.
        """
        self.sent = sent
        self._box: Mailbox | None = None
        """Gets the number of packets sent so far, after each."""
        self.kept_as: str | None = None
        """The name under which the socket is stored for the next daemon."""
        self.peer = peer_of(sock)
        self.pid = self.peer.pid if pid is None else pid
        self.reserved_for = reserved_for
        self.version = protocol.VERSION
        """The version of the protocol that both ends have agreed on."""
        self._started = start_time(self.pid)
        self._sock = sock
        self._on_packet = on_packet
        self._on_end = on_end
        self._backlog: deque[tuple[str, dict[str, Any], list[int]]] = deque()
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(sock.fileno(), self._readable)
        self.closed = False
        self.violation: str | None = None
        """The violation of the protocol that closed the connection."""
        self._credit = BURST_S
        """Seconds that may be spent on the node's packets, as of `_credited_at`."""
        self._credited_at = time.monotonic()
        self._pause: asyncio.TimerHandle | None = None
        """Set while the node is throttled."""

    @property
    def accepted(self) -> int:
        """Number of packets accepted for the node so far, sent or still queued."""
        return self.sent + len(self._backlog)

    def count_in(self, box: Mailbox) -> None:
        """Count the packets in the mailbox of the node that has this connection from now on."""
        self._box = box

    def fileno(self) -> int:
        """Return the socket's descriptor."""
        return self._sock.fileno()

    def pidfd(self) -> int:
        """Return a descriptor of the process that connected. Raises OSError if it has ended."""
        return pidfd_of(self._sock)

    def is_original(self) -> bool:
        """Return True if the pid still belongs to the process that connected."""
        return self._started is not None and start_time(self.pid) == self._started

    def hung_up(self) -> bool:
        """Return True if the node has ended, even if its end was not handled yet."""
        if self.closed:
            return True
        poll = select.poll()
        poll.register(self._sock, select.POLLRDHUP)
        # A forked child may keep the socket open after the process has ended.
        return bool(poll.poll(0)) or not is_running(self.pid)

    def discard_requests(self, kinds: Collection[str]) -> bool:
        """Discard waiting packets of these kinds, which the node will repeat.

        All others are handled in the next turn of the loop. Returns False if the node has ended.
        """
        for _ in range(MAX_UNREAD):
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
                _log.debug("the request %r of process %d is discarded", packet.kind, self.pid)
                packet.close()
            else:
                self._loop.call_soon(self._handle, packet)
        return True

    def _receive(self) -> Packet | None:
        try:
            return self._receive_once()
        except ConnectionResetError:
            # The node has ended with unread packets. The kernel says this once, before it returns
            # the last packets of the node.
            return self._receive_once()

    def _receive_once(self) -> Packet | None:
        return protocol.receive(self._sock, closes=close_foreign, room=SCM_MAX_FD)

    def _handle(self, packet: Packet) -> None:
        try:
            if not self.closed:
                self._on_packet(self, packet)
        except ProtocolError as error:
            self.refuse(str(error))
        except OSError as error:
            self.close(error.strerror or str(error))
        except Exception:  # noqa: BLE001 - a bug that one node triggers must not harm the others
            _log.exception("packet %r of process %d", packet.kind, self.pid)
            self.refuse(f"packet {packet.kind!r} triggered a bug in dorad")
        finally:
            packet.close()

    def _readable(self) -> None:
        begun = time.monotonic()
        for _ in range(MAX_PER_TURN):
            if self.closed:
                return
            try:
                packet = self._receive()
                if packet is None:
                    self.close(HUNG_UP)
                    return
                self._handle(packet)
            except BlockingIOError:
                break
            except ProtocolError as error:
                self.refuse(str(error))
            except OSError as error:
                self.close(error.strerror or str(error))
        self._charge(begun, time.monotonic())

    def _charge(self, begun: float, ended: float) -> None:
        """Subtract time spent on the node from its credit; pause reading while that is below 0."""
        earned = TIME_SHARE * (begun - self._credited_at)
        self._credit = min(self._credit + earned, BURST_S) - (ended - begun)
        self._credited_at = ended
        if self._credit < 0 and not self.closed:
            _log.debug("process %d sends too many packets and is throttled", self.pid)
            self._loop.remove_reader(self._sock.fileno())
            self._pause = self._loop.call_later(-self._credit / TIME_SHARE, self._resume)

    def _resume(self) -> None:
        self._pause = None
        self._loop.add_reader(self._sock.fileno(), self._readable)

    def send(self, kind: str, fields: dict[str, Any], fds: tuple[int, ...] = ()) -> None:
        """Send a packet, now or as soon as the node reads; do nothing once it is closed."""
        if self.closed:
            return
        _log.debug("to process %d: %s, %d descriptors", self.pid, kind, len(fds))
        if not self._backlog and self._deliver(kind, fields, fds):
            return
        if len(self._backlog) == MAX_BACKLOG:
            self.violation = "does not read its packets"
            self.close(self.violation)
            return
        # The caller may close its descriptors before the packet is sent.
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
            protocol.close_all(fds)
        self._loop.remove_writer(self._sock.fileno())

    def _deliver(self, kind: str, fields: dict[str, Any], fds: Sequence[int]) -> bool:
        """Send a packet, or close on an error; return False if the socket is full."""
        try:
            protocol.send_any(self._sock, kind, fields, list(fds))
        except BlockingIOError:
            return False
        except (OSError, ProtocolError) as error:
            self.close(str(error))
            return True
        self.sent += 1
        if self._box is not None:
            self._box.mail_sent(self.sent)
        return True

    def refuse(self, why: str) -> None:
        """Close the connection because of a violation by the node, and send it the reason."""
        if self.closed:
            return
        self.violation = why
        if self._box is not None:
            # Only a welcomed node gets the reason.
            self.send("refused", {"error": why})
        self.close(why)

    def close(self, reason: str) -> None:
        """Close the connection."""
        if self.closed:
            return
        _log.debug("connection of process %d closes: %s", self.pid, reason)
        self.closed = True
        if self._pause is not None:
            self._pause.cancel()
        self._loop.remove_reader(self._sock.fileno())
        self._loop.remove_writer(self._sock.fileno())
        if reason == HUNG_UP:
            self._sock.close()
        else:
            # Unread packets of the node may hold descriptors, and closing those may block.
            close_in_thread(self._sock.detach())
        for _, _, fds in self._backlog:
            protocol.close_all(fds)
        self._backlog.clear()
        self._on_end(self, reason)

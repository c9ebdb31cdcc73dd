"""The TCP connections of this process, which Zenoh has opened: their limits, and who reads them."""

import fcntl
import logging
import socket
import struct
import termios
from collections.abc import Callable, Container, Mapping
from ipaddress import IPv6Address, ip_address
from pathlib import Path
from typing import NamedTuple

_log = logging.getLogger(__name__)

SEND_TIMEOUT_MS = 2000
"""How long the kernel waits for an acknowledgement of sent bytes. Less than the lease: see
`limit_sending`."""

CHECK_S = 2.0
MAX_UNREAD_CHECKS = 10
"""Successive checks without a read after which a connection has lost its reader."""

_BYTES_RECEIVED = 128
"""Offset of `tcpi_bytes_received` in `struct tcp_info` of linux/tcp.h."""


class End(NamedTuple):
    """The address and the port of one end of a connection."""

    address: str
    port: int


def end_of(address: str, port: int) -> End:
    """Return an end as it is compared: an IPv4 address is the same in an IPv6 socket."""
    ip = ip_address(address.partition("%")[0])
    mapped = ip.ipv4_mapped if isinstance(ip, IPv6Address) else None
    return End(str(mapped or ip), port)


class SocketState(NamedTuple):
    """What has come over a connection."""

    read: int
    """Bytes that were read."""
    unread: int
    """Bytes that wait in the kernel."""


def limit_sending() -> None:
    """Let TCP connections of this process end when the other end does not acknowledge for long.

    Zenoh, which owns them, has no option for it. If it is sending when a cable is cut, it
    keeps the connection until it may send again, then closes it, and with it forgets what the same
    machine has declared on its new connection: all messages to it would vanish.
    """

    def limit(_inode: int, sock: socket.socket) -> None:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, SEND_TIMEOUT_MS)

    _for_each_connection(limit)


def socket_states(inodes: Container[int], ends: Container[End]) -> dict[int, SocketState]:
    """Return the bytes received over connections to other machines, by the inode of each socket.

    These are the sockets with one of `inodes`, and those whose other end is one of `ends`. All
    others may be strangers', which send what they like.
    """
    states: dict[int, SocketState] = {}

    def look(inode: int, sock: socket.socket) -> None:
        if inode not in inodes and end_of(*sock.getpeername()[:2]) not in ends:
            return
        unread = struct.unpack("i", fcntl.ioctl(sock, termios.FIONREAD, bytes(4)))[0]
        info = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _BYTES_RECEIVED + 8)
        total = struct.unpack_from("Q", info, _BYTES_RECEIVED)[0]
        states[inode] = SocketState(total - unread, unread)

    _for_each_connection(look)
    return states


class ReadWatch:
    """Notices that data wait on a connection and nothing reads them.

    Zenoh reads at all times, because its callbacks never wait. If its threads stop reading, the
    machine at the other end seems absent forever: neither end closes the connection.
    """

    def __init__(self, now_s: float) -> None:
        """Count from `now_s` (seconds of the monotonic clock)."""
        self.due_s = now_s + CHECK_S
        self._read: dict[int, int] = {}
        self._checks: dict[int, int] = {}

    def check(self, connections: Mapping[int, SocketState], now_s: float) -> bool:
        """Return True if a connection with data was not read during the last checks.

        Checks are counted, not seconds: after this process was stopped, they begin to count as late
        as its other threads run again.
        """
        self.due_s = now_s + CHECK_S
        self._checks = {
            inode: self._checks.get(inode, 0) + 1
            for inode, (read, unread) in connections.items()
            if unread > 0 and self._read.get(inode) == read
        }
        self._read = {inode: each.read for inode, each in connections.items()}
        return max(self._checks.values(), default=0) >= MAX_UNREAD_CHECKS


def _for_each_connection(use: Callable[[int, socket.socket], None]) -> None:
    """Call `use` with the inode and the socket of each TCP connection of this process."""
    for descriptor in Path("/proc/self/fd").iterdir():
        try:
            inode = descriptor.stat().st_ino
            sock = socket.socket(fileno=int(descriptor.name))
        except OSError:
            continue  # not a socket, or closed meanwhile
        try:
            if sock.family in (socket.AF_INET, socket.AF_INET6) and _is_connection(sock):
                use(inode, sock)
        except OSError as error:
            _log.debug("descriptor %s is passed over: %s", descriptor.name, error)
        finally:
            sock.detach()


def _is_connection(sock: socket.socket) -> bool:
    listens = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
    return sock.type == socket.SOCK_STREAM and not listens

"""Hand accepted connections to Zenoh, which can only accept connections by itself.

Zenoh listens on loopback, where a key of TCP lets in no connection but the gate's. The gate
connects there and sends nothing. Zenoh accepts that connection, and waits for a TLS greeting at a
descriptor of this process. The gate puts the accepted connection in the place of that descriptor
(dup2), and registers it with Zenoh's epoll as the one before was. From then on the connection is
Zenoh's as if it had accepted it: no byte takes a longer way than without a gate.

Nothing can be lost meanwhile: a TLS server sends nothing before the greeting, which still waits in
the kernel, and the new registration reports at once that it does.
"""

import ctypes
import errno
import logging
import os
import platform
import socket
import struct
import time
from collections.abc import Container
from ipaddress import IPv4Address
from pathlib import Path
from typing import NamedTuple

_log = logging.getLogger(__name__)

ACCEPT_S = 1.0
"""How long Zenoh may take to accept a connection on loopback."""
POLL_S = 0.0005

_DESCRIPTORS = Path("/proc/self/fd")
_TCP_MD5SIG_EXT = 32
_KEY_BYTES = 80
_EPOLL_CTL_ADD = 1
_RESET = struct.pack("ii", 1, 0)


class HandoverError(OSError):
    """Zenoh has not taken a connection."""


class _EpollEvent(ctypes.Structure):
    """`struct epoll_event`, which has no padding on x86-64 only."""

    if platform.machine() == "x86_64":
        _layout_ = "ms"  # Python 3.14 wants to be told that fields are packed as on Windows
        _pack_ = 1
    _fields_ = (("events", ctypes.c_uint32), ("data", ctypes.c_uint64))


class _Registration(NamedTuple):
    """A descriptor in a set of epoll."""

    epoll: int
    descriptor: int
    events: int
    data: int
    inode: int


class Handed(NamedTuple):
    """A connection that Zenoh has: its descriptor, which is reused once Zenoh has closed it."""

    descriptor: int
    inode: int
    locator: str
    """Where Zenoh believes the other end to be."""


class Lock:
    """A key without which no socket connects to Zenoh: packets of others are dropped (RFC 2385)."""

    def __init__(self) -> None:
        key = os.urandom(_KEY_BYTES)
        # For every other end.
        self._option = struct.pack("=H126xBBHi80s", socket.AF_INET, 1, 0, len(key), 0, key)

    def use(self, sock: socket.socket) -> bool:
        """Let a socket have the key; return False if the kernel has no such keys."""
        try:
            sock.setsockopt(socket.IPPROTO_TCP, _TCP_MD5SIG_EXT, self._option)
        except OSError as error:
            _log.debug("a key is not set: %s", error)
            return False
        return True


class Backend:
    """One of Zenoh's listening sockets. It serves one handshake at a time."""

    def __init__(self, listener: socket.socket, lock: Lock) -> None:
        """Let no connection in but those of `hand_over`; `listener` is a duplicate of Zenoh's."""
        self.address: tuple[str, int] = listener.getsockname()
        self._listener = listener
        self._lock = lock
        self._epoll: int | None = None
        """The set in which Zenoh has registered the last connection."""
        self.locked = lock.use(listener)

    def hand_over(self, connection: socket.socket, number: int, known: Container[int]) -> Handed:
        """Give Zenoh a connection that does not block; the caller then closes its own socket.

        `number` tells its locator from those of others: the port alone may be used again while
        Zenoh still has the connection. `known` are the inodes of connections that Zenoh has.

        Raises:
            HandoverError: Zenoh does not accept connections now.
            OSError: the process has no descriptor left.
        """
        with socket.socket() as client:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            if self.locked:
                self._lock.use(client)
            client.bind((_loopback(number), 0))
            client.settimeout(ACCEPT_S)
            try:
                client.connect(self.address)
                own = client.getsockname()
                place = self._accepted(own, known)
            except TimeoutError as error:
                raise HandoverError(errno.ETIMEDOUT, "it accepts no connection") from error
            os.dup2(connection.fileno(), place.descriptor, inheritable=False)
            _register(place)
        inode = os.fstat(connection.fileno()).st_ino
        return Handed(place.descriptor, inode, f"tls/{own[0]}:{own[1]}")

    def _accepted(self, client: tuple[str, int], known: Container[int]) -> _Registration:
        """Return the registration of the other end of a connection, once Zenoh waits there.

        Raises:
            TimeoutError: it does not.
        """
        end_s = time.monotonic() + ACCEPT_S
        while time.monotonic() < end_s:
            for epoll in [self._epoll] if self._epoll is not None else _epolls():
                for each in _registrations(epoll):
                    if each.inode not in known and _ends(each) == (self.address, client):
                        self._epoll = epoll
                        return each
            time.sleep(POLL_S)
        self._epoll = None
        raise TimeoutError

    def close(self) -> None:
        """Let go of the listening socket, which Zenoh closes, too."""
        self._listener.close()


def _loopback(number: int) -> str:
    """Return one of 2^23 addresses of loopback."""
    return str(IPv4Address((127 << 24) + (1 << 23) + number % (1 << 23)))


def cut(connection: Handed) -> bool:
    """End a connection that Zenoh has; return False if Zenoh has closed it itself."""
    try:
        descriptor = os.dup(connection.descriptor)
    except OSError:
        return False
    # Closed by its owner, the number may be that of anything by now, such as a pipe.
    if os.fstat(descriptor).st_ino != connection.inode:
        os.close(descriptor)
        return False
    with socket.socket(fileno=descriptor) as duplicate:
        try:
            duplicate.shutdown(socket.SHUT_RDWR)
        except OSError:
            return False
    return True


def is_open(connection: Handed) -> bool:
    """Return True if Zenoh has not closed a connection."""
    try:
        return os.fstat(connection.descriptor).st_ino == connection.inode
    except OSError:
        return False


def listeners() -> dict[int, int]:
    """Return the descriptor of each listening socket of this process on IPv4 loopback, by inode."""
    sockets = {}
    for descriptor in _DESCRIPTORS.iterdir():
        try:
            inode = descriptor.stat().st_ino
            sock = socket.socket(fileno=int(descriptor.name))
        except OSError:
            continue  # not a socket, or closed meanwhile
        try:
            if (
                sock.family == socket.AF_INET
                and sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
                and sock.getsockname()[0] == "127.0.0.1"
            ):
                sockets[inode] = int(descriptor.name)
        except OSError as error:
            _log.debug("descriptor %s is passed over: %s", descriptor.name, error)
        finally:
            sock.detach()
    return sockets


def _epolls() -> list[int]:
    """Return the sets of epoll of this process."""
    epolls = []
    for descriptor in _DESCRIPTORS.iterdir():
        try:
            if str(descriptor.readlink()) == "anon_inode:[eventpoll]":
                epolls.append(int(descriptor.name))
        except OSError:
            continue  # closed meanwhile
    return epolls


def _registrations(epoll: int) -> list[_Registration]:
    """Return what is registered in a set of epoll, the newest descriptors first."""
    try:
        # As bytes: decoding would import a module, which may be unreadable by now.
        lines = Path(f"/proc/self/fdinfo/{epoll}").read_bytes().splitlines()
    except OSError:
        return []  # closed meanwhile
    registrations = []
    for line in lines:
        # tfd:       27 events: 8000201d data:     7f2e3c011280  pos:0 ino:1a2b sdev:8
        words = line.replace(b":", b": ").split()
        if len(words) >= 10 and words[0] == b"tfd:":
            inode = int(words[words.index(b"ino:") + 1], 16)
            events, data = int(words[3], 16), int(words[5], 16)
            registrations.append(_Registration(epoll, int(words[1]), events, data, inode))
    return registrations


def _register(place: _Registration) -> None:
    """Register the descriptor again, which dup2 has removed from its set.

    Raises:
        OSError: the kernel refuses.
    """
    library = ctypes.CDLL(None, use_errno=True)
    event = _EpollEvent(place.events, place.data)
    if library.epoll_ctl(place.epoll, _EPOLL_CTL_ADD, place.descriptor, ctypes.byref(event)):
        number = ctypes.get_errno()
        raise OSError(number, f"a connection cannot be registered: {os.strerror(number)}")


def _ends(place: _Registration) -> tuple[object, object] | None:
    """Return the addresses of both ends of a connection; None if it is none, or was closed."""
    try:
        sock = socket.socket(fileno=place.descriptor)
    except OSError:
        return None
    try:
        if os.fstat(place.descriptor).st_ino != place.inode:
            return None
        return sock.getsockname(), sock.getpeername()
    except OSError:
        return None
    finally:
        sock.detach()

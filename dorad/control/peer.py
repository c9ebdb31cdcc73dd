"""Who is at the other end of a connection, and whether a local process may command this daemon."""

from __future__ import annotations

import errno
import os
import pwd
import select
import socket
import struct
from typing import TYPE_CHECKING, Literal, NamedTuple

from dorad.procinfo import peer_credentials

if TYPE_CHECKING:
    from dorad.control.tls import Certificate

PeerRole = Literal["viewer", "operator", "admin", "robot", "enrolling", "coordinator"]
"""What a peer may do. `enrolling` is a robot that has a token, but no certificate yet."""

EXPORTER_USER = "dorad-telemetry"
"""The user of the machine's exporter of telemetry, which talks to servers elsewhere."""

SO_PEERGROUPS = 59
"""From Linux's asm-generic/socket.h; Python has no name for it."""

SO_PEERPIDFD = 77
"""From the same file; since Linux 6.5."""

_MAX_GROUPS = 256
"""Number of groups that fit into the largest buffer of Python's getsockopt."""


class Peer(NamedTuple):
    """A process as the kernel recorded it when it connected, which it cannot forge.

    Or the owner of a certificate or a token.
    """

    pid: int
    """0 if it is not known, because it came over TCP."""
    uid: int
    gid: int
    groups: frozenset[int] = frozenset()
    """Its supplementary groups."""
    name: str = ""
    """Of a peer that came over TCP: a robot's id, an operator's name, or that of its token."""
    role: PeerRole = "admin"
    certificate: Certificate | None = None
    """What it has shown in the TLS handshake."""

    @property
    def owner(self) -> str:
        """Who it belongs to: limits by name count all connections of one owner."""
        return f"{self.role} {self.name}" if self.name else f"user {self.uid}"

    def __str__(self) -> str:
        return self.name or f"process {self.pid}"


def peer_of(sock: socket.socket) -> Peer:
    """Return the process that connected to, or listens at, the other end of a Unix socket.

    Raises:
        OSError: it is not a connected Unix socket.
    """
    pid, uid, gid = peer_credentials(sock)
    try:
        groups = sock.getsockopt(socket.SOL_SOCKET, SO_PEERGROUPS, 4 * _MAX_GROUPS)
    except OSError:
        # The kernel is too old, or there are too many groups: use only the primary one.
        groups = b""
    return Peer(pid, uid, gid, frozenset(struct.unpack(f"{len(groups) // 4}I", groups)))


def local_role(peer: Peer, own_uid: int, group: int | None) -> PeerRole | None:
    """Return what a peer may do: root, the daemon's own user and members of its group everything.

    The exporter of telemetry is in the group for the sake of the socket, and may only look.
    """
    if peer.uid in (0, own_uid):
        return "admin"
    if group is None or (peer.gid != group and group not in peer.groups):
        return None
    return "viewer" if peer.uid == _uid_of(EXPORTER_USER) else "admin"


def may_command(peer: Peer, own_uid: int, group: int | None) -> bool:
    """Return True if a peer is root, the daemon's own user, or a member of its group."""
    return local_role(peer, own_uid, group) == "admin"


def _uid_of(name: str) -> int | None:
    try:
        return pwd.getpwnam(name).pw_uid
    except KeyError:
        return None


def pidfd_of(sock: socket.socket) -> int:
    """Return a new pidfd of the process that connected; the caller closes it.

    Before Linux 6.5 it refers to the process that has that pid now.

    Raises:
        OSError: the process has ended.
    """
    try:
        return sock.getsockopt(socket.SOL_SOCKET, SO_PEERPIDFD)
    except OSError as error:
        if error.errno != errno.ENOPROTOOPT:
            raise
    return os.pidfd_open(peer_of(sock).pid)


def has_ended(pidfd: int) -> bool:
    """Return True if the process of a pidfd has exited, so that its pid may be reused."""
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    return bool(poll.poll(0))

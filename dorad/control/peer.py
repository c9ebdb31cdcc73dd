"""Who is at the other end of a Unix socket, and whether it may command this daemon."""

from __future__ import annotations

import errno
import os
import select
import socket
import struct
from typing import NamedTuple

from dorad.procinfo import peer_credentials

SO_PEERGROUPS = 59
"""From Linux's asm-generic/socket.h; Python has no name for it."""

SO_PEERPIDFD = 77
"""As above; from Linux 6.5 on."""

_MAX_GROUPS = 256
"""As many as fit into the largest buffer that Python's getsockopt takes."""


class Peer(NamedTuple):
    """A process as it was when it connected; the kernel says so, nobody can pretend."""

    pid: int
    uid: int
    gid: int
    groups: frozenset[int] = frozenset()
    """Its supplementary groups."""


def peer_of(sock: socket.socket) -> Peer:
    """Return who connected to, or listens at, the other end of a Unix socket.

    Raises:
        OSError: it is no connected Unix socket.
    """
    pid, uid, gid = peer_credentials(sock)
    try:
        groups = sock.getsockopt(socket.SOL_SOCKET, SO_PEERGROUPS, 4 * _MAX_GROUPS)
    except OSError:
        # A kernel without it, or more groups than fit: then only the main one counts.
        groups = b""
    return Peer(pid, uid, gid, frozenset(struct.unpack(f"{len(groups) // 4}I", groups)))


def may_command(peer: Peer, own_uid: int, group: int | None) -> bool:
    """Tell whether a peer is root, the daemon's own user, or a member of its group."""
    if peer.uid in (0, own_uid):
        return True
    return group is not None and (peer.gid == group or group in peer.groups)


def pidfd_of(sock: socket.socket) -> int:
    """Return a descriptor of the very process that connected, which is the caller's to close.

    On a kernel before Linux 6.5 it is of the process that has that process's pid now.

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
    """Tell whether the process of a descriptor has ended, so that its pid may be another's."""
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    return bool(poll.poll(0))

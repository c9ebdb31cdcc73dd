"""Connecting to the keeper at a path; one is started if none listens there."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import socket
import subprocess
import time
from typing import TYPE_CHECKING

from dorad.launch.bare import start_bare
from dorad.launch.model import LaunchError
from dorad.procinfo import peer_credentials

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_BUFFER = 4 << 20
"""Bytes of requests that the keeper may be behind before they are queued."""
_RETRY_SECONDS = 0.01
_SO_SNDBUFFORCE = 32


def connect_or_start(path: Path, seconds: float) -> socket.socket:
    """Return a connection to the keeper at `path`, which may have to be started. Blocks.

    Raises:
        LaunchError: it cannot be started within `seconds`, or belongs to another user.
    """
    deadline = time.monotonic() + seconds
    try:
        sock = _connect(path, deadline)
        if sock is None:
            with _lock(path.parent, deadline):
                sock = _connect(path, deadline) or _start(path, deadline)
    except OSError as error:
        raise LaunchError(f"cannot start the keeper of the processes at {path}: {error}") from error
    _, uid, _ = peer_credentials(sock)
    if uid not in (os.getuid(), 0):
        sock.close()
        raise LaunchError(f"the keeper of the processes at {path} belongs to user {uid}; remove it")
    _enlarge(sock)
    return sock


def _connect(path: Path, deadline: float) -> socket.socket | None:
    """Return a connection; None if nobody listens. Raises OSError."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    sock.settimeout(max(deadline - time.monotonic(), _RETRY_SECONDS))
    try:
        sock.connect(os.fspath(path))
    except OSError as error:
        sock.close()
        if error.errno in (errno.ENOENT, errno.ECONNREFUSED):
            return None
        raise
    return sock


def _start(path: Path, deadline: float) -> socket.socket:
    """Start a keeper at `path`. Raises OSError."""
    path.unlink(missing_ok=True)
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
        listener.bind(os.fspath(path))
        path.chmod(0o600)
        listener.listen(16)
        fd = listener.fileno()
        code = f"from dorad.launch.keeping import main; main({fd}, {os.fspath(path)!r})"
        starter = start_bare(code, fd, subprocess.DEVNULL)
        # It leaves the keeper behind, as nobody's child, and ends at once.
        if failed := starter.wait():
            raise OSError(f"its process ended at once with code {failed}")
        sock = _connect(path, deadline)
    if sock is None:
        raise OSError("its socket was removed")
    return sock


@contextlib.contextmanager
def _lock(folder: Path, deadline: float) -> Iterator[None]:
    """Of all who want to start a keeper in this folder, only one goes on at a time."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        while True:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(_RETRY_SECONDS)
        yield
    finally:
        os.close(handle)


def _enlarge(sock: socket.socket) -> None:
    """Make room for many descriptors at once: what was sent is kept even if we are killed now."""
    try:
        sock.setsockopt(socket.SOL_SOCKET, _SO_SNDBUFFORCE, _BUFFER)
    except PermissionError:
        # Not root: as much as anybody may have.
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _BUFFER)

"""Start a process holder, or connect to one that runs already."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import logging
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from dorad.launch.descendants import children
from dorad.launch.holder.handle import OwnHolder
from dorad.launch.model import LaunchError
from dorad.launch.prctl import set_subreaper
from dorad.procinfo import peer_credentials

_SEND_BUFFER = 4 << 20
"""Bytes of requests that fit into the socket before they are queued."""
_RETRY_SECONDS = 0.01
_SO_SNDBUFFORCE = 32
_PROGRAM = "dorad.launch.holder.process"

_log = logging.getLogger(__name__)


def start_private() -> tuple[OwnHolder, socket.socket]:
    """Start a holder that ends with this process, and return a connection to it.

    Does not wait for it: it starts up in parallel.

    Raises:
        LaunchError: it cannot be started.
    """
    with contextlib.ExitStack() as on_error:
        try:
            ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            on_error.enter_context(ours)
            with theirs:
                set_subreaper(True)
                not_ours = frozenset(children(os.getpid()))
                fd = theirs.fileno()
                process = _run(f"from {_PROGRAM} import serve_client; serve_client({fd})", fd)
        except OSError as error:
            raise LaunchError(f"cannot start the process holder: {error}") from error
        on_error.pop_all()
    _log.debug("private process holder started: pid %d", process.pid)
    return OwnHolder(process, not_ours), ours


def connect_or_start(path: Path, seconds: float) -> socket.socket:
    """Return a connection to the shared holder at `path`, which is started if necessary. Blocks.

    Raises:
        LaunchError: it cannot be started within `seconds`, or belongs to another user.
    """
    deadline = time.monotonic() + seconds
    try:
        sock = _connect(path, deadline)
        if sock is None:
            with _lock(path.parent, deadline):
                sock = _connect(path, deadline) or _start_shared(path, deadline)
    except OSError as error:
        raise LaunchError(f"cannot start the process holder at {path}: {error}") from error
    pid, uid, _ = peer_credentials(sock)
    if uid not in (os.getuid(), 0):
        sock.close()
        raise LaunchError(f"the process holder at {path} belongs to user {uid}; remove it")
    _log.debug("connected to the process holder at %s: pid %d", path, pid)
    _enlarge_send_buffer(sock)
    return sock


def _connect(path: Path, deadline: float) -> socket.socket | None:
    """Return a connection; None if no process listens. Raises OSError."""
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


def _start_shared(path: Path, deadline: float) -> socket.socket:
    """Start a shared holder at `path`, and return a connection to it. Raises OSError."""
    path.unlink(missing_ok=True)
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
        listener.bind(os.fspath(path))
        path.chmod(0o600)
        listener.listen(16)
        fd = listener.fileno()
        code = f"from {_PROGRAM} import serve_daemons; serve_daemons({fd}, {os.fspath(path)!r})"
        starter = _run(code, fd, subprocess.DEVNULL)
        # It forks the holder, which becomes a child of init, and exits at once.
        if failed := starter.wait():
            raise OSError(f"its process ended at once with code {failed}")
        sock = _connect(path, deadline)
    if sock is None:
        raise OSError("its socket was removed")
    return sock


def _run(code: str, fd: int, stderr: int | None = None) -> subprocess.Popen[bytes]:
    """Run Python `code` in its own session, without site packages and with few variables.

    It inherits `fd`. Its stderr is that of this process, or `stderr`.

    Raises:
        OSError: the interpreter no longer exists, or memory is short.
    """
    kept = ("LANG", "LC_ALL", "LD_LIBRARY_PATH", "PYTHONHOME")
    env = {name: os.environ[name] for name in kept if name in os.environ}
    env["PYTHONPATH"] = os.pathsep.join(str(Path(entry).absolute()) for entry in sys.path if entry)
    return subprocess.Popen(
        [sys.executable, "-S", "-P", "-c", code],
        cwd="/",
        env=env,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=stderr,
        pass_fds=(fd,),
        start_new_session=True,
    )


@contextlib.contextmanager
def _lock(folder: Path, deadline: float) -> Iterator[None]:
    """Let only one process at a time start a holder in this folder."""
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


def _enlarge_send_buffer(sock: socket.socket) -> None:
    """Make room for many descriptors: those in the socket are kept even if this process dies."""
    try:
        sock.setsockopt(socket.SOL_SOCKET, _SO_SNDBUFFORCE, _SEND_BUFFER)
    except PermissionError:
        # Not root: the kernel limits the size.
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER)

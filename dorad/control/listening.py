"""The daemon's socket in the file system: its path, its permissions, and stale sockets there."""

from __future__ import annotations

import os
import socket
import stat
from contextlib import suppress
from typing import TYPE_CHECKING

from dorad.control.errors import ControlError

if TYPE_CHECKING:
    from pathlib import Path

MAX_PATH_BYTES = 107
"""Maximum length of a Unix socket's path."""


def _is_socket(path: Path) -> bool:
    try:
        return stat.S_ISSOCK(path.stat().st_mode)
    except OSError:
        return False


def bind(path: Path, group: int | None) -> tuple[socket.socket, int]:
    """Bind a socket to `path`; return it, not yet listening, and its inode.

    Its mode is 0660 with a group, 0600 without. The socket of a dead daemon is replaced.

    Raises:
        ControlError: a daemon already listens there, or no socket can be created there.
    """
    if len(os.fsencode(path)) > MAX_PATH_BYTES:
        raise ControlError(
            "refused",
            f"{path} is too long for a socket: at most {MAX_PATH_BYTES} bytes are allowed",
            "choose a shorter path",
        )
    _clear(path)
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.bind(str(path))
        path.chmod(0o600)
        if group is not None and path.lstat().st_gid != group:
            os.chown(path, -1, group)
        path.chmod(0o600 if group is None else 0o660)
        return sock, path.stat().st_ino
    except OSError as error:
        sock.close()
        raise ControlError("refused", f"{path} cannot be used: {error.strerror}") from None


def _clear(path: Path) -> None:
    """Remove the socket of a dead daemon. Raises ControlError for anything else."""
    if not path.exists() and not path.is_symlink():
        return
    if not _is_socket(path):
        raise ControlError("refused", f"{path} exists and is not a socket", "move it away")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        # Non-blocking: a daemon that hangs, with a full backlog, counts as running.
        probe.setblocking(False)
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            path.unlink(missing_ok=True)
            return
        except FileNotFoundError:
            return
        except PermissionError:
            raise ControlError("refused", f"{path} belongs to another user") from None
        except BlockingIOError:
            pass
    raise ControlError("exists", f"a daemon already listens at {path}", "end it with `dora down`")


def remove(path: Path, inode: int) -> None:
    """Remove the socket at `path` if it is still the one with this inode."""
    with suppress(FileNotFoundError):
        if path.stat().st_ino == inode:
            path.unlink()

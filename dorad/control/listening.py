"""The daemon's socket in the file system: its path, its permissions, and stale sockets there."""

from __future__ import annotations

import logging
import os
import socket
import stat
from contextlib import suppress
from pathlib import Path

from dorad.control.errors import ControlError, NoDaemonError

_log = logging.getLogger(__name__)

SOCKET_VARIABLE = "DORA_SOCKET"
"""Environment variable with the path of the only socket to use."""

MAX_PATH_BYTES = 107
"""Maximum length of a Unix socket's path."""


def socket_paths() -> tuple[Path, ...]:
    """Return the sockets at which to look for a daemon, the preferred one first.

    If `$DORA_SOCKET` is set, that is the only one. Else if `$DORA_COORDINATOR_PORT` is set, the
    only one is this user's daemon with that number. Else they are those of this user's daemon and
    of the machine's daemon.

    Raises:
        ControlError: the directory of this user's sockets belongs to another user, or a variable
            is invalid.
    """
    if given := os.environ.get(SOCKET_VARIABLE):
        return (Path(given),)
    from dorad.shm.rendezvous import SYSTEM_DIR, instance, runtime_dir

    try:
        name = instance()
        if name is not None:
            _log.debug("looking for the daemon of instance %s only", name)
            return (runtime_dir() / name / "control.sock",)
        return (runtime_dir() / "control.sock", SYSTEM_DIR / "control.sock")
    except (PermissionError, ValueError) as error:
        raise ControlError("refused", str(error)) from None


def no_daemon(looked: tuple[Path, ...]) -> NoDaemonError:
    """Return the error for a client that found no daemon at any of these paths."""
    where = " or ".join(map(str, looked))
    name = looked[0].parent.name
    command = f"dora up --coordinator-port {name}" if name.isdecimal() else "dora up"
    return NoDaemonError(
        "unavailable", f"no dorad is running at {where}", f"start one with `{command}`"
    )


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

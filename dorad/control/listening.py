"""The daemon's socket in the file system: where it lies, who may open it, what lay there before."""

from __future__ import annotations

import logging
import os
import socket
import stat
from contextlib import suppress
from pathlib import Path

from dorad.control.errors import ControlError, NoDaemonError

_log = logging.getLogger(__name__)

MACHINE_WIDE = Path("/run/dorad/control.sock")
"""Where the daemon of the whole machine listens."""

VARIABLE = "DORA_SOCKET"
"""Environment variable with the path of the one socket to use."""

LONGEST_PATH = 107
"""Bytes of a Unix socket's path."""


def places() -> tuple[Path, ...]:
    """Return where to look for a daemon, first the one to prefer.

    It is `$DORA_SOCKET` alone where that is set; else the socket of the daemon of this user that
    `$DORA_COORDINATOR_PORT` names; else those of this user's and of the machine's.

    Raises:
        ControlError: the directory of this user's sockets belongs to somebody else, or a variable
            cannot be followed.
    """
    if given := os.environ.get(VARIABLE):
        return (Path(given),)
    from dorad.shm.rendezvous import instance, runtime_dir

    try:
        name = instance()
        if name is not None:
            _log.debug("using the daemon of instance %s alone", name)
            return (runtime_dir() / name / "control.sock",)
        return (runtime_dir() / "control.sock", MACHINE_WIDE)
    except (PermissionError, ValueError) as error:
        raise ControlError("refused", str(error)) from None


def no_daemon(looked: tuple[Path, ...]) -> NoDaemonError:
    """Return the error for when nobody listens in any of these places."""
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
    """Return a socket bound to `path`, and its inode; it does not listen yet.

    The mode is 0660 with a group, 0600 without. What a dead daemon left there is replaced.

    Raises:
        ControlError: a daemon listens there, or the path cannot be used for a socket.
    """
    if len(os.fsencode(path)) > LONGEST_PATH:
        raise ControlError(
            "refused",
            f"{path} is too long for a socket; it may have {LONGEST_PATH} bytes",
            "choose a shorter one",
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
    """Remove a socket that nobody listens at."""
    if not path.exists() and not path.is_symlink():
        return
    if not _is_socket(path):
        raise ControlError("refused", f"{path} exists and is no socket", "move it away")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        # Without waiting: a daemon that hangs, with a full backlog, is a daemon too.
        probe.setblocking(False)
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            path.unlink(missing_ok=True)
            return
        except FileNotFoundError:
            return
        except PermissionError:
            raise ControlError("refused", f"{path} belongs to somebody else") from None
        except BlockingIOError:
            pass
    raise ControlError("exists", f"a daemon listens at {path} already", "end it with `dora down`")


def remove(path: Path, inode: int) -> None:
    """Remove the socket at `path` if it is still the one with this inode."""
    with suppress(FileNotFoundError):
        if path.stat().st_ino == inode:
            path.unlink()

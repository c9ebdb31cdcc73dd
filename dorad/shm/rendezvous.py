"""The place of a daemon's socket, where nodes started by hand find it."""

from __future__ import annotations

import logging
import os
import pwd
import stat
from pathlib import Path

_log = logging.getLogger(__name__)

DEFAULT_PORT = 53291
"""The port of dora's daemon. Here it is only part of a socket's name; daemons may share it."""


def port() -> int:
    """Return the local port number that names this daemon's socket.

    Raises:
        ValueError: `DORA_DAEMON_LOCAL_LISTEN_PORT` is set but not a port number.
    """
    text = os.environ.get("DORA_DAEMON_LOCAL_LISTEN_PORT", "")
    if not text:
        return DEFAULT_PORT
    if not text.isdecimal() or not 0 < int(text) < 65536:
        raise ValueError(f"DORA_DAEMON_LOCAL_LISTEN_PORT is {text!r}; it must be a port number")
    return int(text)


COORDINATOR_PORT = 6013
"""Port of a coordinator. As the number of a daemon it means the default one."""


ADDRESS_VARIABLE = "DORA_COORDINATOR_ADDR"
PORT_VARIABLE = "DORA_COORDINATOR_PORT"


def coordinator_port() -> int | None:
    """Return the port in `$DORA_COORDINATOR_PORT`, None if it is not set.

    Raises:
        ValueError: it is not a port number.
    """
    text = os.environ.get(PORT_VARIABLE, "")
    if not text:
        return None
    if not (text.isascii() and text.isdecimal()) or not 0 < int(text[:6]) < 65536:
        raise ValueError(f"{PORT_VARIABLE} is {text!r}; it must be a port number")
    return int(text)


def instance() -> str | None:
    """Return the name of the user's daemon to use, None for the default one.

    It is `$DORA_COORDINATOR_PORT`, which users set to run several instances of dora. Beside
    `$DORA_COORDINATOR_ADDR` it is the port of a coordinator, and says nothing about daemons.

    Raises:
        ValueError: it is not a port number.
    """
    port = coordinator_port()
    if os.environ.get(ADDRESS_VARIABLE) or port in (None, COORDINATOR_PORT):
        return None
    return str(port)


SYSTEM_DIR = Path("/run/dorad")
"""The folder of the sockets of the machine's daemon."""

RUN_SOCKETS = "run-{pid}.sock"
"""The socket of a `dora run` for traces and figures, in the folder of this user's sockets."""

SHARED = "/tmp"
"""A directory in which all users may create directories."""

MAX_DIR_BYTES = 86
"""Upper bound of the path of a daemon's directory, so that a socket's fits into its 107 bytes.

The longest name of a socket in it is `/65535-d01234567.sock`.
"""

_MAX_OWN_BYTES = MAX_DIR_BYTES - len("/65535")
"""Upper bound of the path of a user's directory: a daemon beside the default one adds its port."""


def run_sockets(folder: Path) -> list[Path]:
    """Return the sockets of each `dora run` in a `runtime_dir`, also of one that was killed."""
    return sorted(folder.glob(RUN_SOCKETS.format(pid="*")))


def runtime_dir() -> Path:
    """Return the private directory of this user's sockets; create it if missing.

    It is `$XDG_RUNTIME_DIR/dora`; or `/tmp/dora-<uid>` if that variable is not set or not usable,
    as after `su` or in a container; or `~/.local/state/dora/run` if another user has taken that
    name in a world-writable directory.

    Raises:
        PermissionError: none of them can be used.
    """
    base = os.environ.get("XDG_RUNTIME_DIR", "")
    path = Path(base, "dora")
    usable = base and os.access(base, os.W_OK | os.X_OK) and _is_short(path)
    if not usable:
        path = Path(SHARED, f"dora-{os.getuid()}")
    spare = _spare_dir() if path.parent.stat().st_mode & stat.S_IWOTH else None
    # The first name may be free again: a daemon that runs still has its socket in the spare one.
    if (spare is None or not _is_private(spare) or _is_private(path)) and _make_private(path):
        return path
    if spare is not None and _make_private(spare):
        _log.debug("%s is not private to this user; using %s", path, spare)
        return spare
    raise PermissionError(
        f"{path} must be a directory of user {os.getuid()} with mode 0700; remove it and retry"
    )


def _spare_dir() -> Path | None:
    """Return the directory in the user's home, None if there is no home or the path is too long."""
    try:
        home = Path(pwd.getpwuid(os.getuid()).pw_dir)
        if home.stat().st_uid != os.getuid():
            return None
    except (KeyError, OSError):
        return None
    path = home / ".local" / "state" / "dora" / "run"
    return path if _is_short(path) else None


def _is_short(path: Path) -> bool:
    return len(os.fsencode(path)) <= _MAX_OWN_BYTES


def _make_private(path: Path) -> bool:
    """Create a directory if missing; return True if only this user has access to it."""
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        _log.debug("cannot create %s: %s", path, error)
        return False
    return _is_private(path)


def _is_private(path: Path) -> bool:
    try:
        status = path.lstat()
    except OSError:
        return False
    own = status.st_uid == os.getuid() and not status.st_mode & 0o077
    return stat.S_ISDIR(status.st_mode) and own


def socket_path(pid: int, port: int) -> Path:
    """Return the path of the socket of daemon `pid` for `port`."""
    return runtime_dir() / f"{port}-{pid}.sock"


def folders() -> list[Path]:
    """Return the folders of the sockets of `dora run`, this user's daemon and the machine's.

    `$DORA_COORDINATOR_PORT` selects a daemon of this user in place of both.

    Raises:
        PermissionError: the folder of this user belongs to another one.
        ValueError: a variable that selects the daemon is invalid.
    """
    own = runtime_dir()
    name = instance()
    return [own, SYSTEM_DIR if name is None else own / name]


def sockets(port: int) -> list[Path]:
    """Return the sockets that answer for `port`; a crashed daemon's may be among them.

    Raises what `folders` raises.
    """
    return [path for folder in folders() for path in sorted(folder.glob(f"{port}-*.sock"))]

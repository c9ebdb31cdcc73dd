"""Where a daemon's socket lies, so that nodes started by hand can find it."""

from __future__ import annotations

import os
import stat
from pathlib import Path

DEFAULT_PORT = 53291
"""Stands in a socket's name for the port dora's daemon listens on; several daemons may share it."""


def port() -> int:
    """Return the local port number that names this daemon's socket.

    Raises:
        ValueError: `DORA_DAEMON_LOCAL_LISTEN_PORT` is set but is no port number.
    """
    text = os.environ.get("DORA_DAEMON_LOCAL_LISTEN_PORT", "")
    if not text:
        return DEFAULT_PORT
    if not text.isdecimal() or not 0 < int(text) < 65536:
        raise ValueError(f"DORA_DAEMON_LOCAL_LISTEN_PORT is {text!r}; it must be a port number")
    return int(text)


COORDINATOR_PORT = 6013
"""Port of dora's coordinator; stands for the default instance."""


def instance() -> str | None:
    """Return the name of the user's daemon to use beside the default one, None for that.

    It is `$DORA_COORDINATOR_PORT`, by which users tell several instances of dora apart. Nothing
    listens at the port.

    Raises:
        ValueError: that is not a port number, or `$DORA_COORDINATOR_ADDR` is another machine.
    """
    address = os.environ.get("DORA_COORDINATOR_ADDR", "")
    if address not in ("", "localhost", "::1") and not address.startswith("127."):
        raise ValueError(
            f"the coordinator's address is {address!r}, but there is no coordinator yet; leave out"
            " --coordinator-addr (or unset DORA_COORDINATOR_ADDR) to use the daemon of this machine"
        )
    text = os.environ.get("DORA_COORDINATOR_PORT", "")
    if not text:
        return None
    if not (text.isascii() and text.isdecimal()) or not 0 < int(text[:6]) < 65536:
        raise ValueError(f"DORA_COORDINATOR_PORT is {text!r}; it must be a port number")
    return None if int(text) == COORDINATOR_PORT else str(int(text))


LONGEST_DIR = 80
"""Bytes a directory's path may have so that a socket's whole path fits into its 107."""


def runtime_dir() -> Path:
    """Return the private directory of this user's sockets, made if missing.

    It is `$XDG_RUNTIME_DIR/dora`; or `/tmp/dora-<uid>` where that variable is not set or names
    nothing usable, as after `su` or in a container.

    Raises:
        PermissionError: the directory belongs to somebody else or is open to others.
    """
    base = os.environ.get("XDG_RUNTIME_DIR", "")
    usable = base and os.access(base, os.W_OK | os.X_OK) and len(os.fsencode(base)) < LONGEST_DIR
    path = Path(base, "dora") if usable else Path(f"/tmp/dora-{os.getuid()}")
    path.mkdir(mode=0o700, exist_ok=True)
    found = path.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o077:
        raise PermissionError(
            f"{path} must be a directory of user {os.getuid()} with mode 0700; remove it and retry"
        )
    return path


def socket_path(pid: int, port: int) -> Path:
    """Return the path of the socket of daemon `pid` that answers for `port`."""
    return runtime_dir() / f"{port}-{pid}.sock"


def sockets(port: int) -> list[Path]:
    """Return the sockets that answer for `port`; a crashed daemon's may be among them."""
    return sorted(runtime_dir().glob(f"{port}-*.sock"))

"""The socket file of a run: its name, and the removal of those that crashed runs left."""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING

from dorad.shm import rendezvous

if TYPE_CHECKING:
    from pathlib import Path


SOCKETS = "*-d*.sock"
"""What the names of a background daemon's sockets look like."""


def daemon_socket(folder: Path, dataflow_id: str) -> Path:
    """Return where a background daemon puts the socket of one of its dataflows.

    The same for the daemon that takes it over. Nodes that are started by hand look for it by the
    port; see `rendezvous`.

    Raises:
        ValueError: `DORA_DAEMON_LOCAL_LISTEN_PORT` is no port number.
    """
    return folder / f"{rendezvous.port()}-d{dataflow_id[:8]}.sock"


def own_socket() -> Path:
    """Return where this process is to put its socket; whatever no living process needs is removed.

    Raises:
        OSError: the directory cannot be made, or others can write to it.
        ValueError: `DORA_DAEMON_LOCAL_LISTEN_PORT` is no port number.
    """
    path = rendezvous.socket_path(os.getpid(), rendezvous.port())
    for found in path.parent.glob("*-*.sock"):
        pid = found.stem.rpartition("-")[2]
        if found == path or (pid.isdecimal() and not _lives(int(pid))):
            with contextlib.suppress(FileNotFoundError):  # another run may clear up as well
                found.unlink()
    return path


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True

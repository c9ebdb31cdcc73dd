"""Where a daemon keeps its sockets and its state: one for each user, and one for the machine."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from dorad.shm.rendezvous import instance, runtime_dir


@dataclass(frozen=True, slots=True)
class DaemonPaths:
    """The two folders of a daemon, and what lies in them."""

    runtime: Path
    """Gone after a reboot: sockets."""
    state: Path
    """Kept for good: the state file and the log of a background daemon."""

    logs: Path | None = None
    """Where the folders of runs lie; None is beside the file of each dataflow."""

    @property
    def control(self) -> Path:
        """The socket of the control API."""
        return self.runtime / "control.sock"

    @property
    def holder(self) -> Path:
        """The socket of the process holder."""
        return self.runtime / "holder.sock"

    @property
    def database(self) -> Path:
        """The state file."""
        return self.state / "state.db"

    @property
    def spare_database(self) -> Path:
        """Return where the state is while the disk cannot be used."""
        return self.runtime / "state.db"

    @property
    def log(self) -> Path:
        """What a background daemon says about itself."""
        return self.state / "dorad.log"

    @property
    def downloads(self) -> Path | None:
        """Where nodes that come from a URL lie; None is beside the file of each dataflow."""
        return None if self.logs is None else self.state / "downloads"

    @property
    def marker(self) -> str:
        """What tells the processes of this daemon from those of another; see `orphans`."""
        return str(self.runtime)


def system_paths() -> DaemonPaths:
    """Return the places of the daemon of the machine."""
    return DaemonPaths(Path("/run/dorad"), Path("/var/lib/dorad"), Path("/var/lib/dorad"))


def user_paths() -> DaemonPaths:
    """Return the places of this user's daemon; the folder for sockets is made if missing.

    `$DORA_COORDINATOR_PORT` names a daemon beside the default one, with folders of its own.

    Raises:
        PermissionError: that folder belongs to somebody else or is open to others.
        ValueError: that variable cannot be followed.
    """
    name = instance()
    base = os.environ.get("XDG_STATE_HOME", "")
    home = Path(base) if base.startswith("/") else Path.home() / ".local" / "state"
    if name is None:
        return DaemonPaths(runtime_dir(), home / "dora")
    runtime = runtime_dir() / name
    runtime.mkdir(mode=0o700, exist_ok=True)
    return DaemonPaths(runtime, home / "dora" / name)

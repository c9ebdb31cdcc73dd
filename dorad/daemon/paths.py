"""Paths of the sockets and the state of a daemon, of a user or of the machine."""

import os
from dataclasses import dataclass
from pathlib import Path

from dorad.launch.secrets import FOLDER, OF_AGENT, OF_MACHINE, own_secrets
from dorad.shm.rendezvous import SYSTEM_DIR, instance, runtime_dir


@dataclass(frozen=True, slots=True)
class DaemonPaths:
    """The folders of a daemon, and the paths in them."""

    runtime: Path
    """For sockets; empty after a reboot."""
    state: Path
    """For the state file and the log of a background daemon; kept over reboots."""

    logs: Path | None = None
    """Folder for the logs of runs; None means beside the file of each dataflow."""

    @property
    def control(self) -> Path:
        """The socket of the control API."""
        return self.runtime / "control.sock"

    @property
    def process_holder(self) -> Path:
        """The socket of the process holder."""
        return self.runtime / "holder.sock"

    @property
    def database(self) -> Path:
        """The state file."""
        return self.state / "state.db"

    @property
    def spare_database(self) -> Path:
        """The state file while the disk cannot be used."""
        return self.runtime / "state.db"

    @property
    def leases(self) -> Path:
        """The leases of clients, for a restarted daemon."""
        return self.runtime / "leases.json"

    @property
    def secrets(self) -> tuple[Path, ...]:
        """The folders with secrets for nodes: those of a fleet, then those of this machine."""
        if self.runtime == SYSTEM_DIR:
            return OF_AGENT, OF_MACHINE
        return self.runtime / FOLDER, own_secrets()

    @property
    def log(self) -> Path:
        """The log of a background daemon."""
        return self.state / "dorad.log"

    @property
    def downloads(self) -> Path | None:
        """Folder for nodes from URLs; None means beside the file of each dataflow."""
        return None if self.logs is None else self.state / "downloads"

    @property
    def written(self) -> tuple[Path, ...]:
        """The folders of this machine in which dora and its nodes write; some may be missing."""
        if self != system_paths():
            return (self.state,)
        more = ("releases", "recordings", "dataflows")
        return (self.state, Path("/var/lib/dorad-agent"), *(self.state / name for name in more))

    @property
    def marker(self) -> str:
        """The marker that distinguishes processes of this daemon from others; see `orphans`."""
        return str(self.runtime)


def system_paths() -> DaemonPaths:
    """Return the paths of the machine's daemon."""
    return DaemonPaths(SYSTEM_DIR, Path("/var/lib/dorad"), Path("/var/lib/dorad"))


def user_paths() -> DaemonPaths:
    """Return the paths of this user's daemon; create the folder for sockets if it is missing.

    `$DORA_COORDINATOR_PORT` selects a daemon beside the default one, with its own folders.

    Raises:
        PermissionError: that folder belongs to another user or is open to others.
        ValueError: the variable is invalid.
    """
    name = instance()
    base = os.environ.get("XDG_STATE_HOME", "")
    home = Path(base) if base.startswith("/") else Path.home() / ".local" / "state"
    if name is None:
        return DaemonPaths(runtime_dir(), home / "dora")
    runtime = runtime_dir() / name
    runtime.mkdir(mode=0o700, exist_ok=True)
    return DaemonPaths(runtime, home / "dora" / name)

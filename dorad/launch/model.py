"""A command to start, how its process ended, and errors of starting it."""

from __future__ import annotations

import signal as signals
from typing import TYPE_CHECKING, NamedTuple

from msgspec import Struct, field

from dorad.problems import ProblemError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from dorad.dataflow.settings import Resources
    from dorad.realtime.schedule import Schedule


class LaunchError(ProblemError):
    """A process that cannot be started."""

    def __init__(self, message: str) -> None:
        super().__init__("refused", message)


class NoFileError(LaunchError):
    """A program or a working directory that this machine does not have."""


class RefusedError(LaunchError):
    """A start that failed for a transient reason; a restart policy may repeat it."""


class SpawnerExitedError(LaunchError):
    """The spawner has exited: no later start can succeed."""


class StateFolder(NamedTuple):
    """A folder that systemd creates for a node's user, or gives to it with all that it contains."""

    path: str
    """Relative to /var/lib."""
    mode: int


class Identity(NamedTuple):
    """As which user a node runs, and with which groups and folders; only systemd can apply it."""

    user: str = ""
    """Empty is the user of the spawner."""
    groups: tuple[str, ...] = ()
    """Groups besides those of the user."""
    folder: StateFolder | None = None


class Command(Struct, frozen=True):
    """One process to start. Its stdin is /dev/null; its environment is exactly `env`."""

    argv: tuple[str, ...]
    """`argv[0]` is the path of the executable; PATH is not searched."""
    cwd: Path
    env: Mapping[str, str] = field(default_factory=dict)
    cpu_affinity: tuple[int, ...] = ()
    """Cores it may run on; empty leaves it on all."""
    schedule: Schedule | None = None
    """Its scheduling policy; None leaves the default."""
    resources: Resources | None = None
    """Its resource limits; only systemd can apply them."""
    identity: Identity = field(default_factory=Identity)
    sandbox: bool = True
    """Whether it loses the rights that most nodes never need; only systemd can apply it."""
    dataflow_name: str = ""
    """The name of the dataflow; empty if it has none."""
    secrets: Mapping[str, Path] = field(default_factory=dict)
    """The files of its secrets, by name. It gets copies in `$CREDENTIALS_DIRECTORY`."""
    warnings: tuple[str, ...] = ()
    """Settings that were requested and ignored, one line each."""


class Exit(Struct, frozen=True):
    """How a process ended: exactly one of `code` and `signal` is set."""

    code: int | None = None
    signal: int | None = None

    @property
    def ok(self) -> bool:
        """Whether it exited with code 0."""
        return self.code == 0

    def __str__(self) -> str:
        if self.signal is None:
            return f"exited with code {self.code}"
        try:
            name = signals.Signals(self.signal).name
        except ValueError:
            name = f"signal {self.signal}"
        return f"killed by {name}"

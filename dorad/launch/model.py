"""What is started, how it ended, and why it could not be started."""

from __future__ import annotations

import signal as signals
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from dorad.problems import ProblemError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from dorad.dataflow.model import Resources
    from dorad.realtime.schedule import Schedule


class LaunchError(ProblemError):
    """A process that cannot be started."""

    def __init__(self, message: str) -> None:
        super().__init__("refused", message)


class RefusedError(LaunchError):
    """A start that was refused for a reason that may pass; a restart policy may repeat it."""


class SpawnerGoneError(LaunchError):
    """Nothing can be started any more, so there is no use in trying again."""


@dataclass(frozen=True, slots=True)
class Command:
    """One process to start. Its stdin is /dev/null; its environment is exactly `env`."""

    argv: tuple[str, ...]
    """`argv[0]` is the path of the executable; nothing is looked up any more."""
    cwd: Path
    env: Mapping[str, str] = field(default_factory=dict)
    cpu_affinity: tuple[int, ...] = ()
    """Cores it may run on; empty leaves it on all."""
    schedule: Schedule | None = None
    """How the kernel is to run it; None as any process."""
    resources: Resources | None = None
    """What it may use; only systemd can see to it."""
    user: str = ""
    """Who it runs as; only systemd can see to it. Empty is whoever starts it."""
    sandbox: bool = True
    """Whether it loses the rights that most nodes never need; only systemd can see to it."""
    dataflow_name: str = ""
    """What people call the dataflow, if they do."""
    warnings: tuple[str, ...] = field(default=(), compare=False)
    """What was asked for and left out, one line each."""


@dataclass(frozen=True, slots=True)
class Exit:
    """How a process ended: exactly one of `code` and `signal` is set."""

    code: int | None = None
    signal: int | None = None

    @property
    def ok(self) -> bool:
        """Whether it ended by itself with code 0."""
        return self.code == 0

    def __str__(self) -> str:
        if self.signal is None:
            return f"exited with code {self.code}"
        try:
            name = signals.Signals(self.signal).name
        except ValueError:
            name = f"signal {self.signal}"
        return f"killed by {name}"

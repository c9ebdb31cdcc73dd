"""`dataflow.json` beside the log files: which dataflow wrote them, and whether it runs."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import msgspec

from dorad.atomicfile import atomic_file
from dorad.logs.paths import ABOUT
from dorad.procinfo import is_alive, start_time

if TYPE_CHECKING:
    from pathlib import Path


class About(msgspec.Struct, frozen=True):
    """One run of a dataflow. Times are in seconds since 1970."""

    uuid: str
    name: str | None
    path: str
    nodes: tuple[str, ...]
    started_at: float
    ended_at: float | None = None
    status: str = "running"
    """`running`, then `finished` or `failed`."""
    pid: int | None = None
    """The process that writes the log files, and when it was started, in clock ticks since boot."""
    pid_started: int | None = None
    journal: bool = False
    """Whether lines went to the journal. Lines that it did not take are in files."""
    unit: str | None = None
    """The systemd service that wrote to the journal, if any."""

    @property
    def ended(self) -> bool:
        """Whether the dataflow is known to have ended."""
        return self.ended_at is not None

    @property
    def title(self) -> str:
        """The name and UUID to show to users."""
        return f"{self.name} ({self.uuid})" if self.name else self.uuid


def write(folder: Path, about: About) -> None:
    """Write the file atomically; create the folder. Raises OSError."""
    folder.mkdir(parents=True, exist_ok=True)
    # Daemons of two machines of one dataflow may share the folder.
    with atomic_file(folder / ABOUT, mode=0o666, durable=False) as file:
        file.write(msgspec.json.format(msgspec.json.encode(about)) + b"\n")


def read(folder: Path) -> About | None:
    """Return the content of the file; None if it is missing or invalid."""
    try:
        return msgspec.json.decode((folder / ABOUT).read_bytes(), type=About)
    except (OSError, ValueError, RecursionError):
        return None


def writer_is_alive(about: About) -> bool:
    """Return True if the process that writes the log files is running."""
    if about.pid is None or about.pid_started is None:
        return False
    return is_alive(about.pid, about.pid_started)


def own_start() -> int:
    """Return the start time of this process, in clock ticks since boot."""
    return start_time(os.getpid()) or 0

"""Which journal entries are trusted: users can forge all fields except those that journald adds."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, NamedTuple

from dorad.logs.paths import ABOUT

if TYPE_CHECKING:
    from pathlib import Path

    from dorad.logs.about import About


class Sender(NamedTuple):
    """The process that writes a dataflow's entries, identified by the fields that journald adds."""

    uid: int
    unit: str | None
    """Its systemd service, if any."""

    def matches(self) -> list[str]:
        """Return the arguments of `journalctl` that select its entries."""
        unit = [] if self.unit is None else [f"_SYSTEMD_UNIT={self.unit}"]
        return [f"_UID={self.uid}", *unit]


def own() -> Sender:
    """Return the sender of this process."""
    return Sender(os.getuid(), own_service())


def of_run(folder: Path, known: About | None) -> Sender:
    """Return the sender of the run that logs to `folder`: the owner of its `dataflow.json`.

    Raises OSError.
    """
    return Sender((folder / ABOUT).stat().st_uid, None if known is None else known.unit)


def own_service() -> str | None:
    """Return the systemd service of this process; None if it is not part of one."""
    try:
        # Never blocks, so it may be read from an event loop.
        file = os.open("/proc/self/cgroup", os.O_RDONLY | os.O_NONBLOCK)
    except OSError:
        return None
    try:
        return service_of(os.read(file, 1 << 16).decode())
    finally:
        os.close(file)


def service_of(cgroups: str) -> str | None:
    """Return the system service named by the text of a /proc/PID/cgroup; None without one.

    The unit of a login session changes with the session, so it does not count.
    """
    for line in cgroups.splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers in ("", "name=systemd"):
            for part in filter(None, path.split("/")):
                if part.endswith(".slice"):
                    continue
                if part.endswith(".service") and not part.startswith("user@"):
                    return part
                break
    return None

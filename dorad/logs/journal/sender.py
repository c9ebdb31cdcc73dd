"""Whose entries of the journal are believed: any user can write any other field of an entry."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, NamedTuple

from dorad.logs.paths import ABOUT

if TYPE_CHECKING:
    from pathlib import Path

    from dorad.logs.about import About


class Sender(NamedTuple):
    """The process that writes the entries of a dataflow, by the fields that journald adds."""

    uid: int
    unit: str | None
    """Its systemd service; None outside of one."""

    def matches(self) -> list[str]:
        """Return the arguments of `journalctl` that select its entries."""
        unit = [] if self.unit is None else [f"_SYSTEMD_UNIT={self.unit}"]
        return [f"_UID={self.uid}", *unit]


def own() -> Sender:
    """Return this process as a sender."""
    return Sender(os.getuid(), own_service())


def of_run(folder: Path, known: About | None) -> Sender:
    """Return the sender of the run that logs to `folder`: the owner of the file about it.

    Raises OSError.
    """
    return Sender((folder / ABOUT).stat().st_uid, None if known is None else known.unit)


def own_service() -> str | None:
    """Return the systemd service that this process belongs to, None outside of one."""
    try:
        # The kernel answers at once: an event loop may ask.
        file = os.open("/proc/self/cgroup", os.O_RDONLY | os.O_NONBLOCK)
    except OSError:
        return None
    try:
        return service_of(os.read(file, 1 << 16).decode())
    finally:
        os.close(file)


def service_of(cgroups: str) -> str | None:
    """Return the system service that the text of a /proc/PID/cgroup names, None if it names none.

    Processes of a login session change their unit with the session, so those have none.
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

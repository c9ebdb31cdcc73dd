"""The state in memory, in the runtime folder, for a machine whose disk takes nothing just now.

It outlives the daemon, as nodes do, but not the machine. Once the disk can be written it goes
there.
"""

from __future__ import annotations

import contextlib
import shutil
from typing import TYPE_CHECKING

import apsw

if TYPE_CHECKING:
    from pathlib import Path

DISK_ERRORS = (
    apsw.FullError,
    apsw.IOError,
    apsw.ReadOnlyError,
    apsw.CantOpenError,
    apsw.PermissionsError,
)
"""What SQLite raises when the disk is at fault, and not the file."""
_PARTS = ("", "-wal")


def take(source: Path, spare: Path) -> None:
    """Make the spare state of what can be read of the one on the disk, unless there is a spare.

    Raises:
        OSError: there is no room in memory either.
    """
    if spare.exists():
        return
    for part in reversed(_PARTS):
        with contextlib.suppress(FileNotFoundError):
            shutil.copyfile(
                source.with_name(source.name + part), spare.with_name(spare.name + part)
            )


def give_back(spare: Path, database: apsw.Connection) -> None:
    """Let the state on the disk be what the spare one is, and remove that. Raises apsw.Error."""
    if not spare.exists():
        return
    with contextlib.closing(apsw.Connection(str(spare))) as source:
        with database.backup("main", source, "main") as backup:
            backup.step()
    for part in (*_PARTS, "-shm"):
        spare.with_name(spare.name + part).unlink(missing_ok=True)

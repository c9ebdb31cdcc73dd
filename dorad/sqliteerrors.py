"""Errors of SQLite that are caused by the disk, not by the file."""

from __future__ import annotations

import apsw

DISK_ERRORS = (
    apsw.FullError,
    apsw.IOError,
    apsw.ReadOnlyError,
    apsw.CantOpenError,
    apsw.PermissionsError,
)

"""Shared memory that Fast DDS leaves behind when a process is killed."""

from __future__ import annotations

import fcntl
import logging
import os
import stat
from pathlib import Path

_log = logging.getLogger(__name__)

FOLDER = Path("/dev/shm")
_LOCK = "_el"
"""A process that uses a segment or a port holds a lock on the file of this suffix."""


def remove_leftovers(folder: Path = FOLDER) -> int:
    """Remove what processes of this user that have ended left there; return the number of files."""
    removed = 0
    for lock in [*folder.glob(f"fastrtps_*{_LOCK}"), *folder.glob(f"fastdds_*{_LOCK}")]:
        try:
            # Any user may put a link or a pipe there: opening one would fail, or wait.
            status = lock.lstat()
            if stat.S_ISREG(status.st_mode) and status.st_uid == os.geteuid():
                removed += _remove(lock)
        except FileNotFoundError:
            continue  # another process was faster
    if removed:
        _log.debug("removed %d files that Fast DDS has left in %s", removed, folder)
    return removed


def _remove(lock: Path) -> int:
    descriptor = os.open(lock, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return 0  # its process is alive
        name = lock.name.removesuffix(_LOCK)
        removed = 0
        for each in (lock.with_name(name), lock.with_name(f"sem.{name}_mutex"), lock):
            if each.exists():
                each.unlink()
                removed += 1
        return removed
    finally:
        os.close(descriptor)

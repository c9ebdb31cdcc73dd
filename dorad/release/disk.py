"""Files of releases on the disk: written whole, read within bounds, locked."""

from __future__ import annotations

import ctypes
import errno
import fcntl
import filecmp
import os
import shutil
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

from dorad.atomicfile import atomic_file

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

POLL_INTERVAL_S = 0.1


@contextmanager
def locked(path: Path, timeout: float) -> Iterator[bool]:
    """Lock a file against other processes; yield False if one has it for `timeout` seconds.

    Raises:
        OSError: the file cannot be opened.
    """
    end = time.monotonic() + timeout
    with path.open("ab") as file:
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if time.monotonic() >= end:
                    yield False
                    return
            else:
                yield True
                return
            time.sleep(POLL_INTERVAL_S)


def same_content(one: Path, two: Path) -> bool:
    """Return True if two files are one, or have the same content."""
    # A copy is there where the file system allows no further link.
    return one.lstat().st_ino == two.lstat().st_ino or filecmp.cmp(one, two, shallow=False)


def link_or_copy(source: Path, target: Path) -> None:
    """Give a file another name, or make a copy if it has too many. Raises OSError."""
    try:
        os.link(source, target)
    except OSError as error:
        # A file can have 65,000 names on ext4.
        if error.errno != errno.EMLINK:
            raise
        shutil.copy(source, target)


def modified(path: Path) -> float:
    """Return when a file was changed last, in seconds since 1970. Raises OSError."""
    return path.stat().st_mtime


def free_bytes(folder: Path) -> int | None:
    """Return what is free on the disk of a folder for the agent, None if that is unknown."""
    try:
        disk = os.statvfs(folder if folder.is_dir() else folder.parent)
    except OSError:
        return None
    return disk.f_bavail * disk.f_frsize


def read_bounded(path: Path, limit: int) -> bytes:
    """Return the content of a file, at most one byte more than `limit`. Raises OSError."""
    with path.open("rb") as file:
        return file.read(limit + 1)


def write_whole(path: Path, content: bytes) -> None:
    """Write a file that is never changed, as `atomic_file` does."""
    with atomic_file(path, mode=0o444) as file:
        file.write(content)
        os.fchmod(file.fileno(), 0o444)


def sync_file_system(folder: Path) -> None:
    """Put everything in the file system of `folder` on the disk. Raises OSError.

    One call instead of one for each of thousands of files.
    """
    number = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        if ctypes.CDLL(None, use_errno=True).syncfs(number):
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), str(folder))
    finally:
        os.close(number)

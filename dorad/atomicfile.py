"""Replace files so that readers, and later processes, find the old content or all of the new."""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import re
import shutil
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""Errors of a write for which there is no room: on the disk, in a quota or in one file."""

_log = logging.getLogger(__name__)


@contextmanager
def atomic_file(path: Path, *, mode: int = 0o600, durable: bool = True) -> Iterator[BinaryIO]:
    """Yield a new file that takes the place of `path` at the end of the block.

    A block that raises leaves the old file. With `durable` the new one is on the disk on return,
    and a power cut leaves one of the two. The umask limits `mode`. What a killed process has left
    of an earlier try is removed.

    Raises:
        OSError: it cannot be written, or is there and not a regular file: a device, a pipe or a
            link would be lost.
    """
    _check_regular(path)
    remove_abandoned(path.parent, temporary_names(path.name))
    temporary, number = _new_file(path, mode)
    try:
        with os.fdopen(number, "wb") as file:
            yield file
            file.flush()
            if durable:
                os.fsync(number)
            # Before it is closed: without its lock it would count as abandoned.
            temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    if durable:
        sync_folder(path.parent)


def _check_regular(path: Path) -> None:
    """Raise OSError if something else than a regular file has this name."""
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    if not stat.S_ISREG(mode):
        raise OSError(errno.EINVAL, "it is there already and is not a regular file", str(path))


def _new_file(path: Path, mode: int) -> tuple[Path, int]:
    """Make a locked file beside `path`; return its path and its descriptor. Raises OSError."""
    while True:
        # A unique name: several processes may write the same file.
        temporary = path.with_name(f".{path.name}.{os.urandom(4).hex()}")
        number = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
        if keep(temporary, number):
            return temporary, number
        os.close(number)


def keep(path: Path, descriptor: int) -> bool:
    """Lock a new file or folder until it is closed: `remove_abandoned` leaves it.

    Return False if it was removed just before. On a file system without locks nothing is removed.
    """
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
    except OSError as error:
        _log.debug("%s cannot be locked: %s", path, error.strerror)
    return path.exists()


@contextmanager
def temporary_folder(above: Path, start: str) -> Iterator[Path]:
    """Yield a folder in `above` whose name begins with `start`, and remove it at the end.

    Those that killed processes have left are removed, too.

    Raises:
        OSError: it cannot be made.
    """
    remove_abandoned(above, re.compile(rf"{re.escape(start)}[a-z0-9_]{{8}}"))
    with tempfile.TemporaryDirectory(dir=above, prefix=start) as name:
        number = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            keep(Path(name), number)
            yield Path(name)
        finally:
            os.close(number)


@contextmanager
def new_name(path: Path) -> Iterator[Path]:
    """Yield another path, where a block makes a file or folder; at its end that becomes `path`.

    A block that raises leaves nothing. What a killed process leaves is called
    `.NAME.unfinished-…`, and is removed by the next try.

    Raises:
        OSError: it cannot be made, or `path` is there meanwhile, and no empty folder.
    """
    above = path.absolute().parent
    with temporary_folder(above, f".{path.name}.unfinished-") as folder:
        yield folder / path.name
        made = folder / path.name
        if path.is_symlink() or (path.exists() and not path.is_dir()):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(path))
        made.rename(path)
    sync_folder(above)


def temporary_names(name: str) -> re.Pattern[str]:
    """Return the pattern of the names that files have before they become `name`."""
    return re.compile(rf"\.{re.escape(name)}\.[0-9a-f]{{8}}")


ANY_TEMPORARY = re.compile(r"\..+\.[0-9a-f]{8}")
"""The names that files have before they become any file of a folder."""


def remove_abandoned(folder: Path, names: re.Pattern[str]) -> None:
    """Remove files and folders in `folder` whose whole name matches, and that no process keeps.

    Those that another user has made may stay.
    """
    try:
        with os.scandir(folder) as entries:
            abandoned = [folder / entry.name for entry in entries if names.fullmatch(entry.name)]
    except FileNotFoundError:
        return
    for path in abandoned:
        try:
            _remove_unless_kept(path)
        except OSError as error:
            _log.debug("%s stays: %s", path, error.strerror)


def _remove_unless_kept(path: Path) -> None:
    number = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        fcntl.flock(number, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()
        _log.debug("%s is removed: its process was killed", path)
    finally:
        os.close(number)


def sync_folder(path: Path) -> None:
    """Make new, renamed and removed names in a folder survive a power cut. Raises OSError."""
    number = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(number)
    finally:
        os.close(number)

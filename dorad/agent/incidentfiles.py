"""The files of incidents on this robot, in folders that nodes may write.

A node can put anything there: links, pipes, files that change meanwhile. So each step into a folder
follows no link, only regular files are opened, and what is read is bounded.
"""

from __future__ import annotations

import hashlib
import os
import stat
from contextlib import contextmanager
from itertools import islice
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from dorad.control.incidentfiles import MAX_FILES, IncidentFile, IncidentInfo, IncidentManifest
from dorad.record.box.incidents import INCIDENTS

if TYPE_CHECKING:
    from collections.abc import Iterator
    from io import BufferedReader
    from pathlib import Path

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


class Hashed(NamedTuple):
    """An incident whose files were read."""

    manifest: bytes
    files: dict[str, tuple[int, str]]
    """Size and name of each file, by its SHA-256."""
    state: tuple[tuple[str, int, int, int], ...]
    """Name, inode, size and time of change of each file: what the manifest holds for."""


@contextmanager
def _folder(box: Path, name: str) -> Iterator[int]:
    """Open the folder of an incident of a black box. Raises OSError."""
    opened: list[int] = []
    try:
        opened.append(os.open(box, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC))
        for part in (INCIDENTS, name):
            opened.append(os.open(part, _FOLDER, dir_fd=opened[-1]))
        yield opened[-1]
    finally:
        for number in reversed(opened):
            os.close(number)


def _open(folder: int, name: str) -> BufferedReader:
    number = os.open(name, _FILE, dir_fd=folder)
    if not stat.S_ISREG(os.fstat(number).st_mode):
        os.close(number)
        raise OSError(f"{name} is not a file")
    return os.fdopen(number, "rb")


def open_file(box: Path, incident: str, name: str) -> BufferedReader:
    """Open one file of an incident. Raises OSError."""
    with _folder(box, incident) as folder:
        return _open(folder, name)


def _state(folder: int) -> tuple[tuple[str, int, int, int], ...]:
    files = []
    for entry in islice(os.scandir(folder), MAX_FILES + 10):
        if entry.name.endswith(".mcap"):
            status = entry.stat(follow_symlinks=False)
            files.append((entry.name, status.st_ino, status.st_size, status.st_mtime_ns))
    return tuple(sorted(files))


def read_incident(box: Path, info: IncidentInfo, before: Hashed | None) -> Hashed:
    """Read all files of an incident; `before` saves that if they are the same. It blocks.

    Raises:
        OSError: one cannot be read, or there are none, or too many.
        msgspec.ValidationError: something is not what the black box writes, such as a name.
    """
    with _folder(box, info.id) as folder:
        state = _state(folder)
        if before is not None and before.state == state:
            return before
        if not state or len(state) > MAX_FILES:
            raise OSError(f"it has {len(state) or 'no'} files, from 1 to {MAX_FILES} are sent")
        files = []
        names: dict[str, tuple[int, str]] = {}
        for name, _, size, _ in state:
            with _open(folder, name) as file:
                sha256 = hashlib.file_digest(file, "sha256").hexdigest()
                size = os.fstat(file.fileno()).st_size
            files.append(IncidentFile(name=name, sha256=sha256, size=size))
            names[sha256] = (size, name)
    manifest = msgspec.json.encode(IncidentManifest(info=info, files=files))
    # As strict as the coordinator is.
    msgspec.json.decode(manifest, type=IncidentManifest)
    return Hashed(manifest, names, state)

"""Log files up to their end at one moment, read forwards or backwards."""

from __future__ import annotations

import contextlib
import logging
import os
from typing import TYPE_CHECKING, NamedTuple

from dorad.logs.fileline import decode

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path

    from dorad.logrecord import LogRecord

_log = logging.getLogger(__name__)
_BLOCK = 1 << 18
_TRIES = 20


class Part(NamedTuple):
    """The first `end` bytes of an open file. The owner closes its descriptor."""

    descriptor: int
    end: int
    inode: int
    changed: float
    """The time of the last write, in seconds since 1970."""


def open_parts(find: Callable[[], list[Path]]) -> list[Part]:
    """Open the files of one node that `find` lists, oldest first.

    If they are rotated meanwhile, start over, so that no file is missed or read twice.

    Raises:
        OSError: a file may not be read.
    """
    for _ in range(_TRIES - 1):
        paths = find()
        parts = _open_all(paths)
        if [part.inode for part in parts] == [inode(path) for path in find()]:
            return parts
        close_parts(parts)
    return _open_all(find())


def _open_all(paths: list[Path]) -> list[Part]:
    parts: list[Part] = []
    try:
        for path in paths:
            with contextlib.suppress(FileNotFoundError):  # deleted meanwhile
                descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
                status = os.fstat(descriptor)
                parts.append(Part(descriptor, status.st_size, status.st_ino, status.st_mtime))
    except OSError:
        close_parts(parts)
        raise
    return parts


def inode(path: Path) -> int | None:
    """Return the inode of a file; None if there is no such file."""
    try:
        return path.stat().st_ino
    except FileNotFoundError:
        return None


def close_parts(parts: Iterable[Part]) -> None:
    """Close the files."""
    for part in parts:
        os.close(part.descriptor)


def records(parts: Iterable[Part]) -> Iterator[LogRecord]:
    """Yield the records of files, oldest first. Invalid lines are left out."""
    for part in parts:
        for block in _blocks(part, 0):
            yield from decode_lines(block)


def read_on(part: Part, position: int) -> tuple[list[LogRecord], int]:
    """Return the records from `position` on, and the position after the last whole line."""
    records: list[LogRecord] = []
    for block in _blocks(part, position):
        records += decode_lines(block)
        position += len(block)
    return records, position


def _blocks(part: Part, position: int) -> Iterator[bytes]:
    """Yield blocks of whole lines."""
    size = _BLOCK
    while position < part.end:
        block = os.pread(part.descriptor, min(size, part.end - position), position)
        whole = block.rfind(b"\n") + 1
        if whole:
            position += whole
            size = _BLOCK
            yield block[:whole]
        elif len(block) < size:
            return  # a line that is being written, or the file was cut
        else:
            size *= 2


def records_backwards(parts: Iterable[Part]) -> Iterator[LogRecord]:
    """Yield the records of files given oldest first, newest first."""
    for part in reversed(list(parts)):
        end = part.end
        rest = b""
        while end > 0:
            begin = max(0, end - _BLOCK)
            data = os.pread(part.descriptor, end - begin, begin) + rest
            end = begin
            first = data.find(b"\n") + 1 if begin else 0
            if begin and not first:
                rest = data
                continue
            rest = data[:first]
            yield from reversed(decode_lines(data[first:]))


def decode_lines(block: bytes) -> list[LogRecord]:
    """Return the records of lines; invalid ones are left out."""
    records = []
    for line in block.split(b"\n"):
        if line:
            try:
                records.append(decode(line))
            except (ValueError, OverflowError) as error:
                # Half a line written to a full disk, or another program's.
                _log.debug("skipped a line of a log file: %s", error)
    return records

"""A file of fixed size that is made while there is room, for orders that arrive on a full disk.

Its blocks are overwritten in place, which needs no room on most file systems. What it holds
survives a reboot. The names of all entries come first, so that those that have no room are named.
"""

import hashlib
import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import msgspec

SIZE = 1 << 20
"""Bytes of the file."""

_HEADER = 40
"""Bytes before the content: its length, and its SHA-256."""
_EMPTY = bytes(_HEADER)

_log = logging.getLogger(__name__)


class Row(NamedTuple):
    """A row of the store that could not be written."""

    table: str
    name: str


class Kept(NamedTuple):
    """What a reserve holds."""

    rows: dict[Row, bytes]
    lost: list[Row]
    """Rows that had no room."""


class ReserveError(Exception):
    """A reserve that cannot be written, or whose content is damaged."""


class Reserve:
    """One such file."""

    def __init__(self, path: Path) -> None:
        """Use the file at `path`; see `make`."""
        self.path = path

    def make(self) -> None:
        """Make the file if it is missing. Raises OSError if there is no room for it."""
        if self.path.exists() and self.path.stat().st_size == SIZE:
            return
        partial = self.path.with_name(f"{self.path.name}.new")
        try:
            with partial.open("wb") as file:
                os.fchmod(file.fileno(), 0o600)
                # Zeroes are written, so that no later write needs a block.
                file.write(bytes(SIZE))
                file.flush()
                os.fsync(file.fileno())
            partial.replace(self.path)
        except OSError:
            partial.unlink(missing_ok=True)
            raise
        _log.debug("%s has %d bytes for orders on a full disk", self.path, SIZE)

    def write(self, rows: Mapping[Row, bytes]) -> list[Row]:
        """Put these rows in place of those before; return those that have no room.

        Raises:
            ReserveError: there is no such file, or it cannot be overwritten.
        """
        room = SIZE - _HEADER - sum(len(row.table) + len(row.name) + 64 for row in rows)
        fitting, lost = {}, []
        for row, content in rows.items():
            if len(content) <= room:
                room -= len(content)
                fitting[row] = content
            else:
                lost.append(row)
        content = msgspec.msgpack.encode([[*row, fitting.get(row)] for row in rows])
        header = len(content).to_bytes(8, "big") + hashlib.sha256(content).digest()
        try:
            # The header last: a write that is cut off is detected by its checksum.
            descriptor = os.open(self.path, os.O_WRONLY | os.O_CLOEXEC)
            try:
                if rows:
                    os.pwrite(descriptor, content, _HEADER)
                os.pwrite(descriptor, header if rows else _EMPTY, 0)
                os.fdatasync(descriptor)
            finally:
                os.close(descriptor)
        except OSError as error:
            raise ReserveError(f"{self.path}: {error.strerror}") from error
        return lost

    def read(self) -> Kept:
        """Return what was written last. Raises ReserveError."""
        try:
            with self.path.open("rb") as file:
                header = file.read(_HEADER)
                size = int.from_bytes(header[:8], "big")
                if size == 0:
                    return Kept({}, [])
                content = file.read(min(size, SIZE))
            if hashlib.sha256(content).digest() != header[8:]:
                raise ReserveError(f"{self.path} is damaged")
            entries = msgspec.msgpack.decode(content, type=list[tuple[str, str, bytes | None]])
        except FileNotFoundError:
            return Kept({}, [])
        except (OSError, msgspec.MsgspecError) as error:
            raise ReserveError(f"{self.path} cannot be read: {error}") from error
        rows = {Row(table, name): content for table, name, content in entries}
        return Kept(
            {row: content for row, content in rows.items() if content is not None},
            [row for row, content in rows.items() if content is None],
        )

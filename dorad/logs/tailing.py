"""Following log files that another process writes and rotates."""

from __future__ import annotations

import os
from functools import partial
from operator import attrgetter
from typing import TYPE_CHECKING, Self

from dorad.logs.parts import Part, close_parts, inode, open_parts, read_on
from dorad.logs.paths import DAEMON, current_name, files_of

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from dorad.logrecord import LogRecord
    from dorad.logs.history import History
    from dorad.logs.selection import Selection


class Tailing:
    """A reader of log files that continues where a `History` ends. Use it as a context manager."""

    def __init__(self, folder: Path, history: History) -> None:
        """Continue with the newest file of each node in `history`, which must still be open."""
        self._selection: Selection = history.selection
        self._files = {
            node: _Followed(folder, node, parts) for node, parts in history.parts.items()
        }
        self._folder = folder

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for file in self._files.values():
            file.close()

    def read(self, nodes: Iterable[str]) -> list[LogRecord]:
        """Return the lines since the last call, sorted by time; `nodes` are the present nodes.

        Raises:
            OSError: a file may not be read.
        """
        nodes = [*nodes]
        for node in nodes:
            wanted = self._selection.nodes
            if node not in self._files and (not wanted or node in wanted):
                self._files[node] = _Followed(self._folder, node, [])
        records: list[LogRecord] = []
        for file in self._files.values():
            records += file.read(nodes)
        records.sort(key=attrgetter("timestamp"))
        return [record for record in records if self._selection.passes(record)]


class _Followed:
    """The files of one node, and the position of the reader in them."""

    def __init__(self, folder: Path, node: str, parts: list[Part]) -> None:
        self._folder = folder
        self._node = node
        self._part: Part | None = None
        self._position = 0
        if parts:
            newest = parts[-1]
            self._part = newest._replace(descriptor=os.dup(newest.descriptor))
            self._position = newest.end

    def read(self, nodes: Iterable[str]) -> list[LogRecord]:
        records: list[LogRecord] = []
        if self._part is not None:
            status = os.fstat(self._part.descriptor)
            if status.st_nlink and inode(self._current()) == self._part.inode:
                return self._read_to(status.st_size)
        # The file was rotated, or did not exist: read all newer ones, oldest first.
        others = [] if self._node == DAEMON else [*nodes]
        parts = open_parts(partial(files_of, self._folder, self._node, others))
        inodes = [part.inode for part in parts]
        if self._part is not None:
            # The newer files are open now, so nothing more is appended to this one.
            records += self._read_to(os.fstat(self._part.descriptor).st_size)
            if self._part.inode in inodes:
                seen = inodes.index(self._part.inode) + 1
                close_parts(parts[:seen])
                parts = parts[seen:]
        for part in parts:
            self.close()
            self._part, self._position = part, 0
            records += self._read_to(part.end)
        return records

    def close(self) -> None:
        if self._part is not None:
            os.close(self._part.descriptor)
            self._part = None

    def _read_to(self, end: int) -> list[LogRecord]:
        assert self._part is not None
        # A new daemon may have cut the file; it writes the same lines again.
        self._position = min(self._position, end)
        records, self._position = read_on(self._part._replace(end=end), self._position)
        return records

    def _current(self) -> Path:
        return self._folder / current_name(self._node)

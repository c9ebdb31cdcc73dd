"""One log file: appended in whole lines and rotated by size; failures are reported, not raised."""

from __future__ import annotations

import errno
import os
import time
from typing import TYPE_CHECKING

from dorad.logs.paths import current_name, rotated_names

if TYPE_CHECKING:
    from collections.abc import Callable, Collection
    from pathlib import Path

    from dorad.logrecord import Level

RETRY_S = 3.0
"""Seconds between attempts to write after a failure."""


class Trouble:
    """Why a dataflow's log files cannot be written; reported once, and again when it is over."""

    def __init__(
        self, report: Callable[[Level, str], None], clock: Callable[[], float] = time.monotonic
    ) -> None:
        """`report` gets a level and a sentence."""
        self.text: str | None = None
        """One sentence while there is trouble."""
        self._report = report
        self._clock = clock
        self._next_try = 0.0
        self._missing = 0

    def may_try(self) -> bool:
        """Return True if it is worth trying to write."""
        return self.text is None or self._clock() >= self._next_try

    def missing(self, lines: int) -> None:
        """Count lines that were not written."""
        self._missing += lines

    def failed(self, path: Path, error: OSError) -> None:
        """Record that a file could not be written."""
        self._next_try = self._clock() + RETRY_S
        if self.text is None:
            reason = error.strerror or str(error)
            self.text = f"log files are not written: {path}: {reason}"
            self._report(
                "error", f"{self.text}; nodes keep running; free space or permit writing there"
            )

    def end(self) -> None:
        """Report the missing lines, if there are any and the files still cannot be written."""
        if self.text is not None and self._missing:
            self._report("error", f"log files were not written; {_count(self._missing)} missing")

    def worked(self) -> None:
        """Record that a file was written."""
        if self.text is not None:
            missing, self._missing = self._missing, 0
            self.text = None
            self._report("warn", f"log files are written again; {_count(missing)} missing")


def _count(lines: int) -> str:
    return "1 line is" if lines == 1 else f"{lines} lines are"


class LogFile:
    """The log file of one node, and its rotated files.

    The first line creates it. Never raises: `trouble` counts lines that cannot be written.
    """

    def __init__(
        self,
        folder: Path,
        name: str,
        trouble: Trouble,
        *,
        max_size: int | None = None,
        max_rotated: int = 5,
        others: Collection[str] = (),
    ) -> None:
        """`name` is the node's id, `others` are the ids of other nodes with files in the folder.

        A file of `max_size` bytes or more is rotated before the next line.
        """
        self.max_size = max_size
        self.path = folder / current_name(name)
        self._folder = folder
        self._trouble = trouble
        self._rotated = [folder / each for each in rotated_names(name, max_rotated, others)]
        self._descriptor = -1
        self._size = 0

    def begin(self) -> int | None:
        """Open the file for the next lines and return its size; None if it cannot be written."""
        if not self._trouble.may_try():
            return None
        try:
            self._size = self._open()
            if self.max_size is not None and self._size >= self.max_size > 0:
                self._rotate()
                self._size = self._open()
        except OSError as error:
            self._trouble.failed(self.path, error)
            return None
        return self._size

    def append(self, data: bytes, lines: int) -> None:
        """Append all of `lines` lines or none, right after a successful `begin`."""
        try:
            written = os.write(self._descriptor, data)
            if written < len(data):
                written += os.write(self._descriptor, data[written:])
            if written < len(data):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        except OSError as error:
            self._cut(self._size)
            self._trouble.missing(lines)
            self._trouble.failed(self.path, error)
        else:
            self._size += len(data)
            self._trouble.worked()

    def write(self, data: bytes, lines: int) -> None:
        """Append `lines` lines if the file can be written; else count them as missing."""
        if self.begin() is None:
            self._trouble.missing(lines)
        else:
            self.append(data, lines)

    def skip(self, lines: int) -> None:
        """Count lines as missing because `begin` failed."""
        self._trouble.missing(lines)

    def cut_to(self, size: int) -> None:
        """Remove what a process appended beyond `size` and died before committing."""
        try:
            if self._open() > size:
                self._cut(size)
        except OSError as error:
            self._trouble.failed(self.path, error)

    def close(self) -> None:
        """Close the file. The next line opens it again."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def _open(self) -> int:
        """Ensure that the file is open and still has its name; return its size."""
        if self._descriptor >= 0:
            status = os.fstat(self._descriptor)
            if status.st_nlink:
                return status.st_size
            self.close()
        # O_NONBLOCK: a node may have put a FIFO in its place.
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NONBLOCK
        try:
            self._descriptor = os.open(self.path, flags, 0o644)
        except FileNotFoundError:
            self._folder.mkdir(parents=True, exist_ok=True)
            self._descriptor = os.open(self.path, flags, 0o644)
        return os.fstat(self._descriptor).st_size

    def _rotate(self) -> None:
        """Move each file one place back, up to the first free place.

        An interrupted rotation leaves a state from which the next one continues.
        """
        self.close()
        if not self._rotated:
            self.path.unlink()
            return
        last = len(self._rotated) - 1
        for place, path in enumerate(self._rotated):
            if not path.exists():
                last = place
                break
        for place in range(last, 0, -1):
            self._rotated[place - 1].replace(self._rotated[place])
        self.path.replace(self._rotated[0])

    def _cut(self, size: int) -> None:
        try:
            os.ftruncate(self._descriptor, size)
        except OSError as error:
            self._trouble.failed(self.path, error)

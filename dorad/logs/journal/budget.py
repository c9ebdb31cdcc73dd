"""One node's share of the journal.

All nodes share the journal's size, and its oldest entries are deleted first. A node that never
stops printing would push out the lines of all others, so lines beyond its share go to its files.
"""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

FOLDERS = (Path("/var/log/journal"), Path("/run/log/journal"))
"""Folders of the journal: on the disk if the first exists, else in memory."""
PARTS = 4
"""A node may fill 1/PARTS of the journal at once, and the same again every day."""
ENTRY_BYTES = 600
"""Approximate overhead of an entry in the journal."""

_DAY_S = 86400.0
_MAX_SHARE = 4 << 30
_MIN_SHARE = 32 << 20


def share() -> int:
    """Return how many bytes of the journal one node may fill at once."""
    folder = next((path for path in FOLDERS if path.is_dir()), None)
    if folder is None:
        return _MIN_SHARE
    status = os.statvfs(folder)
    return share_of(status.f_blocks * status.f_frsize)


def share_of(disk: int) -> int:
    """Return a node's share of a journal on a file system of `disk` bytes.

    By default the journal takes a tenth of the file system, at most 4 GiB.
    """
    return max(_MIN_SHARE, min(_MAX_SHARE, disk // 10) // PARTS)


class Budget:
    """The rest of one node's share."""

    def __init__(
        self, size: int | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """`size` is the share in bytes; None is the default share of this machine's journal."""
        self._size = share() if size is None else size
        self._clock = clock
        self._left = float(self._size)
        self._at = clock()
        self._spent = False

    def allows(self) -> bool:
        """Return True if the next entries may go to the journal.

        Once used up, the answer stays False until a tenth is available again, so that consecutive
        lines stay together.
        """
        now = self._clock()
        self._left = min(self._size, self._left + (now - self._at) * self._size / _DAY_S)
        self._at = now
        if self._left < 1:
            self._spent = True
        elif self._left >= self._size / 10:
            self._spent = False
        return not self._spent

    def take(self, entry: int) -> None:
        """Subtract an entry of `entry` bytes that was written."""
        self._left -= entry + ENTRY_BYTES

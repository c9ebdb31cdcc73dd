"""How much one node may put into the journal before it pushes out the lines of others.

The journal is of one size for all, and what is oldest in it goes first. A node that never stops
printing would leave nothing of the others: what is beyond its share goes to its own files.
"""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

FOLDERS = (Path("/var/log/journal"), Path("/run/log/journal"))
"""Where the journal lies: on the disk if the first is there, else in memory."""
PARTS = 4
"""A node may fill one part in as many of the journal at once, and once more every day."""
ENTRY_BYTES = 600
"""What an entry takes in the journal besides its own bytes, about."""

_DAY_S = 86400.0
_MOST = 4 << 30
_LEAST = 32 << 20


def share() -> int:
    """Return how many bytes of the journal one node may fill at once."""
    folder = next((path for path in FOLDERS if path.is_dir()), None)
    if folder is None:
        return _LEAST
    status = os.statvfs(folder)
    return share_of(status.f_blocks * status.f_frsize)


def share_of(disk: int) -> int:
    """Return the same for a journal on a file system of `disk` bytes.

    It takes a tenth of that, and at most 4 GiB, where journald.conf does not say otherwise.
    """
    return max(_LEAST, min(_MOST, disk // 10) // PARTS)


class Budget:
    """What one node has left."""

    def __init__(
        self, size: int | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """`size` in bytes of the journal; None is a share of the one of this machine."""
        self._size = share() if size is None else size
        self._clock = clock
        self._left = float(self._size)
        self._at = clock()
        self._spent = False

    def allows(self) -> bool:
        """Whether the next entries may go to the journal.

        When all is used up, a tenth is waited for: lines are not torn apart one by one.
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
        """Count an entry of so many bytes that was written."""
        self._left -= entry + ENTRY_BYTES

"""How many entries one node may put into the journal before it pushes out those of others.

The journal is of one size for all, and what is oldest in it goes first. A node that never stops
printing would leave nothing of the others: what is beyond its share goes to its own files.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

BURST = 500_000
"""Entries that a node may write at once; some 375 MB of the journal."""
PER_SECOND = 20.0
"""Entries a second that it may write for ever; some 1.3 GB a day."""


class Budget:
    """What one node has left."""

    def __init__(
        self,
        burst: int = BURST,
        per_second: float = PER_SECOND,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._burst = burst
        self._per_second = per_second
        self._clock = clock
        self._left = float(burst)
        self._at = clock()
        self._spent = False

    def allows(self) -> bool:
        """Whether the next entry may go to the journal.

        After the last one, a tenth of the burst is waited for: lines are not torn apart one by one.
        """
        now = self._clock()
        self._left = min(self._burst, self._left + (now - self._at) * self._per_second)
        self._at = now
        if self._left < 1:
            self._spent = True
        elif self._left >= self._burst / 10:
            self._spent = False
        return not self._spent

    def take(self, entries: int) -> None:
        """Count entries that were written."""
        self._left -= entries

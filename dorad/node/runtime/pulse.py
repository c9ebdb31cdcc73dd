"""The heartbeats of all operators of a watched process, combined into one for the daemon."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from dorad.shm.layout import BOX_BUSY, BOX_PULSE

if TYPE_CHECKING:
    from dorad.node.connection import DaemonConnection


class Pulse:
    """Counts a heartbeat when every working operator has beaten since the last one.

    So the slowest operator decides. The mailbox also holds the number of working operators, because
    one may sleep while another hangs.
    """

    def __init__(self, connection: DaemonConnection) -> None:
        self._words = connection.box.words
        self._mutex = threading.Lock()
        self._working: set[str] = set()
        self._beaten: set[str] = set()

    def begin(self, operator: str) -> None:
        """Record that an operator has received an event."""
        with self._mutex:
            self._working.add(operator)
            self._words[BOX_BUSY] = len(self._working)
            self._count(operator)

    def beat(self, operator: str) -> None:
        """Record a heartbeat of a working operator."""
        with self._mutex:
            self._count(operator)

    def rest(self, operator: str) -> None:
        """Record that an operator has handled its event."""
        with self._mutex:
            self._count(operator)
            self._working.discard(operator)
            self._words[BOX_BUSY] = len(self._working)

    def _count(self, operator: str) -> None:
        self._beaten.add(operator)
        if self._beaten >= self._working:
            self._beaten.clear()
            self._words[BOX_PULSE] += 1

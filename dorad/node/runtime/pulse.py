"""Whether all operators of a watched process are well, as the one pulse that the daemon sees."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from dorad.shm.layout import BOX_BUSY, BOX_PULSE

if TYPE_CHECKING:
    from dorad.node.connection import DaemonConnection


class Pulse:
    """Moves when every operator that is at work has shown itself since it last moved.

    So the slowest of them decides. The mailbox also says how many are at work, since one of them
    may sleep while another hangs.
    """

    def __init__(self, connection: DaemonConnection) -> None:
        self._words = connection.box.words
        self._mutex = threading.Lock()
        self._at_work: set[str] = set()
        self._shown: set[str] = set()

    def begin(self, operator: str) -> None:
        """Take note that an operator has got an event."""
        with self._mutex:
            self._at_work.add(operator)
            self._words[BOX_BUSY] = len(self._at_work)
            self._show(operator)

    def beat(self, operator: str) -> None:
        """Take note that an operator at work has come back to dora."""
        with self._mutex:
            self._show(operator)

    def rest(self, operator: str) -> None:
        """Take note that an operator is through with its event."""
        with self._mutex:
            self._show(operator)
            self._at_work.discard(operator)
            self._words[BOX_BUSY] = len(self._at_work)

    def _show(self, operator: str) -> None:
        self._shown.add(operator)
        if self._shown >= self._at_work:
            self._shown.clear()
            self._words[BOX_PULSE] += 1

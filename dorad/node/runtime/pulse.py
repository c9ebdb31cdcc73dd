"""The heartbeats of all operators of a process: combined into one for the daemon, or compared."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from dorad.shm.layout import BOX_BUSY, BOX_PULSE

if TYPE_CHECKING:
    from collections.abc import Iterable

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


class Calls:
    """The calls of the operators of a process that is not watched: names those that make none.

    While another operator waits for events the daemon sees a process that does.
    """

    def __init__(self, operators: Iterable[str]) -> None:
        self._calls = dict.fromkeys(operators, 0)
        """By operator: its calls so far, which its own thread counts."""
        self._working: set[str] = set()
        self._same: dict[str, tuple[int, int]] = {}
        """By operator: its calls at the last check, and the checks that saw it work with them."""

    def begin(self, operator: str) -> None:
        """Record that an operator has received an event."""
        self._calls[operator] += 1
        self._working.add(operator)

    def beat(self, operator: str) -> None:
        """Record a call of a working operator."""
        self._calls[operator] += 1

    def rest(self, operator: str) -> None:
        """Record that an operator has handled its event."""
        self._working.discard(operator)

    def check(self, checks: int) -> list[str]:
        """Return the operators that made no call, and did not rest, since `checks` checks.

        Each operator is returned once in an event.
        """
        silent = []
        for operator, calls in self._calls.items():
            before, same = self._same.get(operator, (-1, 0))
            same = same + 1 if operator in self._working and calls == before else 0
            self._same[operator] = calls, same
            if same == checks:
                silent.append(operator)
        return silent

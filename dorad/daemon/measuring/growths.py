"""Which nodes of a dataflow take more and more memory."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from dorad.daemon.measuring.rates import told
from dorad.daemon.rules.growth import FAST_S, SLOW_S, Growth, growth_after

if TYPE_CHECKING:
    from collections.abc import Mapping


class Growing(NamedTuple):
    """A node that takes more and more memory."""

    node: str
    memory: float
    """Bytes that it has now."""
    before: int
    """Bytes that it had."""


class MemoryWatch:
    """The memory of all nodes of one dataflow. Add a sample once a second."""

    def __init__(self) -> None:
        self._pids: dict[str, int] = {}
        self._growths: dict[str, tuple[Growth, Growth]] = {}
        """Of each node: the fast and the slow one."""
        self._told: dict[str, float] = {}

    def add(self, at: float, processes: Mapping[str, tuple[int, int]]) -> None:
        """Add the process and the memory of each running node at `at` (monotonic seconds)."""
        pids, growths = self._pids, self._growths
        self._pids, self._growths = {}, {}
        for node, (pid, memory) in processes.items():
            both = growths[node] if pids.get(node) == pid else (Growth(FAST_S), Growth(SLOW_S))
            self._pids[node] = pid
            self._growths[node] = (
                growth_after(both[0], at, memory),
                growth_after(both[1], at, memory),
            )

    def growing(self) -> list[Growing]:
        """Return the nodes that take more and more."""
        before, self._told = self._told, {}
        found: list[Growing] = []
        for node, both in self._growths.items():
            growth = next((each for each in both if each.growing), None)
            if growth is not None:
                self._told[node] = told(growth.lows[-1], before.get(node))
                found.append(Growing(node, self._told[node], growth.base))
        return found

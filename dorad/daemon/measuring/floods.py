"""Which nodes of a dataflow log more than anybody reads."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from dorad.daemon.measuring.rates import told
from dorad.daemon.rules.flood import ERRORS, OVER, Flood, flood_after

if TYPE_CHECKING:
    from collections.abc import Mapping

    from dorad.logs.dataflowlog import LineCounts


class Flooding(NamedTuple):
    """A node that logs too much."""

    node: str
    rate: float
    """Per second."""
    what: str
    """`errors` or `lines`"""


class LogWatch:
    """The floods of all nodes of one dataflow. Add a sample once a second."""

    def __init__(self) -> None:
        self._floods: dict[str, Flood] = {}
        self._counts: dict[str, LineCounts] = {}
        self._told: dict[tuple[str, str], float] = {}

    def add(self, at: float, counts: Mapping[str, LineCounts]) -> None:
        """Add how much each node has logged until `at` (monotonic seconds)."""
        if self._counts.keys() - counts.keys():
            self._floods = {node: self._floods[node] for node in counts if node in self._floods}
        for node, each in counts.items():
            flood = self._floods.get(node, Flood())
            # A node that says nothing, as most do most of the time, costs nothing.
            if each != self._counts.get(node) or flood.since is not None:
                self._floods[node] = flood_after(flood, at, *each)
        self._counts = dict(counts)

    def flooding(self) -> list[Flooding]:
        """Return the nodes that log too much."""
        before, self._told = self._told, {}
        found: list[Flooding] = []
        for node, flood in self._floods.items():
            if flood.flooding:
                what = "errors" if flood.errors >= OVER * ERRORS else "lines"
                rate = told(getattr(flood, what), before.get((node, what)))
                self._told[node, what] = rate
                found.append(Flooding(node, rate, what))
        return found

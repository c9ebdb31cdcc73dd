"""The robots as the server last described them: a store that hands out snapshots."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

from dorad.control.messages import FleetRow, FleetRows

STATES = ("fail", "warn", "unreach", "update", "busy", "ok")
"""The worst first."""


@dataclass(frozen=True, slots=True)
class FleetView:
    """All robots at one moment."""

    rows: Mapping[str, FleetRow] = field(default_factory=dict)
    version: int = 0
    """Grows with each change."""

    @property
    def counts(self) -> Mapping[str, int]:
        """The number of robots in each state, the worst first, without states that none has."""
        counter: Counter[str] = Counter(row.state for row in self.rows.values())
        return {state: counter[state] for state in STATES if counter[state]}

    @property
    def labels(self) -> set[str]:
        """The names of all labels."""
        return {name for row in self.rows.values() for name in row.labels}


class FleetStore:
    """Takes what the server sends."""

    def __init__(self) -> None:
        self._rows: dict[str, FleetRow] = {}
        self.view = FleetView()

    def take(self, update: FleetRows) -> FleetView:
        """Take rows that are new or have changed, and return the new snapshot."""
        rows = {} if update.whole else dict(self._rows)
        for name in update.removed:
            rows.pop(name, None)
        rows.update((row.robot, row) for row in update.rows)
        self._rows = rows
        self.view = FleetView(rows, self.view.version + 1)
        return self.view

"""The last known state of one robot. In memory only: a robot that connects reports it again."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from dorad.control.errors import ControlError
from dorad.control.pace import Pace
from dorad.dataflow.nearest import did_you_mean
from dorafleet.coordinator.messages import CLOCK_WARNING
from dorafleet.coordinator.probing import Skew
from dorafleet.coordinator.reports import MAX_STATES

if TYPE_CHECKING:
    from collections.abc import Collection

    from dorad.control.asyncclient import AsyncClient
    from dorad.control.messages.agent import Attached, Revocation, ShareState
    from dorad.control.messages.releases import ReleaseState
    from dorafleet.coordinator.reports import Sizes
    from dorafleet.inventory.model import Machine

SKEW_S = 10.0
"""A clock that is further off is reported."""

RIVALS_S = 600.0
"""Seconds for which two machines with one id are reported."""

RATE = 8 << 20
"""Bytes a second that are read from a robot: log lines, answers, and messages of topics."""

REPORT_WEIGHT = 16
"""A byte of a report counts as so many: each is checked, kept and compared."""

REPORTS = ("agent.attach", "agent.watch", "fleet.watch")

BURST = REPORT_WEIGHT * MAX_STATES
"""Bytes that are read at once: all that a robot may report when it connects."""

MAX_REASON = 1000
"""Characters of a reason that a robot gives."""

MAX_ID = 100
"""Characters of an unknown id in a message."""

_UNITS = ((86400, "days"), (3600, "h"), (60, "min"))

State = Literal["never-seen", "connected", "unreachable", "refused", "conflict-paused"]


@dataclass(slots=True, eq=False)
class Robot:
    """The last known state of one robot."""

    machine: Machine
    client: AsyncClient | None = None
    """The connection to its agent."""
    attached: Attached | None = None
    """Its greeting when it connected last."""
    shares: dict[str, ShareState] = field(default_factory=dict)
    """By dataflow; the last that is known."""
    stored: dict[str, int] = field(default_factory=dict)
    """The generation of each share that it has stored since it connected."""
    sending: set[str] = field(default_factory=set)
    """Dataflows whose share is on its way to it."""
    refusals: dict[str, tuple[int, str]] = field(default_factory=dict)
    """Shares that it has refused, by dataflow, with their generation and the reason."""
    undelivered: dict[str, str] = field(default_factory=dict)
    """Dataflows whose last order it could not store, with the reason. The order is sent again."""
    newer: dict[str, tuple[int, str]] = field(default_factory=dict)
    """Shares that it has in a newer version, with the generation that it was sent."""
    conflicts: dict[str, str] = field(default_factory=dict)
    """Shares that the store does not know, by dataflow, with the reason."""
    skew: Skew = field(default_factory=Skew)
    """How far its clock is ahead of the coordinator's."""
    seen_at: float | None = None
    """When it reported last, in seconds since 1970."""
    seen: float | None = None
    """The same on the monotonic clock."""
    releases: dict[str, ReleaseState] = field(default_factory=dict)
    """What it has reported of dataflows that come from releases; the last that is known."""
    ordered: dict[str, int] = field(default_factory=dict)
    """The generation of each order about a release that it has stored since it connected."""
    dataflows: tuple[str, ...] = ()
    """What its daemon ran by its last row, also what was started there."""
    sizes: Sizes = field(default_factory=dict)
    """Bytes of what is kept of its reports."""
    daemon: str = ""
    """Why its daemon cannot be used."""
    room: int | None = None
    """Bytes that its disk of releases had free when it reported last; None if it does not say."""
    reported: list[str] = field(default_factory=list)
    """What it has reported that an operator should know of it; alerts have it from its row."""
    reason: str = ""
    """Why it is not connected."""
    was_refused: bool = False
    """Whether its last connection was refused."""
    away_since: float | None = field(default_factory=time.monotonic)
    """Since when it cannot be reached, on the monotonic clock; None while it can."""
    rivals_at: float = float("-inf")
    """When another machine took over its connection, on the monotonic clock."""
    pace: Pace = field(init=False)
    """How fast its frames are read, over all its connections."""
    audit: str = ""
    """How the audit contradicts the one that it knows. It stays until an operator acknowledges."""
    head: str = ""
    """The head of the audit that it keeps."""
    revocations: list[Revocation] = field(default_factory=list)
    """The newest that it knows of."""
    outranked: bool = False
    """Whether it does not obey, because it has obeyed another term."""
    takes_over: bool = False
    """Whether an operator has said that it shall obey nevertheless."""

    def __post_init__(self) -> None:
        weights = dict.fromkeys(REPORTS, REPORT_WEIGHT)
        self.pace = Pace(f"robot `{self.id}`", RATE, BURST, weights)

    @property
    def id(self) -> str:
        """Its id in the cluster file."""
        return self.machine.id

    @property
    def state(self) -> State:
        """Whether it can be reached, in one word."""
        if self.client is not None:
            return "conflict-paused" if self.conflicts else "connected"
        if self.was_refused:
            return "refused"
        return "never-seen" if self.attached is None else "unreachable"

    @property
    def warnings(self) -> list[str]:
        """Problems that an operator should know, although the robot is usable."""
        lines = []
        if time.monotonic() - self.rivals_at < RIVALS_S:
            lines.append("two machines connect with its id and certificate")
        if self.pace.exceeded:
            lines.append("it sends more than the coordinator takes of one robot, and is read late")
        lines += [
            f"the order for `{name}` is not stored there, trying again: {reason}"
            for name, reason in sorted(self.undelivered.items())
        ]
        if self.skew.beyond(SKEW_S):
            ahead = "ahead" if self.skew.seconds > 0 else "behind"
            lines.append(f"{CLOCK_WARNING} {_span(abs(self.skew.seconds))} {ahead}")
        return lines

    @property
    def age(self) -> float | None:
        """Seconds since it reported last; None if it never did."""
        return None if self.seen is None else time.monotonic() - self.seen

    @property
    def trouble(self) -> str:
        """Why nothing can be started there, or an empty text."""
        if self.client is None:
            if self.attached is None and not self.was_refused:
                return "it has never connected"
            return f"it is {self.state}" + (f": {self.reason}" if self.reason else "")
        if self.conflicts:
            name, reason = next(iter(self.conflicts.items()))
            return f"it is paused because of `{name}`: {reason}"
        return f"its dorad cannot be used: {self.daemon}" if self.daemon else ""


def unknown_robot(id_: str, robots: Collection[str]) -> ControlError:
    """Return the error for a robot that is not in the cluster file."""
    hint = did_you_mean(id_, robots) or "`dorafleet status` lists all robots"
    return ControlError("not-found", f"there is no robot `{id_[:MAX_ID]}`", hint)


def _span(seconds: float) -> str:
    """Return a time span in one unit, of which it has at least two."""
    for size, unit in _UNITS:
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"

"""The last known state of one robot. One that connects reports it again; see `lastseen`."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from msgspec.structs import replace

from dorad.control.errors import ControlError
from dorad.control.messages import METHODS
from dorad.control.messages.agent import AGENT_METHODS
from dorad.control.pace import Pace
from dorad.dataflow.nearest import did_you_mean
from dorafleet.coordinator.messages import CLOCK_WARNING
from dorafleet.coordinator.place import clone_text
from dorafleet.coordinator.probing import Skew
from dorafleet.coordinator.reports import MAX_STATES

if TYPE_CHECKING:
    from collections.abc import Collection

    from dorad.control.asyncclient import AsyncClient
    from dorad.control.messages.agent import Attached, Revocation, SecretsHeld, ShareState
    from dorad.control.messages.releases import ReleaseState
    from dorafleet.coordinator.place import Clone, Origin
    from dorafleet.coordinator.reports import Sizes
    from dorafleet.inventory.model import Machine

SKEW_S = 10.0
"""A clock that is further off is reported."""

RATE = 8 << 20
"""Bytes a second that are read from a robot: log lines, answers, and messages of topics."""

REPORT_WEIGHT = 16
"""A byte of a report counts as so many: each is checked, kept and compared."""

_WEIGHTS = {
    name: REPORT_WEIGHT for name, method in (METHODS | AGENT_METHODS).items() if method.report
}
"""Of what a robot reports, by method."""

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
    """Its greeting when it connected last, perhaps to an earlier coordinator."""
    was_seen: bool = False
    """Whether it has connected to an earlier coordinator."""
    earlier: tuple[list[ShareState], list[ReleaseState]] = field(default_factory=lambda: ([], []))
    """What it reported to an earlier coordinator. It is shown, and decides nothing."""
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
    secrets: SecretsHeld | None = None
    """Its secrets, and its key for sealing; None if it has not connected to this coordinator."""
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
    origin: Origin | None = None
    """The machine that has its place."""
    former: Origin | None = None
    """The machine that had it before, at another address or in another boot."""
    clones: list[Clone] = field(default_factory=list)
    """Other machines that came with its certificate, and were refused."""
    attaching: asyncio.Lock = field(default_factory=asyncio.Lock)
    """Held while it is decided which machine has its place."""
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
        self.pace = Pace(f"robot `{self.id}`", RATE, BURST, _WEIGHTS)

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
        return "unreachable" if self.ever_seen else "never-seen"

    @property
    def ever_seen(self) -> bool:
        """Whether it has ever connected, to this coordinator or an earlier one."""
        return self.was_seen or self.attached is not None

    @property
    def known_shares(self) -> list[ShareState]:
        """The last that is known of its shares, also from an earlier coordinator."""
        return self.earlier[0] if self.seen is None else list(self.shares.values())

    @property
    def known_releases(self) -> list[ReleaseState]:
        """The last that is known of its releases, without evidence; see `known_shares`."""
        if self.seen is None:
            return self.earlier[1]
        return [replace(each, evidence=[]) for each in self.releases.values()]

    @property
    def warnings(self) -> list[str]:
        """Problems that an operator should know, although the robot is usable."""
        lines = []
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
    def clone(self) -> str:
        """Which other machine has its id and certificate; empty if none came lately."""
        return clone_text(self.id, self.origin, self.clones, time.time(), self.former)

    @property
    def age(self) -> float | None:
        """Seconds since it reported last; None if that is not known."""
        if self.seen is not None:
            return time.monotonic() - self.seen
        return None if self.seen_at is None else max(0.0, time.time() - self.seen_at)

    @property
    def trouble(self) -> str:
        """Why nothing can be started there, or an empty text."""
        if self.client is None:
            if not self.ever_seen and not self.was_refused:
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

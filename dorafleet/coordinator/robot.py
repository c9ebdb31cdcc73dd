"""The last known state of one robot. One that connects reports it again; see `lastseen`."""

import asyncio
import time
from collections.abc import Collection
from dataclasses import dataclass, field

from msgspec.structs import replace

from dorad.control.asyncclient import AsyncClient
from dorad.control.errors import ControlError
from dorad.control.messages import METHODS
from dorad.control.messages.agent import (
    AGENT_METHODS,
    Accepts,
    Attached,
    Revocation,
    SecretsHeld,
    ShareState,
)
from dorad.control.messages.releases import ReleaseState
from dorad.control.pace import Pace
from dorad.dataflow.nearest import did_you_mean
from dorafleet.coordinator.findings import RobotFacts, blocking
from dorafleet.coordinator.messages import RobotStatus
from dorafleet.coordinator.place import Clone, Origin, clone_text
from dorafleet.coordinator.probe import Skew
from dorafleet.coordinator.reports import MAX_STATES, Sizes
from dorafleet.coordinator.requests import Answer, AnswerKind
from dorafleet.inventory.model import Machine

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


@dataclass(slots=True, eq=False)
class Robot:
    """The last known state of one robot."""

    machine: Machine
    since: int = 0
    """The generation from which it is in the fleet: earlier orders were those of another one."""
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
    answers: dict[str, Answer] = field(default_factory=dict)
    """What has become of the last request about each dataflow since it connected."""
    sending: set[str] = field(default_factory=set)
    """Dataflows about which a request is on its way to it."""
    strange: dict[str, str] = field(default_factory=dict)
    """Dataflows of which it reports an order that nobody gave, with what it reports."""
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
    unasked: int = 0
    """Connections for files that it has opened and no transfer had asked for; they were refused."""
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
    def local(self) -> list[str]:
        """The dataflows that it runs of its own, by its last row."""
        shared = {name for share in self.known_shares for name in (share.dataflow, share.uuid)}
        released = {release.dataflow for release in self.known_releases}
        return sorted({*self.dataflows} - shared - released)

    @property
    def id(self) -> str:
        """Its id in the fleet."""
        return self.machine.id

    @property
    def state(self) -> RobotStatus:
        """Whether it can be reached, in one word."""
        if self.client is not None:
            return "conflict-paused" if self.conflicts else "connected"
        if self.was_refused:
            return "refused"
        return "unreachable" if self.ever_seen else "never-seen"

    @property
    def accepts(self) -> Accepts:
        """What it takes, as far as that is known: it judges each order itself."""
        return Accepts() if self.attached is None else self.attached.accepts

    @property
    def ever_seen(self) -> bool:
        """Whether it has ever connected, to this coordinator or an earlier one."""
        return self.was_seen or self.attached is not None

    def answered(self, kind: AnswerKind, generation: int | None = None) -> dict[str, str]:
        """Return the dataflows whose last request was answered so, each with the reason."""
        return {
            name: answer.reason
            for name, answer in self.answers.items()
            if answer.kind == kind and generation in (None, answer.request.generation)
        }

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
        return next((each.text for each in blocking(self.facts, 0.0)), "")

    @property
    def facts(self) -> RobotFacts:
        """What findings about the robot itself follow from."""
        machine = self.machine
        port = "" if machine.port is None else f"-p {machine.port} "
        user = "" if machine.user is None else f"{machine.user}@"
        return RobotFacts(
            robot=self.id,
            login=f"ssh {port}{user}{machine.host}",
            state=self.state,
            reason=self.reason,
            daemon=self.daemon,
            outranked=self.outranked and self.client is None,
            conflicts=self.conflicts,
            clone=self.clone,
            audit=self.audit,
            skew=self.skew,
            read_late=self.pace.exceeded,
            undelivered=self.answered("failed"),
            strange=self.strange,
            unasked=self.unasked,
            reported=self.reported,
        )


def unknown_robot(id_: str, robots: Collection[str]) -> ControlError:
    """Return the error for a robot that is not in the fleet."""
    hint = did_you_mean(id_, robots) or "`dorafleet status` lists all robots"
    return ControlError("not-found", f"there is no robot `{id_[:MAX_ID]}`", hint)

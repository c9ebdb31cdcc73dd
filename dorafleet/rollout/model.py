"""A rollout, its robots, and the observations of them. Only data."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

import msgspec

from dorad.control.messages.releases import Evidence, Group, ReleaseState
from dorad.int64 import Int64
from dorafleet.rollout.strategy import Amount, Strategy

Phase = Literal[
    "planned",
    "canary",
    "awaiting_promotion",
    "rolling",
    "soaking",
    "settled",
    "succeeded",
    "succeeded_partially",
    "reverting",
    "reverted",
    "revert_incomplete",
    "refused",
    "aborted",
    "superseded",
    "failed",
]
"""Where a rollout is. `soaking`: every robot that could be reached has a verdict, and those that
are confirmed are watched. `settled`: that time is over, other robots follow later.
`revert_incomplete`: every robot that could be reached is back. `refused`: robots do not take the
release, and none had the order to switch."""

FORWARD = frozenset({"canary", "rolling", "soaking", "settled"})
"""Phases in which robots may switch to the release."""

BACK = frozenset({"reverting", "revert_incomplete"})
"""Phases in which robots go back."""

FINAL = frozenset(
    {
        "succeeded",
        "succeeded_partially",
        "reverted",
        "refused",
        "aborted",
        "superseded",
        "failed",
    }
)
"""Phases that a rollout leaves only by `undo`."""

Scope = Annotated[str, msgspec.Meta(pattern=r"^(each|one|each:[^:\x00-\x1f]{1,200})$(?!\n)")]
"""`each`: each robot runs the dataflow alone. `one`: one instance over all robots. `each:LABEL`: an
instance over the robots with one value of a label."""

OrderKind = Literal["", "stage", "switch", "recall", "back"]
"""The last order to a robot. `recall`: stay with what runs; `back`: switch back to it."""

StepKind = Literal["stage", "arm", "switch", "commit", "recall", "back", "withdraw"]
"""What a step orders. `arm`: the machines of an instance, which are ready, reserve their switch;
their order remains to get ready. `commit`: all machines of an instance are healthy, each confirms.
`withdraw`: a robot that is confirmed and has failed goes back as one that fails in its probation;
its order remains to switch."""

Verdict = Literal[
    "", "confirmed", "reverted", "stuck", "refused", "lost", "failed", "back", "removed"
]
"""`lost`: no verdict in time. `failed`: it was confirmed, then nodes of it failed, and it has not
gone back yet. `back`: it runs again what it ran before. `removed`: it left the fleet; nothing is
known of it, and nothing waits for it."""

FAILURES = frozenset({"reverted", "stuck", "refused", "lost", "failed"})

HAVE_IT = frozenset({"confirmed", "stuck", "lost", "failed"})
"""Verdicts about robots that have the release, or may have it."""

MOVING = frozenset({"switching", "probation", "reverting"})
"""Phases of a robot in which it gets no other order than to go back."""


class Rollout(msgspec.Struct, frozen=True):
    """The head of a rollout: everything but its robots. The value of `rollout/<number>`."""

    number: Int64
    dataflow: str
    release: str
    """The id; empty if the dataflow is to be removed."""
    name: str
    """Of the release, for people."""
    strategy: Strategy
    size: Int64
    """Number of its robots."""
    by: str
    """Who started it."""
    created: float
    phase: Phase = "planned"
    since: float = 0.0
    """When `phase` changed."""
    reason: str = ""
    """Why it is in this phase."""
    scope: Scope = "each"
    paused: bool = False
    question: str = ""
    """What an operator should decide, if the coordinator has paused it."""
    retry: bool = False
    allow_lower: bool = False
    over: bool = False
    """Whether it has ended, and nothing is left to be seen of its robots."""
    counts: dict[str, Int64] = {}
    """Robots by state, once it is over."""
    generation_before: Int64 = 0
    """Orders of this rollout have higher generations."""
    steps: Int64 = 0
    """Entries of its journal."""
    rejected: bool = False
    """Whether its release was undone, so that no robot goes back to it."""
    back_parallel: Amount | None = None
    """Maximum number of robots that an undo switches back at a time; None: as forward."""
    back_at_once: bool = False
    """Whether an undo switches all robots back at once, whatever the budget."""

    @property
    def is_final(self) -> bool:
        """Whether it has ended."""
        return self.phase in FINAL


class Member(msgspec.Struct, frozen=True):
    """A robot of a rollout, as the journal has it."""

    robot: str
    batch: Int64
    """0 for canaries."""
    before: str = ""
    """The release to which it reverts; empty for none."""
    before_params: dict[str, Any] = {}
    before_group: Group | None = None
    before_scope: Scope = "each"
    """Of the rollout that brought `before`."""
    params: dict[str, Any] = {}
    instance: str = ""
    """The instance that it runs with other machines; empty if it runs the dataflow alone."""
    group: Group | None = None
    lost: bool = False
    """Whether an operator has given the machine up: nothing waits until it says that it has left.
    """
    committed: bool = False
    """Whether all machines of the instance were healthy with the release. It is stored before any
    of them is told, and decides for those that have gone back meanwhile."""
    order: OrderKind = ""
    generation: Int64 = 0
    """Of the order."""
    armed: bool = False
    """Whether it has the order to reserve its switch."""
    withdrawn: bool = False
    """Whether it has the order to go back from the release that it had confirmed."""
    undone: str = ""
    """Who has undone the rollout on its instance alone, `undone by ann`; empty for nobody."""
    verdict: Verdict = ""
    at: float = 0.0
    """When the order or the verdict changed."""
    reason: str = ""
    evidence: list[Evidence] = []

    @property
    def unit(self) -> str:
        """The name of what switches as one: its instance, or the robot itself."""
        return self.instance or self.robot

    @property
    def leaves(self) -> bool:
        """Whether no node of its instance is left on it: it stops its part, and forgets it."""
        share = None if self.group is None else self.group.share
        return share is not None and share.machine not in share.placement.values()

    @property
    def in_flight(self) -> bool:
        """Whether it may switch now: it has the order, and there is no verdict yet."""
        return self.order in ("switch", "back") and not self.verdict

    @property
    def failed(self) -> bool:
        """Whether it counts for the threshold of failures."""
        return self.verdict in FAILURES


@dataclass(frozen=True, slots=True)
class Seen:
    """The current observation of a robot. Times are in seconds."""

    reachable: bool = False
    trouble: str = ""
    """Why it cannot be used."""
    undelivered: str = ""
    """Why it could not store the last order about the dataflow, which is sent again."""
    away_for: float = 0.0
    state: ReleaseState | None = None
    """The last that it has reported about the dataflow."""
    leased_for: float = 0.0
    """Since when it has reported leases without a break."""
    phase_for: float = 0.0
    """Since when it is in its phase; only times in which it could be reached count."""
    arms: bool = True
    """Whether its software can reserve a switch."""
    ahead: bool = False
    """Whether it follows an order of this rollout that the store has lost, because it was restored
    from a backup."""
    owned: bool = True
    """False if something else has given it an order since."""
    removed: bool = False
    """Whether it has left the fleet."""


_NOWHERE = Seen()


@dataclass(frozen=True, slots=True)
class FleetRobot:
    """A robot of the fleet, as a budget sees it."""

    group: str
    available: bool


@dataclass(frozen=True, slots=True)
class View:
    """The input of one decision."""

    rollout: Rollout
    members: Mapping[str, Member]
    seen: Mapping[str, Seen]
    fleet: Mapping[str, FleetRobot] = field(default_factory=dict)
    """All robots of the fleet by id, if there is a budget."""
    now: float = 0.0
    """Seconds since 1970."""
    rejected: frozenset[str] = frozenset()
    """Releases of the dataflow that were undone."""
    units: Mapping[str, list[Member]] = field(init=False, compare=False)
    """Its robots by what switches as one."""

    def __post_init__(self) -> None:
        """Find the units."""
        object.__setattr__(self, "units", units_of(self.members.values()))

    def unit_of(self, member: Member) -> list[Member]:
        """Return the robots that switch together with one, and that one."""
        return self.units[member.unit]

    def is_open(self, member: Member) -> bool:
        """Return True for a robot that has no verdict yet, and of whose instance none has failed.

        One that still goes back because of such a failure is open, too. The rollout has nothing
        more to do with an instance that an operator has undone.
        """
        if member.verdict or member.undone:
            return False
        return member.in_flight or not any(each.failed for each in self.unit_of(member))

    def has_way_back(self, member: Member) -> bool:
        """Return False for a robot whose former release was undone, too."""
        return not member.before or member.before not in self.rejected

    def seen_of(self, member: Member) -> Seen:
        """Return what is known of a robot of the rollout."""
        return self.seen.get(member.robot, _NOWHERE)


def units_of(members: Iterable[Member]) -> dict[str, list[Member]]:
    """Return robots by what switches as one, in their order."""
    units: dict[str, list[Member]] = {}
    for member in members:
        units.setdefault(member.unit, []).append(member)
    return units

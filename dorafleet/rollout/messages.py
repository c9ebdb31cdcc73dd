"""What clients and a coordinator send each other about releases and rollouts.

Times are seconds since 1970 (UTC). A rollout is named by its number.
"""

from typing import Any, Literal

import msgspec

from dorad.control.messages import CallMethod, Nothing, StreamMethod, Struct
from dorad.control.messages.releases import Evidence
from dorad.int64 import Int64
from dorad.release.changes import Changes
from dorafleet.rollout.model import Phase, Scope
from dorafleet.rollout.strategy import Amount, Strategy


class ReleasePut(Struct):
    """Register a release. Its files stay with the operator, unless `release.upload` follows."""

    content: bytes
    """The manifest, compressed with zlib."""
    signature: str
    """Of the manifest, as `ssh-keygen -Y sign` makes it. Robots check it."""


class ReleaseRef(Struct):
    """Selects a release: its id, the beginning of it, a name for its newest, or `name@sequence`."""

    release: str


class ReleaseInfo(Struct):
    """A release that is registered."""

    id: str
    name: str
    """Of its dataflow."""
    sequence: Int64
    created: float
    put_at: float
    by: str
    """The user who has registered it."""
    files: Int64
    size: Int64
    """Bytes of all its files, for all targets."""
    targets: list[str]
    """Machines that can run it; empty for all."""
    nodes: list[str]


class ReleaseContent(Struct):
    """A release with its manifest and signature, which robots check."""

    info: ReleaseInfo
    content: bytes
    """The manifest, compressed with zlib."""
    signature: str


class ReleaseList(Struct):
    """The registered releases, the newest first."""

    releases: list[ReleaseInfo]


class RolloutNew(Struct):
    """The robots that get a release, and the strategy."""

    release: str
    """As in `ReleaseRef`."""
    robots: list[str] = []
    """Ids; none selects all."""
    labels: dict[str, str] = {}
    """Labels that they must have, too."""
    scope: Scope | None = None
    """None: as the robots run it now, else `each`."""
    strategy: Strategy = msgspec.field(default_factory=Strategy)
    params: dict[str, Any] | None = None
    """Parameters by `node/name`; None keeps those that each robot has."""
    retry: bool = False
    """Whether robots where it has failed before try it again."""
    allow_lower: bool = False
    """Whether its sequence may be lower than one that was confirmed."""
    supersede: bool = False
    """Whether a rollout that is switching robots now ends."""
    lost: list[str] = []
    """Machines that cannot be reached, and leave their instances without being asked."""
    if_version: Int64 | None = None
    """The version of the plan that this follows; `rollout.start` needs it."""


class PlannedRobot(Struct):
    """The effect of a rollout on one robot."""

    robot: str
    batch: Int64 | None
    """0 for canaries; None if the robot is left out, see `note`."""
    before: str = ""
    """The id of the release that it has."""
    changes: Int64 | None = None
    """Index into the changes of the plan."""
    reachable: bool = True
    note: str = ""
    room: Int64 | None = None
    """Bytes that its disk of releases has free by its last report; None if they are unknown."""
    instance: str = ""
    """The instance that it runs with others; empty if it runs the dataflow alone."""
    nodes: list[str] = []
    """The nodes that are placed on it, of an instance over several machines."""
    files: str = ""
    """Which way it gets its files from the coordinator; a command sends them over SSH."""


class RolloutPlan(Struct):
    """The effects of a rollout before it is started."""

    version: Int64
    """To be sent with `rollout.start`."""
    release: ReleaseInfo
    robots: list[PlannedRobot]
    changes: list[Changes]
    """Each once, for robots that change in the same way."""
    supersedes: list[Int64] = []
    """Rollouts that it would end."""
    parallel: Int64 = 0
    """Robots, or instances, that switch at a time."""
    tolerated: Int64 = 0
    """Robots, or instances, that may fail; none of the canaries."""
    names: dict[str, str] = {}
    """`name@sequence` of the releases in it, by id."""
    no_files: str = ""
    """Why the coordinator cannot send the files to robots now; empty if it can."""
    no_copy: list[str] = []
    """Other coordinators that could not send them if they led."""

    def __post_init__(self) -> None:
        """Raise ValueError if changes are missing, so that such a plan is refused on arrival."""
        changes = [each.changes for each in self.robots if each.changes is not None]
        if changes and not 0 <= min(changes) <= max(changes) < len(self.changes):
            raise ValueError("a robot of the plan has changes that are not in it")


class RolloutRef(Struct):
    """Selects a rollout."""

    rollout: Int64 | None = None
    """Its number; None selects the newest."""
    dataflow: str | None = None
    """None selects among those of all dataflows."""


class RolloutRefusal(Struct):
    """Report why a robot does not take the files of a release, as it has said over SSH."""

    rollout: Int64
    robot: str
    reason: str


class RolloutAct(Struct):
    """Selects a rollout to act on."""

    rollout: Int64
    reason: str = ""
    """For the journal."""
    max_parallel: Amount | None = None
    """Of an undo: the maximum number of robots at a time; None: that of the rollout."""
    all_at_once: bool = False
    """Of an undo: whether all robots go back at once, whatever the disruption budget."""
    instances: list[str] = []
    """Of an undo: only these go back, and the rollout goes on with the others. None: all."""


State = Literal[
    "waiting",
    "pending",
    "staging",
    "staged",
    "busy",
    "switching",
    "probation",
    "confirmed",
    "reverting",
    "reverted",
    "stuck",
    "refused",
    "lost",
    "failed",
    "back",
    "left",
    "removed",
]
"""`waiting`: it has no order yet. `failed`: nodes failed after its confirmation. `back`: undone.
`left`: it stays with what it had. `removed`: it has left the fleet."""


class Wave(Struct):
    """The robots of one batch."""

    batch: Int64
    """0 is the canary."""
    size: Int64
    confirmed: Int64 = 0
    moving: Int64 = 0
    failed: Int64 = 0


class RolloutSummary(Struct):
    """A rollout in brief."""

    rollout: Int64
    dataflow: str
    release: str
    name: str
    """`name@sequence` of the release."""
    phase: Phase
    since: float
    by: str
    created: float
    size: Int64
    scope: Scope = "each"
    """What switches as one."""
    state: str = ""
    """For people: the phase, or `paused`, or `waiting` with what for."""
    reason: str = ""
    question: str = ""
    """What an operator should decide, if the coordinator has paused it; also its `reason` then."""
    paused: bool = False
    over: bool = False
    """Whether it has ended, and gives no more orders."""
    counts: dict[str, Int64] = {}
    """Robots by state."""
    unreachable: Int64 = 0
    """Robots without a verdict that cannot be reached."""
    waves: list[Wave] = []
    waiting: dict[str, Int64] = {}
    """Waiting robots by reason: files, busy, window, budget, parallel, unreachable."""
    opening: float | None = None
    """When the next window opens."""
    soaks_until: float | None = None
    """Until when confirmed robots are watched, while the rollout is `soaking`."""


class RolloutRobot(Struct):
    """A robot of a rollout."""

    rollout: Int64
    robot: str
    batch: Int64
    state: State
    reachable: bool
    since: float = 0.0
    """When it got its last order or verdict."""
    waiting: str = ""
    """What it waits for."""
    reason: str = ""
    before: str = ""
    evidence: list[Evidence] = []
    leases: list[str] = []
    """The lease that makes it busy, with its owner."""
    restarted: list[str] = []
    """Nodes that its switch has replaced."""
    instance: str = ""
    """The instance that it runs with others; empty if it runs the dataflow alone."""
    goes_back: bool = False
    """Whether `rollout.undo` would switch it back: it has the release, or may have it."""

    @property
    def why(self) -> str:
        """Why it is in its state, with the first check that it does not pass."""
        bad = [each for each in self.evidence if not each.ok]
        if not bad or any(each.check in self.reason and each.text in self.reason for each in bad):
            return self.reason
        first = f"{bad[0].check}: {bad[0].text}"
        return f"{self.reason}; {first}" if self.reason else first


class RolloutDetail(Struct):
    """A rollout with its robots."""

    summary: RolloutSummary
    strategy: Strategy
    robots: list[RolloutRobot]


class RolloutList(Struct):
    """Rollouts, the newest first."""

    rollouts: list[RolloutSummary]


class RolloutWatch(Struct):
    """Follow rollouts, at most twice a second."""

    rollout: Int64 | None = None
    """None follows all that have not ended."""
    robots: bool = True
    """Whether their robots are sent, too."""
    sends: bool = False
    """Whether this client sends the files of the rollout: then the coordinator does not."""
    beyond: list[str] = []
    """Robots that this client does not reach: to them the coordinator sends."""


class RolloutUpdate(Struct):
    """What has changed; at first all."""

    rollouts: list[RolloutSummary]
    robots: list[RolloutRobot] = []


class JournalRead(Struct):
    """Selects entries of a rollout's journal."""

    rollout: Int64
    after: Int64 = 0
    limit: Int64 = 1000
    """At most 1000."""


class JournalEntry(Struct):
    """One step of a rollout."""

    step: Int64
    at: float
    what: str
    """`start`, `enter canary`, `order switch`, `verdict confirmed`, `pause`."""
    by: str = ""
    reason: str = ""
    robots: list[str] = []


class Journal(Struct):
    """Steps of a rollout, in their order."""

    entries: list[JournalEntry]


class DriftRow(Struct):
    """One difference between a robot's desired and actual state."""

    robot: str
    dataflow: str
    """Empty if it concerns the whole robot."""
    what: str
    desired: str
    found: str
    way_back: str
    """What to do, as a sentence or a command."""
    known: bool = True
    """False if the robot cannot be asked now, and may differ."""
    instance: str = ""
    """The instance of the dataflow, as commands name it: `cell1/pick`, `arm1/pick`; `NAME` alone if
    there is one over all robots."""


class DriftList(Struct):
    """All differences, in the order of the fleet."""

    rows: list[DriftRow]
    robots: Int64
    """Robots that were compared."""


RELEASE_PUT = CallMethod("release.put", "operator", ReleasePut, ReleaseInfo, "Register a release.")
RELEASE_GET = CallMethod("release.get", "viewer", ReleaseRef, ReleaseContent, "Return a release.")
RELEASE_LIST = CallMethod(
    "release.list", "viewer", Nothing, ReleaseList, "List the registered releases."
)
ROLLOUT_PLAN = CallMethod(
    "rollout.plan", "viewer", RolloutNew, RolloutPlan, "Show what a rollout would change."
)
ROLLOUT_START = CallMethod(
    "rollout.start", "operator", RolloutNew, RolloutSummary, "Start a rollout."
)
ROLLOUT_STATUS = CallMethod(
    "rollout.status", "viewer", RolloutRef, RolloutDetail, "Return a rollout with its robots."
)
ROLLOUT_LIST = CallMethod(
    "rollout.list", "viewer", RolloutRef, RolloutList, "List rollouts, the newest first."
)
ROLLOUT_JOURNAL = CallMethod(
    "rollout.journal", "viewer", JournalRead, Journal, "Return the steps of a rollout."
)
ROLLOUT_WATCH = StreamMethod(
    "rollout.watch", "viewer", RolloutWatch, RolloutUpdate, "Follow rollouts."
)
ROLLOUT_REFUSE = CallMethod(
    "rollout.refuse",
    "operator",
    RolloutRefusal,
    RolloutSummary,
    "Report that a robot refuses the files of a release.",
)
ROLLOUT_PAUSE = CallMethod(
    "rollout.pause", "operator", RolloutAct, RolloutSummary, "Give robots no further orders."
)
ROLLOUT_RESUME = CallMethod(
    "rollout.resume", "operator", RolloutAct, RolloutSummary, "Continue after a pause."
)
ROLLOUT_PROMOTE = CallMethod(
    "rollout.promote", "operator", RolloutAct, RolloutSummary, "Continue after the canaries."
)
ROLLOUT_ABORT = CallMethod(
    "rollout.abort",
    "operator",
    RolloutAct,
    RolloutSummary,
    "End a rollout before further switches.",
)
ROLLOUT_UNDO = CallMethod(
    "rollout.undo", "operator", RolloutAct, RolloutSummary, "Bring robots back to what they had."
)
DRIFT_LIST = CallMethod(
    "drift.list", "viewer", Nothing, DriftList, "List robots' differences from their desired state."
)

ROLLOUT_ACTS = {
    "pause": ROLLOUT_PAUSE,
    "resume": ROLLOUT_RESUME,
    "promote": ROLLOUT_PROMOTE,
    "abort": ROLLOUT_ABORT,
    "undo": ROLLOUT_UNDO,
}
"""What an operator may do to a rollout."""

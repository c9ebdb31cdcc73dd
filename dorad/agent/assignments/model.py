"""What the robot holds of a dataflow, and what it observes of one that comes from releases."""

import hashlib
from typing import Any, Literal

import msgspec

from dorad.agent.assignments.runs import RunRecord
from dorad.control.messages.agent import ShareState
from dorad.control.messages.releases import Evidence, Group, Lease, ReleaseOrder, ReleasePhase

MAX_FAILED = 50
"""Number of revisions that have failed here which are remembered."""

Files = Literal["missing", "received", "staged"]
Waiting = Literal["", "files", "switch", "busy"]


class Revision(msgspec.Struct, frozen=True):
    """A release with its parameters and its machines, which is confirmed as a whole."""

    release: str
    params: dict[str, Any] = {}
    group: Group | None = None
    """The machines that run it together, and the part of this one; None: it runs alone."""

    @property
    def digest(self) -> str:
        """A text that is the same for the same release, parameters and machines."""
        # Without a group as in versions that know none: they have stored it.
        machines = [] if self.group is None else [self.group]
        content = [self.release, self.params, *machines]
        return hashlib.sha256(msgspec.json.encode(content, order="deterministic")).hexdigest()

    @property
    def names(self) -> set[str]:
        """What an operator's rejection may call it: see `Rejection`."""
        return {self.digest, Revision(self.release, self.params).digest, self.release}


class Applied(msgspec.Struct, frozen=True):
    """A revision, and the release whose files each of its nodes runs from.

    A node that does not differ between two releases runs on, from the files of the older one.
    """

    revision: Revision
    nodes: dict[str, str]
    """The id of a release by node, of the nodes of this machine."""

    @property
    def releases(self) -> set[str]:
        """The releases whose files must stay."""
        return {self.revision.release, *self.nodes.values()}


class Failed(msgspec.Struct, frozen=True):
    """A revision that has failed on this robot, or was undone."""

    digest: str
    """Of the revision; of one that was undone, any of its `names`."""
    reason: str


class Baseline(msgspec.Struct, frozen=True):
    """What the health of a revision is compared with."""

    rates: dict[str, float] = {}
    """Messages per second of each output when the last revision was confirmed, or later: see
    `settled`."""
    nodes: list[str] = []
    """The nodes that ran then, without those that have finished by themselves since."""
    notices: list[str] = []
    """Warnings that the daemon had before the switch."""
    misses: dict[str, float] = {}
    """Missed deadlines per second of each node that ran."""
    settled: list[str] = []
    """Outputs whose rate was measured over a steady time after their first message. The rate of
    another one is measured again while the confirmed revision runs."""


class ReleaseRecord(msgspec.Struct, frozen=True):
    """A dataflow that comes from releases, as it is stored. Clocks count from the boot."""

    order: ReleaseOrder
    uuid: str
    """Of the dataflow in the daemon, if it runs here alone; it stays the same."""
    boot: str
    """The boot id of the machine when `switched`, `busy_since` and `soaks_since` were measured."""
    since: float
    """When `phase` changed, in seconds since 1970."""
    phase: ReleasePhase = "pending"
    reason: str = ""
    waiting: Waiting = ""
    refused: bool = False
    next: ReleaseOrder | None = None
    """An order that arrived during a switch, which comes first."""
    applied: Applied | None = None
    """The daemon's current order. It is stored before it is sent."""
    step: int = 0
    """Counts the orders to the daemon: the generation of the robot's own share."""
    halting: bool = False
    """Whether the dataflow is stopped first, because it cannot be changed."""
    switched: float = 0.0
    """When the present switch, or return, began."""
    tries: int = 0
    """How often the machine was restarted in this switch; in a return, how often it failed."""
    retry_at: float = 0.0
    """When a return that failed may be tried again."""
    contact: bool = False
    """Whether there was contact to the coordinator in the minute before the switch."""
    healthy_at: float | None = None
    """Since when all checks pass; then a sign of life of the coordinator is needed."""
    voted: Baseline | None = None
    """Of a machine of a group on probation, once it was healthy: what its confirmation stores."""
    busy_since: float | None = None
    gave_up: bool = False
    """Whether it gave up waiting for the end of being busy, until another order."""
    confirmed: Applied | None = None
    previous: Revision | None = None
    former: Applied | None = None
    """What was confirmed before `confirmed`: to it the robot goes back if that is rejected."""
    first: bool = False
    """Whether nothing was confirmed before `confirmed`: a return from it stops the dataflow."""
    soaks_since: float | None = None
    """Since when `confirmed` is watched: if a node fails, the robot goes back. None: not any more.
    """
    sequence: int = 0
    """The highest that was confirmed."""
    switched_sequence: int = 0
    """Of the release of the last switch."""
    baseline: Baseline = Baseline()
    failed: list[Failed] = []
    rejected: list[Failed] = []
    """Revisions that an operator has undone."""
    evidence: list[Evidence] = []
    restarted: list[str] = []
    """Nodes that the last switch has replaced."""

    @property
    def version(self) -> tuple[int, int]:
        """Epoch and generation of the newest order."""
        newest = self.next or self.order
        return newest.epoch, newest.generation

    @property
    def target(self) -> Revision | None:
        """The revision that was ordered."""
        return None if self.order.release is None else revision_of(self.order)

    @property
    def run_uuid(self) -> str:
        """The UUID of the daemon's run of `applied`."""
        return self.uuid if self.applied is None else self.uuid_of(self.applied.revision)

    def uuid_of(self, revision: Revision) -> str:
        """Return the UUID of the daemon's run of a revision."""
        return self.uuid if revision.group is None else revision.group.uuid

    @property
    def in_use(self) -> set[str]:
        """The releases that run, or that a return needs."""
        return set().union(*(each.releases for each in (self.applied, self.confirmed) if each))

    @property
    def kept(self) -> set[str]:
        """The releases whose files must stay."""
        kept = self.in_use
        for order in (self.order, self.next):
            if order is not None and order.release is not None:
                kept.add(order.release)
        if self.previous is not None:
            kept.add(self.previous.release)
        if self.former is not None:
            kept |= self.former.releases
        return kept

    @property
    def alive(self) -> list[str]:
        """The nodes of `applied` that run: those of the baseline, and those that are new."""
        if self.applied is None:
            return []
        before = {} if self.confirmed is None else self.confirmed.nodes
        ran = self.baseline.nodes
        return [node for node in self.applied.nodes if node in ran or node not in before]

    def is_rejected(self, revision: Revision) -> bool:
        """Return True for a revision that has failed here, or that an operator has undone."""
        names = revision.names
        undone = any(each.digest in names for each in self.rejected)
        return undone or self.failure_of(revision) is not None

    def failure_of(self, revision: Revision) -> Failed | None:
        """Return the failure of a revision on this robot; None if it has not failed."""
        digest = revision.digest
        return next((each for each in self.failed if each.digest == digest), None)


class Assignment(msgspec.Struct, frozen=True):
    """What this robot holds of one dataflow: one row of the store, which no power cut divides."""

    run: RunRecord | None
    """The run that dorad is asked for. A release asks for one from its first switch on."""
    release: ReleaseRecord | None = None
    """None for an inline dataflow."""

    @property
    def dataflow(self) -> str:
        """The name of the dataflow."""
        owner = self.release or self.run
        assert owner is not None
        return owner.order.dataflow

    @property
    def version(self) -> tuple[int, int]:
        """Epoch and generation of the coordinator's newest order."""
        owner = self.release or self.run
        assert owner is not None
        return owner.version

    @property
    def is_behind(self) -> bool:
        """Whether the release asks for another run than dorad was asked for."""
        if self.release is None or self.release.step == 0:
            return False
        return self.run is None or self.run.order.generation < self.release.step


class Plan(msgspec.Struct, frozen=True):
    """How the daemon switches from its current release to a staged one."""

    nodes: dict[str, str]
    """The release of each node; see `Applied`."""
    replaced: list[str]
    """Nodes that differ, and new ones."""
    sequence: int


class Health(msgspec.Struct, frozen=True):
    """The health of a dataflow since some moment."""

    evidence: list[Evidence] = []
    healthy: bool = False
    """Whether everything was healthy for long enough."""
    fatal: str = ""
    """A failure that cannot recover."""
    rates: dict[str, float] = {}
    nodes: list[str] = []
    """The nodes that run."""
    misses: dict[str, float] = {}
    """Missed deadlines per second, by node."""
    settled: list[str] = []
    """The outputs that had begun to send before that moment."""


class Down(msgspec.Struct, frozen=True):
    """The nodes that do not run although they ran when the last revision was confirmed."""

    failed: dict[str, str] = {}
    """With the reason."""
    ended: dict[str, str] = {}
    """Ended because their inputs had closed, or by a command; with the reason."""
    finished: list[str] = []
    """Ended by themselves, with 0 while their inputs were open, or after such sources."""


class Observation(msgspec.Struct, frozen=True):
    """An observation of a dataflow. Clocks count from the boot."""

    now: float
    wall: float
    boot: str
    files: Files = "missing"
    """Of the release that was ordered."""
    refusal: str = ""
    """Why that release cannot be used here."""
    trouble: str = ""
    """Why it could not be staged yet."""
    plan: Plan | None = None
    """None unless the release is staged."""
    share: ShareState | None = None
    """The state of the robot's own share of the dataflow."""
    busy: str | None = ""
    """What makes the robot busy; empty if it is not, None if the dataflow is being asked."""
    leases: list[Lease] = []
    armed: bool = False
    """Whether the daemon lets no lease begin before the switch."""
    notices: list[str] | None = None
    """Warnings of the daemon; None if it cannot be asked."""
    contact: float | None = None
    """When the coordinator last sent something, by the clock of `now`."""
    health: Health | None = None
    down: Down | None = None
    """None if the daemon was not asked."""
    learned: dict[str, float] = {}
    """Rates of the confirmed revision, over a steady time, of outputs that had begun before it."""


def revision_of(order: ReleaseOrder) -> Revision:
    """Return the revision that an order asks for; it must name a release."""
    assert order.release is not None
    return Revision(order.release, order.params, order.group)

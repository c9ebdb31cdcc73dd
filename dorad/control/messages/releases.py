"""What a coordinator and the agent of a robot send each other about releases.

A release is a signed tree of files that holds a whole dataflow; its id is the SHA-256 of its
manifest. The robot checks it, switches to it, judges it, and goes back by itself.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec

from dorad.control.messages.base import Struct
from dorad.control.messages.shares import Share
from dorad.int64 import Int64

ReleaseId = Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{64}$(?!\n)")]
"""The SHA-256 of a manifest."""


class HealthRules(Struct):
    """When a robot confirms a release. Times are seconds of the robot's monotonic clock."""

    min_healthy_time: float = 30.0
    """Every required node must run without a restart for this time."""
    healthy_deadline: float = 300.0
    """From the switch; then the robot goes back."""
    confirm_deadline: float = 600.0
    """From the switch, without contact to the coordinator although there was contact in the minute
    before it; then the robot goes back."""
    min_rate: float = 0.5
    """Of the rate of each output in the last confirmed release."""
    rates: dict[str, float] = {}
    """By `node/output`: messages per second that it must have, instead of `min_rate`."""
    quiet: list[str] = []
    """Outputs `node/output` that may be silent."""
    probes: list[list[str]] = []
    """Commands, run in the release's folder, that must exit with 0."""


class Group(Struct):
    """The machines that run one instance of a release together. They change as one."""

    instance: Annotated[str, msgspec.Meta(min_length=1, max_length=200)]
    """The name of the instance, such as the value of the label that its machines share."""
    uuid: Annotated[str, msgspec.Meta(min_length=1, max_length=200)]
    """Of the dataflow, the same on all its machines."""
    share: Share
    """What this machine runs of it, and how it reaches the others; without `tls`."""


class Rejection(Struct):
    """A release with its parameters that a robot must not go back to by itself."""

    release: ReleaseId
    params: dict[str, Any] = {}
    reason: str = ""
    whole: bool = False
    """Whether the release is meant with any parameters."""
    group: Group | None = None
    """The machines that ran it together here; None: it is meant alone and in any group."""


class ReleaseOrder(Struct):
    """An order to run a release of one dataflow. The agent stores it before it answers."""

    epoch: Annotated[int, msgspec.Meta(ge=0, lt=1 << 62)]
    generation: Annotated[int, msgspec.Meta(ge=0, lt=1 << 62)]
    dataflow: Annotated[str, msgspec.Meta(min_length=1, max_length=200)]
    release: ReleaseId | None
    """None stops the dataflow and forgets its releases."""
    params: dict[str, Any] = {}
    """Parameters of nodes, by `node/name`."""
    enabled: bool = True
    switch: bool = False
    """Whether the robot may switch; before that it only makes ready what it has received."""
    arm: float = 0.0
    """Seconds for which the robot reserves its switch, unless it is busy: see `ReleaseState.armed`.
    Another order says whether it switches."""
    rollout: str = ""
    """The id of the rollout, for messages and the journal of the robot."""
    rules: HealthRules = msgspec.field(default_factory=HealthRules)
    busy: Literal["wait", "ignore"] = "wait"
    busy_max: float = 4 * 3600.0
    """Seconds to wait for leases; then the robot reports that it is still busy and stays."""
    allow_lower: bool = False
    """Whether the release's sequence may be lower than the highest that was confirmed."""
    retry: bool = False
    """Whether a release that has failed on this robot is tried again."""
    auto_revert: bool = True
    stay: bool = False
    """Whether a release that runs already stays as it is: nodes that have ended stay ended."""
    rejects: list[Rejection] = []
    """What was undone: the robot goes back to none of them, until it is ordered again."""
    soak_time: float = 0.0
    """Seconds after the confirmation in which the robot goes back by itself if a node fails."""
    withdraw: bool = False
    """Whether the robot goes back from this release, which it has confirmed: nodes of it failed."""
    group: Group | None = None
    """The machines that run the release together; None: the robot runs all of it alone."""
    committed: bool = False
    """Whether each machine of the group was healthy with it. Only then one of them confirms it."""
    resume_after: float = 0.0
    """Of a release that is not enabled: seconds without contact after which it runs nevertheless,
    because the other machines of the group have gone back meanwhile; 0: it does not."""


class Evidence(Struct):
    """One check of a robot's health, with the measured values."""

    check: str
    """`node camera`, `output camera/image`, `probe 1`, `contact`."""
    ok: bool
    text: str
    """Measured and required: `11.8/s, at least 25.0`."""


class Lease(Struct):
    """Something on a robot that must not be interrupted."""

    id: str
    reason: str
    owner: str
    """`pick/gripper (pid 812)`, or the user and the process of a client."""
    since: float
    expires: float | None = None
    """By the robot's clock. None if the lease lasts as long as its holder keeps a descriptor
    open."""


ReleasePhase = Literal[
    "pending",
    "staging",
    "staged",
    "switching",
    "probation",
    "confirmed",
    "reverting",
    "reverted",
    "stuck",
]
PREPARING = ("pending", "staging", "staged")
"""The phases of a robot that has an order and has not begun to switch."""


class ReleaseState(Struct):
    """What a robot reports of a dataflow that comes from releases."""

    dataflow: str
    epoch: Int64
    generation: Int64
    """Of the order that it follows."""
    phase: ReleasePhase
    """`pending`: the release is not complete here. `reverted`: the former one runs again. `stuck`:
    that failed, too; see `reason`."""
    since: float
    """When `phase` changed, by the robot's clock."""
    release: str
    """The id that was ordered; empty for none."""
    running: str = ""
    """The id that runs."""
    confirmed: str = ""
    """The id that was confirmed last."""
    previous: str = ""
    """The id that was confirmed before that; kept for going back."""
    sequence: Int64 = 0
    """The highest that was confirmed."""
    rollout: str = ""
    reason: str = ""
    """The reason of the phase: why it waits, went back, or was refused."""
    waiting: Literal["", "files", "switch", "busy"] = ""
    """What the robot waits for."""
    refused: bool = False
    """The order cannot be carried out here: wrong architecture, signer, sequence, no room."""
    evidence: list[Evidence] = []
    leases: list[Lease] = []
    restarted: list[str] = []
    """Nodes that the last switch replaced; all others ran on."""
    damaged: dict[str, str] = {}
    """By the id of a release that runs here: which of its files are damaged or missing."""
    failed: dict[str, str] = {}
    """Nodes of the confirmed release that have failed since, with the reason."""
    ended: dict[str, str] = {}
    """Nodes that ran when it was confirmed and have ended with their sources, with the reason."""
    healthy: bool = False
    """Of a machine of a group on probation: whether it is healthy, and waits for the others."""
    armed: bool = False
    """Of a robot that is to reserve its switch: whether no lease can begin before it."""
    group: Group | None = None
    """The machines with which it runs the confirmed release."""
    previous_group: Group | None = None
    """The same of `previous`."""

"""What clients and a coordinator send each other, in the frames of the control API.

Times are seconds since 1970 (UTC). `version` is the revision of the last change; a client sends the
one that it has seen as `if_version`.
"""

import sys
from typing import Any, Literal

import msgspec

from dorad.control.messages import METHODS as DORAD_METHODS
from dorad.control.messages import CallMethod, Finding, Nothing, Struct, enrolment
from dorad.control.messages.agent import ShareState
from dorad.control.messages.method import by_name, defined_in
from dorad.control.messages.releases import ReleaseState
from dorad.int64 import Int64
from dorafleet.coordinator import (
    accessmessages,
    deploymentmessages,
    incidentmessages,
    loadmessages,
    membermessages,
    secretmessages,
    uploadmessages,
)
from dorafleet.coordinator.placement import Decision
from dorafleet.rollout import messages as rolloutmessages

"""How the warning of a wrong clock begins."""


class CoordinatorStatus(Struct):
    """State of the coordinator itself."""

    version: str
    pid: Int64
    started_at: float
    state: str
    """Path of the store."""
    epoch: Int64
    """The number of this coordinator; each later one has a higher number."""
    revision: Int64
    """Grows with every change of the store."""
    robots: Int64
    audit: str
    """Head of the audit: number and hash of the last record."""
    zenoh_peer: str | None = None
    """Endpoint of the router that all links connect to; None if robots are linked directly."""
    address: str = ""
    """Where robots find this coordinator, `10.0.0.1:6013`; empty without TLS, which they need."""
    questions: list[str] = []
    """What an operator has to decide after a restore, and files that he has to bring, each with the
    commands."""


class Backup(Struct):
    """Write everything in the store to a file on the coordinator's machine."""

    path: str
    """Absolute. An earlier backup there is replaced; anything else is refused."""


class BackedUp(Struct):
    """A backup that is on the disk."""

    entries: Int64
    """Number of keys in it."""


class AlertReceiver(Struct):
    """Where alerts are sent, and what became of them."""

    name: str
    """`webhook` or `mail`."""
    place: str
    """The server, without secrets."""
    waiting: Int64 = 0
    """Number of notifications that are not delivered yet."""
    dropped: Int64 = 0
    """Number of those that never will be."""
    dropped_at: float | None = None
    """When the last of them was dropped."""
    why: str = ""
    """Why it was."""
    delivered_at: float | None = None
    failing_since: float | None = None
    """None if the last attempt has succeeded."""
    error: str = ""
    """Why the last attempt failed."""
    stored: bool = True
    """Whether what waits is stored, and outlives the coordinator."""


class AlertReceivers(Struct):
    """All receivers of alerts; none if the coordinator sends alerts nowhere."""

    receivers: list[AlertReceiver]
    problem: str = ""
    """Why the configuration that was changed last is not in use."""


class AlertTest(Struct):
    """The result of a test that was sent to all receivers."""

    errors: dict[str, str]
    """Why it failed, by the name of the receiver; empty if it was delivered."""


RobotStatus = Literal["never-seen", "connected", "unreachable", "refused", "conflict-paused"]


class Robot(Struct):
    """A machine of the fleet, with its last known state."""

    id: str
    host: str
    labels: dict[str, str]
    """Those with which it came, with what was changed since."""
    state: RobotStatus = "never-seen"
    """`conflict-paused`: it has something newer than the store; nothing is done about it until
    `robot.adopt` or `robot.resume`."""
    reason: str = ""
    """Why nothing can be started there."""
    seen_at: float | None = None
    """When it reported last, by the coordinator's clock."""
    age: float | None = None
    """Seconds since then."""
    skew: float = 0.0
    """Seconds by which its clock is ahead of the coordinator's."""
    version: str = ""
    """Of its agent."""
    arch: str = ""
    """This and the next two are what it said when it connected last."""
    python: str = ""
    """`3.13`, with which nodes run."""
    glibc: str = ""
    cores: float | None = None
    memory: Int64 | None = None
    shares: list[ShareState] = []
    """What it has reported of its dataflows; out of date while it is not connected."""
    releases: list[ReleaseState] = []
    """What it has reported of those from releases, without evidence: see `rollout.status`."""
    local: list[str] = []
    """Dataflows that were started on the robot itself, and that it runs for no fleet."""
    conflicts: dict[str, str] = {}
    """Dataflows that it has in a newer version than the store, with the reason."""
    audit: str = ""
    """How the audit contradicts the robot's head of it; empty if it does not. It stays until
    `audit.acknowledge`."""
    revoked: list[str] = []
    """Who was revoked, as this robot knows and the store does not: `operator ann`. It stays until
    that is revoked again, or until `audit.acknowledge`."""
    outranked: bool = False
    """Whether it obeys another term than this coordinator's, until `robot.takeover`."""
    warnings: list[str] = []
    """What else an operator should look at, such as its clock."""
    user: str | None = None
    """Whom SSH logs in as; null as in ssh's configuration, and so is `port`."""
    port: Int64 | None = None
    """That of sshd."""
    address: str = ""
    """From which its agent connects, as the coordinator sees it."""
    machine_id: str = ""
    """Of its installation; empty if its agent does not report it."""
    clone: str = ""
    """Which other machine has its id and certificate, and is refused; empty if none came lately."""
    findings: list[Finding] | None = None
    """What is wrong with it, failures first; null from a coordinator of an earlier version."""


class RobotRef(Struct):
    """One robot."""

    robot: str


class AuditAcknowledge(Struct):
    """Say that the audit lacks records that robots know, and that this is all right."""

    robots: list[str] = []
    """None: all that can be reached, and the restore of the store if there was one."""


class AuditAcknowledged(Struct):
    """What has been acknowledged; it is in the audit."""

    robots: list[str]
    failed: dict[str, str] = {}
    """Robots that differ still, each with the reason."""


class RobotLabel(Struct):
    """Change labels of a robot. Nodes that run stay where they are."""

    robot: str
    labels: dict[str, str | None]
    """None removes a label."""


class RobotList(Struct):
    """All robots, in the order of the fleet."""

    robots: list[Robot]


class Explain(Struct):
    """Ask where the nodes of a dataflow run or would run: of a running one, or of a descriptor."""

    dataflow: str | None = None
    """A running dataflow, by name or UUID; a deployment, or an instance of one."""
    descriptor: dict[str, Any] | None = None
    """As in `dataflow.start`. Nothing is started."""
    name: str = ""
    """As in `dataflow.start`: robots may take nodes of some dataflows only."""
    path: str = "/"
    """As in `dataflow.start`."""


class ExplainedRobot(Struct):
    """The instance of a deployment to which a robot belongs."""

    robot: str
    instance: str
    """Empty for none."""
    nodes: list[str]
    reason: str
    """Why it belongs to it, or to none."""


class Explained(Struct):
    """Where each node runs or would run, and the verdict about each machine."""

    nodes: list[Decision]
    """None if the deployment has several instances."""
    problems: list[str] = []
    """Unknown machines, labels and nodes in `deploy`."""
    robots: list[ExplainedRobot] = []
    """Of a deployment with several instances: all robots of the fleet."""


class DesiredRef(Struct):
    """Selects desired states."""

    robot: str | None = None
    """None selects those of all robots."""
    dataflow: str | None = None
    """None selects all dataflows."""


class DesiredSet(Struct):
    """Set the desired state of a robot. Refused with `conflict` if it was changed meanwhile."""

    robot: str
    dataflow: str
    if_version: Int64
    """The version to replace; 0 if there is none yet."""
    release: str
    """The name of the release."""
    params: dict[str, Any] = msgspec.field(default_factory=dict)
    enabled: bool = True
    """Whether the dataflow is to run."""


class Desired(Struct):
    """The desired state of one dataflow on a robot."""

    robot: str
    dataflow: str
    release: str
    params: dict[str, Any]
    enabled: bool
    generation: Int64
    """Grows with every change of the content."""
    version: Int64
    uuid: str = ""
    """The run, for a share of a dataflow that was started; then there is no release."""


class DesiredList(Struct):
    """Desired states, sorted by robot and dataflow."""

    desired: list[Desired]
    revision: Int64
    """The revision at which they were read."""


class AuditRead(Struct):
    """Selects records of the audit."""

    after: Int64 = 0
    """Records after this number."""
    limit: Int64 = 100
    """At most 1000."""


class AuditRecord(Struct):
    """A change that a client has made, with its place in the chain."""

    sequence: Int64
    hash: str
    record: dict[str, Any]
    """What the hash is made of, decoded."""


class AuditPage(Struct):
    """Records of the audit in their order."""

    records: list[AuditRecord]
    head: str
    """Number and hash of the last record there is."""


class AuditVerify(Struct):
    """Check the whole audit."""

    known: str | None = None
    """A head that was kept elsewhere, which the audit must continue."""


class AuditHead(Struct):
    """The result of a check without fault."""

    head: str


COORDINATOR_STATUS = CallMethod(
    "coordinator.status",
    "viewer",
    Nothing,
    CoordinatorStatus,
    "Return the state of the coordinator.",
)
COORDINATOR_BACKUP = CallMethod(
    "coordinator.backup", "admin", Backup, BackedUp, "Write a backup of the store."
)
COORDINATOR_SHUTDOWN = CallMethod(
    "coordinator.shutdown",
    "admin",
    Nothing,
    Nothing,
    "End the coordinator; dataflows run on without it.",
)
ALERTS_RECEIVERS = CallMethod(
    "alerts.receivers", "viewer", Nothing, AlertReceivers, "Return where alerts are sent."
)
ALERTS_TEST = CallMethod(
    "alerts.test", "operator", Nothing, AlertTest, "Send a test to all receivers of alerts."
)
ROBOT_LIST = CallMethod("robot.list", "viewer", Nothing, RobotList, "List the robots.")
ROBOT_LABEL = CallMethod("robot.label", "operator", RobotLabel, Robot, "Change labels of a robot.")
ROBOT_ADOPT = CallMethod(
    "robot.adopt", "admin", RobotRef, Robot, "Copy a paused robot's state into the store."
)
ROBOT_RESUME = CallMethod(
    "robot.resume", "admin", RobotRef, Robot, "Make a paused robot follow the store."
)
ROBOT_TAKEOVER = CallMethod(
    "robot.takeover", "admin", RobotRef, Robot, "Let a robot obey, whatever term it obeyed before."
)
DATAFLOW_EXPLAIN = CallMethod(
    "dataflow.explain",
    "operator",
    Explain,
    Explained,
    "Return where nodes run or would run, and why.",
)
DESIRED_GET = CallMethod(
    "desired.get", "viewer", DesiredRef, DesiredList, "Return the desired state of robots."
)
DESIRED_SET = CallMethod(
    "desired.set", "operator", DesiredSet, Desired, "Set the desired state of a robot."
)
AUDIT_READ = CallMethod(
    "audit.read", "viewer", AuditRead, AuditPage, "Return records of the audit."
)
AUDIT_VERIFY = CallMethod(
    "audit.verify", "viewer", AuditVerify, AuditHead, "Check the audit and return its head."
)
AUDIT_ACKNOWLEDGE = CallMethod(
    "audit.acknowledge",
    "admin",
    AuditAcknowledge,
    AuditAcknowledged,
    "Let robots follow an audit that lacks records.",
)

METHODS = by_name(
    [
        *DORAD_METHODS.values(),
        *defined_in(
            sys.modules[__name__],
            accessmessages,
            deploymentmessages,
            incidentmessages,
            loadmessages,
            membermessages,
            secretmessages,
            uploadmessages,
            enrolment,
            rolloutmessages,
        ),
    ]
)
"""The methods of a coordinator."""

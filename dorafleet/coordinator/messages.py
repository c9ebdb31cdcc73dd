"""What clients and a coordinator send each other, in the frames of the control API.

Times are seconds since 1970 (UTC). `version` is the revision of the last change; a client sends the
one that it has seen as `if_version`.
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from dorad.control.messages import Method, Nothing, Struct


class CoordinatorStatus(Struct):
    """State of the coordinator itself."""

    version: str
    pid: int
    started_at: float
    state: str
    """Path of the store."""
    epoch: int
    """The number of this coordinator; each later one has a higher number."""
    revision: int
    """Grows with every change of the store."""
    robots: int
    audit: str
    """Head of the audit: number and hash of the last record."""


class Backup(Struct):
    """Write everything in the store to a file on the coordinator's machine."""

    path: str
    """Absolute. A file that exists is replaced."""


class BackedUp(Struct):
    """A backup that is on the disk."""

    entries: int
    """Number of keys in it."""


class Robot(Struct):
    """A machine of the cluster file."""

    id: str
    host: str
    labels: dict[str, str]
    state: Literal["never-seen"] = "never-seen"
    """No robot has a way to report yet."""


class RobotList(Struct):
    """All robots, in the order of the cluster file."""

    robots: list[Robot]


class DesiredRef(Struct):
    """Selects desired states."""

    robot: str | None = None
    """None selects those of all robots."""
    dataflow: str | None = None
    """None selects all dataflows."""


class DesiredSet(Struct):
    """What shall run on a robot. Refused with `conflict` if it was changed meanwhile."""

    robot: str
    dataflow: str
    if_version: int
    """The version that is to be replaced; 0 if there shall be none yet."""
    release: str
    """The name of the release."""
    params: dict[str, Any] = msgspec.field(default_factory=dict)
    enabled: bool = True
    """Whether the dataflow shall run."""


class Desired(Struct):
    """What shall run on a robot."""

    robot: str
    dataflow: str
    release: str
    params: dict[str, Any]
    enabled: bool
    generation: int
    """Grows with every change of the content."""
    version: int
    uuid: str = ""
    """The run, for a share of a dataflow that was started; then there is no release."""


class DesiredList(Struct):
    """Desired states, sorted by robot and dataflow."""

    desired: list[Desired]
    revision: int
    """The revision at which they were read."""


class AuditRead(Struct):
    """Selects records of the audit."""

    after: int = 0
    """Records after this number."""
    limit: int = 100
    """At most 1000."""


class AuditRecord(Struct):
    """A change that a client has made, with its place in the chain."""

    sequence: int
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


METHODS: dict[str, Method] = {
    "coordinator.status": Method(
        Nothing, CoordinatorStatus, "Return the state of the coordinator."
    ),
    "coordinator.backup": Method(Backup, BackedUp, "Write a backup of the store."),
    "robot.list": Method(Nothing, RobotList, "List the robots."),
    "desired.get": Method(DesiredRef, DesiredList, "Return what shall run on robots."),
    "desired.set": Method(DesiredSet, Desired, "Set what shall run on a robot."),
    "audit.read": Method(AuditRead, AuditPage, "Return records of the audit."),
    "audit.verify": Method(AuditVerify, AuditHead, "Check the audit and return its head."),
}

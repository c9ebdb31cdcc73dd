"""The records of a dataflow of the fleet, and of its share on each robot, in the store."""

from collections.abc import Mapping
from typing import Any

import msgspec

from dorad.control import messages as m
from dorad.control.messages.releases import Group, Rejection
from dorad.int64 import Int64

DESIRED = "desired/"
LABELS = "labels/"


HOLD_S = 120.0
"""Seconds until all robots must be ready after a start; the default."""


class StartOptions(msgspec.Struct, frozen=True):
    """The options that a dataflow was started with."""

    env: dict[str, str] = {}
    uv: bool = False
    allow_shell: bool = False
    exit_when_nodes_finish: bool | None = None


class End(msgspec.Struct, frozen=True):
    """How a dataflow ended."""

    at: float
    status: m.Status
    results: list[m.NodeResult] = []
    failures: list[m.Failure] = []
    missing: list[str] = []
    """Robots that could not be reached, where it may still run."""


class Again(msgspec.Struct, frozen=True):
    """The run that a restart starts once the present one has ended."""

    uuid: str
    params: dict[str, dict[str, Any]]
    """Parameters that were set since the start, by node and key."""
    actor: dict[str, Any]
    """Who has asked for it, for the audit."""


class DataflowRecord(msgspec.Struct, frozen=True):
    """A dataflow that was started over the machines of the fleet: the run of a deployment."""

    uuid: str
    name: str | None
    path: str
    original: dict[str, Any]
    """The descriptor that it was started from."""
    descriptor: dict[str, Any]
    """The current descriptor."""
    options: StartOptions
    placement: dict[str, str]
    """The robot of each node that has one."""
    ports: dict[str, Int64]
    """The robots that take part, each with the port of its link process."""
    generation: Int64
    """Grows with every change; that of its shares."""
    started_at: float
    hold: float
    """Seconds until all robots must be ready after the start."""
    pending: dict[str, str] = {}
    """Nodes without a robot, with the reason."""
    enabled: bool = True
    """Whether it is to run."""
    opened: bool = False
    """Whether all robots have been ready, so that the start barrier is open."""
    grace: float | None = None
    """For its stop."""
    force: bool = False
    """For its stop: SIGKILL at once, and robots that cannot be reached are not waited for."""
    failure: str = ""
    """Why the start has failed."""
    params: dict[str, dict[str, Any]] = {}
    """Parameters that were set, by node and key: what a machine that gets a node begins with."""
    end: End | None = None
    again: Again | None = None
    """Whether it is started again when it has ended."""

    @property
    def key(self) -> str:
        """Its unique name in the fleet: its name, or its UUID if it has none."""
        return self.name or self.uuid

    @property
    def running(self) -> bool:
        """Whether it has not ended."""
        return self.end is None

    @property
    def robots(self) -> tuple[str, ...]:
        """The robots that take part."""
        return tuple(self.ports)


class RobotAssignment(msgspec.Struct, frozen=True):
    """The value of `desired/<robot>/<dataflow>`: the desired state there."""

    generation: Int64
    release: str = ""
    """The name of a release; empty for a share of a dataflow that was started."""
    params: dict[str, Any] = {}
    enabled: bool = True
    uuid: str = ""
    """The run, for a share of a dataflow that was started."""
    switch: bool = True
    """Of a release: whether the robot may switch to it, or only gets ready."""
    arm: bool = False
    """Of a release: whether the robot reserves its switch for a short time."""
    rollout: Int64 = 0
    """Of a release: the rollout that has ordered it; 0 for none."""
    allow_lower: bool = False
    retry: bool = False
    stay: bool = False
    """Of a release that runs already: whether nodes that have ended stay ended."""
    rejects: list[Rejection] = []
    """What was undone, so that the robot does not go back to it."""
    soak_time: float = 0.0
    """Of a release: seconds after its confirmation in which a node that fails makes the robot go
    back."""
    withdraw: bool = False
    """Of a release that the robot has confirmed: whether it goes back, because nodes failed."""
    group: Group | None = None
    """Of a release: the machines that run it together; None: the robot runs all of it alone."""
    scope: str = "each"
    """Of a release: that of its rollout."""
    committed: bool = False
    """Of a release of a group: whether each of its machines was healthy with it."""
    returns: bool = False
    """Of one that is not enabled: whether it runs again if the robot hears nothing for too long."""

    @property
    def is_order(self) -> bool:
        """Whether it concerns a release; an empty `release` ends the dataflow."""
        return not self.uuid


class Restored(msgspec.Struct, frozen=True):
    """The value of the key `restored`."""

    backup: Int64
    """The revision of the backup."""
    first: Int64
    """The revision that the store continued from; none between the two can be its own."""
    paused: bool = True
    """Whether the rollouts that were open have been paused. A restore leaves False; one by an
    earlier version nothing."""
    acknowledged: bool = True
    """Whether an operator has acknowledged that later changes are missing. As above."""


def desired_key(robot: str, dataflow: str) -> str:
    """Return the key of a desired state."""
    return f"{DESIRED}{robot}/{dataflow}"


def desired_share(record: DataflowRecord) -> RobotAssignment:
    """Return the desired state of the shares of a dataflow."""
    return RobotAssignment(
        generation=record.generation, enabled=record.enabled and record.running, uuid=record.uuid
    )


def labels_of(given: Mapping[str, str], changed: Mapping[str, str | None]) -> dict[str, str]:
    """Return the labels of a machine with those that were changed; None removes one."""
    merged = {**given, **changed}
    return {name: value for name, value in merged.items() if value is not None}

"""What clients and a coordinator send each other about deployments.

Times are seconds since 1970 (UTC).
"""

from typing import Any, Literal

from dorad.control.messages import CallMethod, Nothing, Start, Struct
from dorad.int64 import Int64


class DeploymentInstance(Struct):
    """One running copy of a deployment."""

    instance: str
    """The robot, the cell, or the deployment's own name if it is one over all machines."""
    robots: list[str]
    release: str = ""
    """`name@sequence` of what runs; several, with `, `, if its machines differ."""
    state: str = ""
    """Of its machines by their last reports; several, with `, `, if they differ."""


class DeploymentInfo(Struct):
    """What should run under one name."""

    name: str
    """`ROBOT/NAME` for a local one."""
    source: Literal["release", "inline", "local"]
    """`inline`: `dora start` has sent the dataflow, unsigned. `local`: a robot runs it of its own,
    without an order of the coordinator."""
    state: str
    release: str = ""
    """Id of the release that should run."""
    label: str = ""
    """`name@sequence` of it."""
    rollout: Int64 | None = None
    """The newest."""
    scope: str = "one"
    robots: list[str] = []
    """For which the newest rollout is; none selects all."""
    labels: dict[str, str] = {}
    params: dict[str, Any] | None = None
    """That it has set, by `node/name`."""
    revision: Int64 = 0
    since: float | None = None
    """When the last revision came."""
    by: str = ""
    """Who made it; empty for the coordinator itself."""
    instances: list[DeploymentInstance] = []


class DeploymentList(Struct):
    """All deployments, sorted by name, then what robots run of their own."""

    deployments: list[DeploymentInfo]


class DeploymentRef(Struct):
    """One deployment."""

    name: str


class DeploymentRevision(Struct):
    """A change of what should run."""

    number: Int64
    at: float
    what: str
    """`dataflow.start`, `node.add`, `rollout.undo`: the method, or what the coordinator did."""
    by: str = ""
    run: str = ""
    """The UUID of the run, if the source is inline."""
    release: str = ""
    """The id of the release, if it is one."""
    label: str = ""
    """`name@sequence` of it."""
    rollout: Int64 = 0
    instances: list[str] = []
    """Those that were undone; none for all."""


class DeploymentHistory(Struct):
    """The last revisions of a deployment, the oldest first."""

    revisions: list[DeploymentRevision]


class DeploymentPlan(Struct):
    """What the start of a dataflow would do; nothing is started."""

    name: str
    placement: dict[str, str]
    """The machine of each node that has one."""
    pending: dict[str, str]
    """Nodes that no machine takes, with the reason."""
    machines: list[str]
    replaces: str = ""
    """The UUID of the run of this name that has ended."""


DEPLOYMENT_LIST = CallMethod(
    "deployment.list", "viewer", Nothing, DeploymentList, "List the deployments."
)
DEPLOYMENT_HISTORY = CallMethod(
    "deployment.history",
    "viewer",
    DeploymentRef,
    DeploymentHistory,
    "Return the last revisions of a deployment.",
)
DEPLOYMENT_PLAN = CallMethod(
    "deployment.plan",
    "operator",
    Start,
    DeploymentPlan,
    "Show what the start of a dataflow would do.",
)

"""What clients and a coordinator send each other about the load of robots, instances and cells."""

from dorad.control.messages import CallMethod, Struct
from dorad.int64 import Int64


class FleetLoadQuery(Struct):
    """Measure all robots, and add up their nodes and edges."""

    by: str = "robot"
    """`robot`; `instance`, which is a dataflow on one machine or over several; or the key of a
    label, such as `cell`."""


class FleetLoad(Struct):
    """The sum over the nodes and edges of a robot, an instance or the robots with a label."""

    name: str
    """Empty for robots without the label."""
    robots: Int64 = 0
    """Number of the robots that it is on."""
    missing: dict[str, str] = {}
    """Those that were not measured, and why: the sums are without them."""
    nodes: Int64 = 0
    failed: Int64 = 0
    """Nodes that have failed."""
    restarts: Int64 = 0
    cpu: float | None = None
    """Percent of one core; None, like all figures below, if no robot was measured."""
    memory: Int64 | None = None
    rate: float | None = None
    """Messages sent a second, over all edges."""
    bandwidth: float | None = None
    """Payload bytes a second."""
    drop_rate: float | None = None
    """Messages a second that full queues have displaced."""
    sent: Int64 | None = None
    """Messages sent over all edges, since their dataflows started; smaller once one has ended."""
    payload: Int64 | None = None
    """Bytes of these messages."""
    dropped: Int64 | None = None
    """Messages that full queues have displaced, of the same time, as is `lost`."""
    lost: Int64 | None = None
    """Messages that were lost between machines."""
    latency_p99: float | None = None
    """Seconds, of the slowest edge; None also while nothing was received."""
    slowest: str = ""
    """That edge."""
    offset: float | None = None
    """Seconds by which the clock of the robot is ahead of the coordinator's; of several robots the
    difference between the clock that is most ahead and the one that is most behind."""


class FleetLoads(Struct):
    """The load of all, by name."""

    at: float
    """When it was measured, by the coordinator's clock."""
    rows: list[FleetLoad]


FLEET_LOAD = CallMethod(
    "fleet.load",
    "viewer",
    FleetLoadQuery,
    FleetLoads,
    "Add up what nodes use and edges carry, by robot, instance or label.",
    seconds=lambda _: 60.0,  # for 1,000 robots, a hundred at a time
)

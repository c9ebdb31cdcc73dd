"""Messages about edges and outputs: counters, rates, subscriptions, publishing."""

from __future__ import annotations

from typing import Any

from dorad.control.messages.base import Nothing, Struct
from dorad.control.messages.dataflows import Ref
from dorad.control.messages.method import CallMethod, FrameMethod, StreamMethod
from dorad.control.messages.nodes import NodeInfo, Subscriber
from dorad.control.messages.shares import LinkChannel
from dorad.int64 import Int64


class EdgeStats(Struct):
    """Counters of one edge: totals since the start, and rates over the last seconds."""

    dataflow: str
    source: str
    """`node/output`."""
    target: str
    """`node/input`."""
    queue_size: Int64
    sent: Int64
    received: Int64
    dropped: Int64
    queued: Int64
    payload: Int64
    """Bytes of all messages that were sent."""
    rate: float
    """Messages sent a second."""
    drop_rate: float
    bandwidth: float
    """Payload bytes a second."""
    latency: float | None
    """Mean seconds from sending to receiving; None while nothing has been received."""
    jitter: float | None
    """Mean absolute difference of the latencies of successive messages, in seconds."""
    broken: bool = False
    unreadable: Int64 = 0
    """Received messages that were malformed. The node got an ERROR event for each."""
    lost: Int64 = 0
    """Messages that were lost on the way from another machine, or from ROS 2. No other count
    includes them."""
    machine: str | None = None
    """The machine that counts; only from a coordinator."""
    dataflow_name: str | None = None
    latency_p50: float | None = None
    """Half of the messages took at most so many seconds. True within a factor of two, as
    `latency_p99` and `latency_worst`. None while nothing has been received, or from an older
    daemon."""
    latency_p99: float | None = None
    """99 of 100 messages took at most so many seconds."""
    latency_worst: float | None = None
    """No message took more seconds."""
    latency_sum: float = 0.0
    """Sum of the latencies of all received messages since the start, in seconds."""
    latencies: list[Int64] = []
    """Received messages by latency since the start. Entry `n` counts those whose latency in
    nanoseconds has `n` significant bits, so is below 2^n. Zeros at the end are left out; empty from
    an older daemon."""

    @property
    def title(self) -> str:
        """What its dataflow is called."""
        return self.dataflow_name or self.dataflow

    @property
    def losses(self) -> int:
        """Messages that the input lacks although no queue has dropped them."""
        return self.lost + self.unreadable


class InterfaceRates(Struct):
    """Current rates of a network interface, in bytes and packets a second."""

    name: str
    received: float
    sent: float
    dropped: float
    """Packets that were dropped or faulty, in both directions."""
    machine: str | None = None
    """The machine of the interface; only from a coordinator."""


class Top(Struct):
    """A snapshot of everything that `dora top` shows."""

    at: float
    window: float
    """Seconds over which rates and latencies are measured."""
    nodes: list[NodeInfo]
    edges: list[EdgeStats]
    interfaces: list[InterfaceRates] = []
    links: list[LinkChannel] = []
    """The channels between this machine and others."""
    missing: dict[str, str] = {}
    """Machines that did not answer, with the reason; only from a coordinator."""


class TopHistory(Struct):
    """Read the figures of the last ten minutes: of a dataflow, or of a node and its edges."""

    dataflow: str | None = None
    node: str | None = None
    points: Int64 = 0
    """Number of points of each figure; 0 for all. Each point is the largest value in its part of
    the ten minutes."""


class NodeCurves(Struct):
    """The figures of a node, the oldest first; null where nothing was measured."""

    dataflow: str
    node: str
    cpu: list[float | None]
    """Percent of one core."""
    memory: list[float | None]
    """Bytes."""
    machine: str | None = None
    """The machine of the node; only from a coordinator."""


class EdgeCurves(Struct):
    """The figures of an edge, the oldest first; null where nothing was measured or received."""

    dataflow: str
    source: str
    """`node/output`."""
    target: str
    """`node/input`."""
    rate: list[float | None]
    """Messages sent a second."""
    drop_rate: list[float | None]
    latency_p50: list[float | None]
    """Half of the messages took at most so many seconds, true within a factor of two."""
    latency_p99: list[float | None]
    """99 of 100 messages took at most so many seconds, true within a factor of two."""
    machine: str | None = None
    """The machine that counts; only from a coordinator."""


class History(Struct):
    """Figures of the last ten minutes, or since the daemon was started."""

    at: float
    """When the daemon answered."""
    step: float
    """Seconds from one point to the next."""
    nodes: list[NodeCurves] = []
    edges: list[EdgeCurves] = []
    left_out: Int64 = 0
    """Nodes and edges beyond the maximum that the daemon keeps, or that one answer has."""
    missing: dict[str, str] = {}
    """Machines that did not answer, with the reason; only from a coordinator."""


class RobotCurves(Struct):
    """The figures of a robot, the oldest first; null where nothing ran."""

    cpu: list[float | None]
    """Percent of one core, of all nodes together."""
    rate: list[float | None]
    """Messages sent a second on all edges."""
    drop_rate: list[float | None]
    """Dropped messages a second on all edges."""
    latency_p99: list[float | None]
    """The longest p99 of all edges, in seconds."""


ROBOT_POINTS = 24
"""Points of a robot's figures in ten minutes."""


class RobotHistoryQuery(Struct):
    """Read the figures of robots in the last ten minutes, each over all that runs there."""

    robots: list[str] = []
    """Ids of robots, for a coordinator. A daemon answers for its own machine."""


class RobotHistory(Struct):
    """Figures over the last ten minutes, by robot. Robots that did not answer are left out."""

    robots: dict[str, RobotCurves]


class TopicInfo(Struct):
    """One output and its subscribers."""

    node: str
    output: str
    subscribers: list[Subscriber]
    type: str | None = None
    """The declared type; null if the file declares none."""
    links: list[LinkChannel] = []
    """The channels of the output to other machines."""


class TopicList(Struct):
    """The outputs of one dataflow."""

    dataflow: str
    topics: list[TopicInfo]


class TopicWatch(Struct):
    """Measure outputs: a stream with one `TopicRates` a second. No topics means all of the
    dataflow."""

    dataflow: str | None = None
    topics: list[str] = []
    window: Int64 = 10
    """Seconds over which rates are measured, at least 1."""


class TopicRate(Struct):
    """Rate and bandwidth of one output. Intervals are in ms, None if unknown."""

    topic: str
    hz: float
    """Messages a second."""
    bandwidth: float
    """Payload bytes a second."""
    count: Int64
    """Number of messages within the window."""
    mean_ms: float | None = None
    min_ms: float | None = None
    max_ms: float | None = None
    std_ms: float | None = None
    samples: Int64 = 0
    """Number of intervals behind minimum, maximum and deviation."""


class TopicRates(Struct):
    """The rates of all watched outputs."""

    at: float
    rates: list[TopicRate]
    missing: dict[str, str] = {}
    """Machines whose outputs are missing here, with the reason; only from a coordinator."""
    merged: TopicRate | None = None
    """The messages of all these outputs as one stream. None if several machines measure them."""


class Preview(Struct):
    """Reduce messages before they are sent.

    A picture is reduced to `width` x `height` pixels at most, other data to 4096 elements. A
    picture has `width`, `height` and an `encoding` of pixels or depth, in its metadata or in a
    struct; it becomes `rgb8`. A picture may also be a file, with the `encoding` `jpeg`, `png` or
    `webp`; if the machine cannot decode it, the message is sent as it is. A message that still has
    more than 256 KiB comes without its data. The metadata `preview` say what was reduced.
    """

    width: Int64
    """1 to 4096."""
    height: Int64
    """1 to 4096."""


class TopicSubscribe(Struct):
    """Receive the messages of outputs as binary frames. No topics means all of the dataflow."""

    dataflow: str | None = None
    topics: list[str] = []
    queue_size: Int64 = 64
    """Messages of each topic that the daemon keeps for a slow reader, 1 to 4096. Newer ones
    displace older ones."""
    max_rate_hz: float | None = None
    """Maximum messages a second of each topic; the daemon skips those between. None sets no
    limit."""
    preview: Preview | None = None
    """How to make messages smaller on the machine that they come from."""


class TopicHeader(Struct):
    """The header before the Arrow IPC stream in a binary frame."""

    stream: Int64
    """Id of the `topic.subscribe` request."""
    topic: str
    sequence: Int64
    """Number of the frame among those of this topic, from 1."""
    dropped: Int64
    """Messages of this topic that newer ones have displaced so far."""
    metadata: dict[str, Any]
    """The metadata as sent, with the time of sending as `timestamp`. Times are text in ISO 8601.
    Numbers that JSON cannot express, such as NaN, are null."""


class TopicPublish(Struct):
    """Send messages on an output as if its node did. Each entry of `data` is one message."""

    topic: str
    data: list[Any]
    """A list becomes an Arrow array, anything else an array of one element. Numbers become int64 or
    float64, objects become structs. The elements of a list must fit one type."""
    dataflow: str | None = None
    metadata: dict[str, Any] = {}
    """Metadata of each message: numbers, text, booleans, and lists of one of these kinds."""


class Published(Struct):
    """The number of messages that were sent, and of inputs and subscriptions that each was sent
    to."""

    messages: Int64
    subscribers: Int64


TOP = CallMethod("top", "viewer", Nothing, Top, "Measure all running nodes and their edges.")
TOP_HISTORY = CallMethod(
    "top.history",
    "viewer",
    TopHistory,
    History,
    "Read the figures of the last ten minutes.",
    scope="any",
)
ROBOT_HISTORY = CallMethod(
    "robot.history",
    "viewer",
    RobotHistoryQuery,
    RobotHistory,
    "Read the figures of robots in the last ten minutes, each over all that runs there.",
)
TOPIC_LIST = CallMethod(
    "topic.list", "viewer", Ref, TopicList, "List outputs and their subscribers.", scope="any"
)
TOPIC_WATCH = StreamMethod(
    "topic.watch", "viewer", TopicWatch, TopicRates, "Measure outputs.", scope="any"
)
TOPIC_SUBSCRIBE = FrameMethod(
    "topic.subscribe",
    "viewer",
    TopicSubscribe,
    TopicHeader,
    "Receive the messages of outputs.",
    scope="any",
)
TOPIC_PUBLISH = CallMethod(
    "topic.publish",
    "operator",
    TopicPublish,
    Published,
    "Send messages on an output as if its node did.",
    scope="any",
)

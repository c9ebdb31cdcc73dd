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
    """Bytes sent."""
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
    """Received messages that were malformed; the node got an ERROR event for each."""
    lost: Int64 = 0
    """Messages that were lost on the way from another machine; no other count has them."""
    machine: str | None = None
    """The machine that it is on; only from a coordinator."""
    dataflow_name: str | None = None

    @property
    def title(self) -> str:
        """What its dataflow is called."""
        return self.dataflow_name or self.dataflow


class InterfaceRates(Struct):
    """Current rates of a network interface, in bytes and packets a second."""

    name: str
    received: float
    sent: float
    dropped: float
    """Packets dropped or faulty, in both directions."""
    machine: str | None = None
    """The machine that it is on; only from a coordinator."""


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


class TopicInfo(Struct):
    """One output and its subscribers."""

    node: str
    output: str
    subscribers: list[Subscriber]
    type: str | None = None
    """The declared type; null if the file declares none."""
    links: list[LinkChannel] = []
    """Its channels to other machines."""


class TopicList(Struct):
    """The outputs of one dataflow."""

    dataflow: str
    topics: list[TopicInfo]


class TopicWatch(Struct):
    """Measure outputs: a stream with one `TopicRates` a second. No topics means all of them."""

    dataflow: str | None = None
    topics: list[str] = []
    window: Int64 = 10
    """Seconds over which rates are measured."""


class TopicRate(Struct):
    """Rate and bandwidth of one output. Intervals are in ms, None if unknown."""

    topic: str
    hz: float
    bandwidth: float
    """Payload bytes a second."""
    count: Int64
    """Messages within the window."""
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
    """Machines whose outputs are not among them, with the reason; only from a coordinator."""
    merged: TopicRate | None = None
    """The messages of all these outputs as one stream; None if several machines measure them."""


class Preview(Struct):
    """Reduce messages at their source: images to `width` x `height` pixels, other data to 4096
    elements.

    An image has `width`, `height` and an `encoding` of plain pixels in its metadata; it becomes
    `rgb8`. The metadata `preview` says what the message was.
    """

    width: Int64
    height: Int64


class TopicSubscribe(Struct):
    """Receive the messages of outputs as binary frames. No topics means all of the dataflow."""

    dataflow: str | None = None
    topics: list[str] = []
    queue_size: Int64 = 64
    """Messages kept for a slow reader, for each topic; newer ones displace older ones."""
    max_rate_hz: float | None = None
    """Maximum messages a second for each topic; those between are skipped. None sets no limit."""
    preview: Preview | None = None
    """Where the messages come from, they are made smaller."""


class TopicHeader(Struct):
    """The header before the Arrow IPC stream in a binary frame."""

    stream: Int64
    """Id of the `topic.subscribe` request."""
    topic: str
    sequence: Int64
    """Counts the frames of this topic from 1."""
    dropped: Int64
    """Messages of this topic that have been displaced so far."""
    metadata: dict[str, Any]
    """Metadata as sent, and the time of sending as `timestamp`. Times are text in ISO 8601; numbers
    that JSON cannot express, such as NaN, are null."""


class TopicPublish(Struct):
    """Send messages on an output as if its node did. Each entry of `data` is one message."""

    topic: str
    data: list[Any]
    """A list becomes an Arrow array, anything else an array of one element. Numbers become int64 or
    float64, objects structs; the elements of a list must fit one type."""
    dataflow: str | None = None
    metadata: dict[str, Any] = {}
    """Metadata of each message: numbers, text, booleans, and lists of one of these kinds."""


class Published(Struct):
    """The number of messages sent, and of subscribers that received each."""

    messages: Int64
    subscribers: Int64


TOP = CallMethod("top", "viewer", Nothing, Top, "Measure all running nodes and their edges.")
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

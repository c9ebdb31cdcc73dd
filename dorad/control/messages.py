"""The messages of the control API as plain structs: one request, one reply, or a stream of events.

Times are seconds since 1970 (UTC), durations are seconds, sizes are bytes, unless a name says
otherwise. A field that is added later has a default, so that older clients and daemons go on
understanding each other; `PROTOCOL` grows when that cannot be had.
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec

PROTOCOL = 1
"""The version of this protocol; both sides say theirs in the handshake."""


class Struct(msgspec.Struct, kw_only=True, forbid_unknown_fields=False):
    """The base of every message."""


# -- the daemon --------------------------------------------------------------------------------


class Nothing(Struct):
    """No parameters, or no result."""


class Interface(Struct):
    """A network interface."""

    name: str
    up: bool
    """Whether packets can pass now."""
    addresses: list[str] = []
    """With prefix: `192.0.2.7/24`."""


class Network(Struct):
    """The network of the namespace that the daemon runs in."""

    interfaces: list[Interface]
    defaults: list[str] = []
    """Default routes, the preferred first: `192.0.2.1 over eth0`."""


class DaemonStatus(Struct):
    """What is known of the daemon itself."""

    version: str
    protocol: int
    pid: int
    started_at: float
    dataflows: int
    """Dataflows that run."""
    nodes: int
    """Node processes that run."""
    state: str
    """Path of the state file."""
    adopted: int = 0
    """Nodes that it found running when it started."""
    notices: list[str] = []
    """What the operator should know: a state file that was set aside, a full disk."""
    problem: str = ""
    """Why nodes cannot be started; empty if they can."""
    memory: int = 0
    """Resident bytes."""
    cpu: float = 0.0
    """Percent of one core, over the last seconds."""
    network: Network | None = None
    """The network as the daemon sees it; None while it does not know."""


class Shutdown(Struct):
    """End the daemon. Refused with `busy` while dataflows run, unless `force` stops them first."""

    force: bool = False


# -- dataflows ---------------------------------------------------------------------------------

Status = Literal["starting", "running", "stopping", "finished", "failed"]


class Start(Struct):
    """Start a dataflow."""

    descriptor: dict[str, Any]
    """The file as parsed, `env` expanded."""
    path: str
    """Absolute path of the file; relative paths in it start at its folder."""
    name: str | None = None
    """At most 64 of `A-Z a-z 0-9 _ . -`, the first no `-`; must differ from those of running
    dataflows."""
    env: dict[str, str] = {}
    """`--env`: over the dataflow's `env`, under the node's."""
    uv: bool = False
    allow_shell: bool = False
    exit_when_nodes_finish: bool | None = None
    hot_reload: bool = False
    """Whether operators reload, and nodes are restarted, when their Python files change."""


class Started(Struct):
    """A dataflow was accepted; its nodes are being started."""

    uuid: str
    name: str | None = None


class Ref(Struct):
    """One dataflow, by UUID or name; None means the only one that runs."""

    dataflow: str | None = None


Until = Literal["spawned", "running", "ended"]


class Wait(Struct):
    """Wait until a dataflow's nodes have all been spawned, or until it has ended.

    Answered with `deadline` when `timeout` seconds have passed.
    """

    dataflow: str
    until: Until = "ended"
    timeout: float | None = None


class Failure(Struct):
    """One root cause: a headline, and the last lines that the node wrote to stderr."""

    headline: str
    lines: list[str] = []


class NodeResult(Struct):
    """How a node ended."""

    node: str
    outcome: Literal["ok", "failed", "grace", "cascading"]
    reason: str
    code: int | None = None
    signal: int | None = None


class DataflowState(Struct):
    """Where a dataflow is in its life; the results are complete when it has ended."""

    uuid: str
    name: str | None
    status: Status
    results: list[NodeResult] = []
    failures: list[Failure] = []


class Stop(Struct):
    """Stop a dataflow, and wait for its end."""

    dataflow: str | None = None
    grace: float | None = None
    """Seconds until SIGTERM; SIGKILL follows after half as many more. None: 10."""
    force: bool = False
    """SIGKILL at once."""


class Restarted(Struct):
    """A dataflow runs again, under a new UUID."""

    old: str
    new: str
    name: str | None = None
    changes: list[str] = []
    """How the descriptor differs from the file it was started from: `added node x`, ..."""


class DataflowInfo(Struct):
    """A row of the list of dataflows."""

    uuid: str
    name: str | None
    status: Status
    nodes: int
    """Node processes that run now."""
    cpu: float
    """Percent of one core."""
    memory: int
    started_at: float
    ended_at: float | None = None
    enabled: bool = False
    """Whether it is started when the machine is."""


class Enable(Struct):
    """Have a dataflow started when the machine is, or no longer. It needs a name."""

    dataflow: str | None = None
    """Running or ended, by UUID or name; None means the only one that runs."""
    enabled: bool = True


class DataflowList(Struct):
    """All dataflows that run, or have ended and were not cleaned."""

    dataflows: list[DataflowInfo]


class DataflowDetail(Struct):
    """One dataflow with what it was started from."""

    info: DataflowInfo
    descriptor: dict[str, Any]
    """As it runs now, changes included."""
    path: str
    log_dir: str
    changes: list[str] = []


# -- nodes -------------------------------------------------------------------------------------

NodeStatus = Literal["starting", "running", "degraded", "restarting", "failed", "stopped"]


class NodeMetrics(Struct):
    """What a node uses, children included."""

    cpu: float = 0.0
    """Percent of one core."""
    memory: int = 0
    disk_read: float = 0.0
    """Bytes a second."""
    disk_write: float = 0.0
    net_tx: float = 0.0
    """Payload bytes a second over TCP connections; see `net_known`."""
    net_rx: float = 0.0
    net_known: bool = False
    """Whether network figures can be had for this node."""


class NodeInfo(Struct):
    """One node as it is now."""

    dataflow: str
    dataflow_name: str | None
    node: str
    status: NodeStatus
    pid: int | None
    restarts: int
    metrics: NodeMetrics
    broken_inputs: list[str] = []
    pending: int = 0
    stamps_refused: int = 0
    """Timestamps received that were too far ahead to move the node's clock."""
    """Messages that wait in its inputs."""
    dynamic: bool = False
    started_at: float | None = None
    last_exit: str | None = None
    """How its last process ended, in words."""
    deadline_misses: int | None = None
    """Ticks of its timers that it took after their deadline, or never; None without timers."""
    tick_delay: float | None = None
    """Mean seconds from when a tick is due to when it is taken, over the last seconds."""
    tick_jitter: float | None = None
    """Mean absolute difference of successive delays, over the last seconds."""
    tick_worst: float | None = None
    """The longest delay since the start."""


class NodeRef(Struct):
    """One node of a dataflow."""

    node: str
    dataflow: str | None = None


class NodeList(Struct):
    """The nodes of one dataflow, or of all that run."""

    nodes: list[NodeInfo]


class Subscriber(Struct):
    """Who receives an output."""

    node: str
    input: str


class NodeDetail(Struct):
    """One node with its wiring and its policies."""

    info: NodeInfo
    path: str | None
    args: str | None
    restart_policy: str
    max_restarts: int
    restart_delay: float | None
    max_restart_delay: float | None
    restart_window: float | None
    health_check_timeout: float | None
    startup_timeout: float | None
    inputs: dict[str, str]
    """Input to its source, as text."""
    outputs: dict[str, list[Subscriber]]
    realtime: str | None = None
    """What it asks of the kernel, in words."""
    notes: list[str] = []
    """What its process lacks of what it was to have, one line each."""


class NodeAdd(Struct):
    """Add a node to a running dataflow."""

    definition: dict[str, Any]
    """One entry of `nodes`, `env` expanded; relative paths start where those of the file do."""
    dataflow: str | None = None


class NodeReplace(Struct):
    """Put another node in the place of one; its inputs and outputs stay."""

    node: str
    definition: dict[str, Any]
    """As of `node.add`, with the same `id` and the same inputs."""
    dataflow: str | None = None
    grace: float | None = None
    """Seconds that the old process has until SIGTERM. null: 10."""


class NodeStop(Struct):
    """Stop, remove or restart a node."""

    node: str
    dataflow: str | None = None
    grace: float | None = None
    """Seconds until SIGTERM; SIGKILL follows after half as many more. null: 10, for a restart 5."""


class EdgeRef(Struct):
    """One edge, as `node/output` and `node/input`."""

    source: str
    target: str
    dataflow: str | None = None


class EdgeNew(Struct):
    """An edge that is to be, as `node/output` and `node/input`."""

    source: str
    target: str
    options: dict[str, Any] = {}
    """Of the input, as in its long form in the file: `{"queue_size": 1, "latched": true}`."""
    dataflow: str | None = None


class Changed(Struct):
    """What a change of a running dataflow did."""

    uuid: str
    changes: list[str]
    """How the descriptor now differs from the file it was started from."""


# -- what passes -------------------------------------------------------------------------------


class EdgeStats(Struct):
    """One edge: totals since the start, and rates over the last seconds."""

    dataflow: str
    source: str
    """`node/output`."""
    target: str
    """`node/input`."""
    queue_size: int
    sent: int
    received: int
    dropped: int
    queued: int
    payload: int
    """Bytes sent."""
    rate: float
    """Messages sent a second."""
    drop_rate: float
    bandwidth: float
    """Payload bytes a second."""
    latency: float | None
    """Mean seconds from sending to receiving; None while nothing was received."""
    jitter: float | None
    """Mean absolute difference of the latencies of successive messages, seconds."""
    broken: bool = False
    unreadable: int = 0
    """Received messages that their sender had written wrongly; the node got ERROR events."""


class InterfaceRates(Struct):
    """What passes over a network interface now, in bytes and packets a second."""

    name: str
    received: float
    sent: float
    dropped: float
    """Packets dropped or faulty, both ways."""


class Top(Struct):
    """Everything `dora top` shows, of one moment."""

    at: float
    window: float
    """Seconds that rates and latencies are taken over."""
    nodes: list[NodeInfo]
    edges: list[EdgeStats]
    interfaces: list[InterfaceRates] = []


class TopicInfo(Struct):
    """One output and who receives it."""

    node: str
    output: str
    subscribers: list[Subscriber]
    type: str | None = None
    """As the file declares it; null if it does not."""


class TopicList(Struct):
    """The outputs of one dataflow."""

    dataflow: str
    topics: list[TopicInfo]


class TopicWatch(Struct):
    """Measure outputs: a stream with one `TopicRates` a second. No topics: all of the dataflow."""

    dataflow: str | None = None
    topics: list[str] = []
    window: int = 10
    """Seconds that figures are taken over."""


class TopicRate(Struct):
    """How often and how much comes over one output; intervals in ms, None when unknown."""

    topic: str
    hz: float
    bandwidth: float
    """Payload bytes a second."""
    count: int
    """Messages within the window."""
    mean_ms: float | None = None
    min_ms: float | None = None
    max_ms: float | None = None
    std_ms: float | None = None
    samples: int = 0
    """Intervals that minimum, maximum and deviation are taken over."""


class TopicRates(Struct):
    """The rates of all watched outputs."""

    at: float
    rates: list[TopicRate]


class TopicSubscribe(Struct):
    """Receive what outputs send: a stream of binary frames. No topics: all of the dataflow."""

    dataflow: str | None = None
    topics: list[str] = []
    queue_size: int = 64
    """Messages kept for a slow reader, by topic; newer ones displace older ones."""


class TopicHeader(Struct):
    """What stands before the Arrow IPC stream in a binary frame."""

    stream: int
    """The id of the request that subscribed."""
    topic: str
    sequence: int
    """Counts the frames of this topic from 1."""
    dropped: int
    """Messages of this topic that were displaced so far."""
    metadata: dict[str, Any]
    """As sent, with `timestamp`, when that was. Times are text in ISO 8601; a number that JSON has
    no word for is null."""


class TopicPublish(Struct):
    """Send on an output as if its node did. Each entry of `data` becomes one message."""

    topic: str
    data: list[Any]
    """A list becomes an Arrow array, anything else an array of one element. Numbers become int64 or
    float64, objects structs; the elements of a list must fit one type."""
    dataflow: str | None = None
    metadata: dict[str, Any] = {}
    """Of each message: numbers, text, true and false, and lists of one of these kinds."""


class Published(Struct):
    """How many subscribers got each message."""

    messages: int
    subscribers: int


# -- parameters --------------------------------------------------------------------------------


class ParamRef(Struct):
    """One parameter of a node."""

    node: str
    key: str
    dataflow: str | None = None


class ParamSet(Struct):
    """Set a parameter; refused if its declaration forbids the value."""

    node: str
    key: str
    value: Any
    dataflow: str | None = None


class Param(Struct):
    """A parameter as it stands."""

    key: str
    value: Any
    declared: bool = False
    type: str | None = None
    default: Any = None
    minimum: float | None = None
    maximum: float | None = None
    choices: list[Any] | None = None
    description: str | None = None
    delivered: bool = True
    """Whether the running node was told of it; False: it will read it when it starts."""


class ParamList(Struct):
    """The parameters of a node."""

    params: list[Param]


# -- logs and events ---------------------------------------------------------------------------


class LogRead(Struct):
    """Read log lines: a stream of `LogLines`. Times are seconds since 1970."""

    dataflow: str | None = None
    nodes: list[str] = []
    """Empty: all nodes, and what the daemon says about the dataflow."""
    tail: int | None = None
    """Only so many of the newest lines that match, of all chosen nodes together."""
    since: float | None = None
    until: float | None = None
    level: str | None = None
    by_node: dict[str, str] = {}
    """Least severity by node."""
    grep: str | None = None
    follow: bool = False


class LogLine(Struct):
    """One log line; `node` is None for what the daemon says."""

    timestamp: float
    level: str
    node: str | None
    message: str
    stream: str = "stdout"
    target: str | None = None
    fields: dict[str, Any] | None = None
    file: str | None = None
    line: int | None = None
    module_path: str | None = None


class LogLines(Struct):
    """Some log lines, oldest first. `left_out` were lost because the reader was too slow."""

    dataflow: str
    lines: list[LogLine]
    left_out: int = 0


class Watch(Struct):
    """Follow what happens to dataflows: a stream of `Event`."""

    dataflow: str | None = None
    """None: to all of them."""


class Event(Struct):
    """Something that happened to a dataflow or to a node of it."""

    at: float
    dataflow: str
    what: str
    """`dataflow-starting` `dataflow-running` `dataflow-ended` `node-started` `node-exited`
    `node-restarting` `node-failed` `input-broken` `input-recovered` `param-changed`
    `topology-changed`, `network-changed` (of no dataflow), and others later."""
    node: str | None = None
    text: str = ""
    """For people: why, how; may be empty."""
    data: dict[str, Any] = {}
    """For programs: `pid` and `restarts` of `node-started`; `code` and `signal` of `node-exited`;
    `after`, in seconds, of `node-restarting`; `input` and `source` of `input-broken` and
    `input-recovered`; `key` and `value` of `param-changed`; `change` of `topology-changed`."""


# -- the table of methods ----------------------------------------------------------------------


class Method(msgspec.Struct, frozen=True):
    """A row of the table: what a method takes and what it gives."""

    params: type[Struct]
    result: type[Struct]
    summary: str
    stream: bool = False
    """Whether `result` is the type of each event of a stream rather than of the one reply."""
    binary: bool = False
    """Whether the stream's events are binary frames that start with `result` as their header."""


METHODS: dict[str, Method] = {
    "daemon.status": Method(Nothing, DaemonStatus, "What is known of the daemon itself."),
    "daemon.shutdown": Method(Shutdown, Nothing, "End the daemon."),
    "dataflow.start": Method(Start, Started, "Start a dataflow."),
    "dataflow.wait": Method(Wait, DataflowState, "Wait for a point in a dataflow's life."),
    "dataflow.stop": Method(Stop, DataflowState, "Stop a dataflow and wait for its end."),
    "dataflow.restart": Method(Stop, Restarted, "Stop a dataflow and start it again."),
    "dataflow.list": Method(Nothing, DataflowList, "List dataflows."),
    "dataflow.info": Method(Ref, DataflowDetail, "Describe one dataflow."),
    "dataflow.clean": Method(Nothing, DataflowList, "Forget dataflows that have ended."),
    "dataflow.enable": Method(Enable, DataflowInfo, "Have a dataflow started at boot, or not."),
    "node.list": Method(Ref, NodeList, "List nodes; without a dataflow those of all that run."),
    "node.info": Method(NodeRef, NodeDetail, "Describe one node."),
    "node.add": Method(NodeAdd, Changed, "Add a node to a running dataflow."),
    "node.remove": Method(NodeStop, Changed, "Stop a node and take it out of its dataflow."),
    "node.replace": Method(NodeReplace, Changed, "Put another node in the place of one."),
    "node.connect": Method(EdgeNew, Changed, "Add an edge."),
    "node.disconnect": Method(EdgeRef, Changed, "Take an edge away."),
    "node.restart": Method(NodeStop, Nothing, "Restart a node, whatever its policy."),
    "node.stop": Method(NodeStop, Nothing, "Stop a node; it is not restarted."),
    "top": Method(Nothing, Top, "Measure all that runs."),
    "topic.list": Method(Ref, TopicList, "List outputs and who receives them."),
    "topic.watch": Method(TopicWatch, TopicRates, "Measure outputs.", stream=True),
    "topic.subscribe": Method(
        TopicSubscribe, TopicHeader, "Receive what outputs send.", stream=True, binary=True
    ),
    "topic.publish": Method(TopicPublish, Published, "Send on an output as its node would."),
    "param.list": Method(NodeRef, ParamList, "List a node's parameters."),
    "param.get": Method(ParamRef, Param, "Return one parameter."),
    "param.set": Method(ParamSet, Param, "Set a parameter and tell the node."),
    "param.delete": Method(ParamRef, Nothing, "Delete a parameter and tell the node."),
    "logs.read": Method(LogRead, LogLines, "Read, and follow, log lines.", stream=True),
    "watch": Method(Watch, Event, "Follow what happens.", stream=True),
}

ErrorCode = Literal[
    "bad-request",
    "unknown-method",
    "not-found",
    "ambiguous",
    "exists",
    "busy",
    "refused",
    "deadline",
    "cancelled",
    "unavailable",
    "too-large",
    "too-slow",
    "version",
    "unsupported",
    "internal",
]


class Error(Struct):
    """Why a request could not be answered: for programs `code`, for people the rest."""

    code: ErrorCode
    message: str
    hint: str | None = None
    problems: list[str] = []
    """For a dataflow that is not in order: one line for each problem."""


# -- frames ------------------------------------------------------------------------------------


class Hello(Struct):
    """The first frame from the client."""

    hello: str
    """Who speaks, such as `dora 0.1.0`."""
    protocol: int = PROTOCOL


class Welcome(Struct):
    """The first frame from the daemon."""

    welcome: str
    """Such as `dorad 0.1.0`."""
    protocol: int = PROTOCOL


class Request(Struct):
    """A call, or `cancel` of a stream. Ids are the client's; one that is in use is refused."""

    id: int
    method: str
    params: msgspec.Raw = msgspec.Raw(b"{}")


class Cancel(Struct):
    """The parameters of `cancel`: which of the running calls and streams to end."""

    id: int


class Reply(Struct, omit_defaults=True):
    """An answer, an event of a stream, or the end of one. Exactly one of the fields is set."""

    id: int | None
    """None where a frame could not even be understood."""
    result: Any = msgspec.UNSET
    event: Any = msgspec.UNSET
    end: bool = False
    """A stream is over; what is still on its way after `cancel` comes before it."""
    error: Error | None = None

"""The messages of the control API as plain structs: one request, one reply, or a stream of events.

Times are seconds since 1970 (UTC), durations are seconds, sizes are bytes, unless a name says
otherwise. A new field gets a default, so that older and newer programs understand each other;
`PROTOCOL` increases with every change that breaks this.
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec

PROTOCOL = 1
"""Version of this protocol, which both sides send in the handshake."""


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
    """The network in the network namespace of the daemon."""

    interfaces: list[Interface]
    defaults: list[str] = []
    """Default routes, the preferred first: `192.0.2.1 over eth0`."""


class DaemonStatus(Struct):
    """State of the daemon itself."""

    version: str
    protocol: int
    pid: int
    started_at: float
    dataflows: int
    """Number of running dataflows."""
    nodes: int
    """Number of running node processes."""
    state: str
    """Path of the state file."""
    adopted: int = 0
    """Nodes of a previous daemon that it has taken over."""
    notices: list[str] = []
    """Warnings for the administrator, such as a full disk or a state file that was set aside."""
    problem: str = ""
    """Why nodes cannot be started; empty if they can."""
    memory: int = 0
    """Resident bytes."""
    cpu: float = 0.0
    """Percent of one core, over the last seconds."""
    network: Network | None = None
    """The network as the daemon sees it; None while unknown."""


class Shutdown(Struct):
    """Stop the daemon. Refused with `busy` while dataflows run, unless `force` stops them first."""

    force: bool = False


# -- dataflows ---------------------------------------------------------------------------------

Status = Literal["starting", "running", "stopping", "finished", "failed"]


class Start(Struct):
    """Start a dataflow."""

    descriptor: dict[str, Any]
    """The parsed file, with variables in `env` expanded."""
    path: str
    """Absolute path of the file; relative paths in it are relative to its folder."""
    name: str | None = None
    """1 to 64 characters of `A-Z a-z 0-9 _ . -`, not starting with `-`; no other running dataflow
    may have it."""
    env: dict[str, str] = {}
    """Variables of `--env`. They override the dataflow's `env`; a node's `env` overrides them."""
    uv: bool = False
    allow_shell: bool = False
    exit_when_nodes_finish: bool | None = None
    hot_reload: bool = False
    """Whether operators are reloaded, and nodes restarted, when their Python files change."""


class Started(Struct):
    """The dataflow is accepted and its nodes are being started."""

    uuid: str
    name: str | None = None


class Ref(Struct):
    """A dataflow, by UUID or name; None means the only running one."""

    dataflow: str | None = None


Until = Literal["spawned", "running", "ended"]


class Wait(Struct):
    """Wait until a dataflow has reached a state: all nodes spawned, all nodes running, or its end.

    Fails with `deadline` after `timeout` seconds.
    """

    dataflow: str
    until: Until = "ended"
    timeout: float | None = None


class Failure(Struct):
    """One root cause: what failed, and the last lines that the node wrote to stderr."""

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
    """The state of a dataflow. The results are complete once it has ended."""

    uuid: str
    name: str | None
    status: Status
    results: list[NodeResult] = []
    failures: list[Failure] = []


class Stop(Struct):
    """Stop a dataflow and wait until it has ended."""

    dataflow: str | None = None
    grace: float | None = None
    """Seconds until SIGTERM; SIGKILL follows after half as many more. The default is 10."""
    force: bool = False
    """SIGKILL at once."""


class Restarted(Struct):
    """The dataflow has been started again, under a new UUID."""

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
    """Number of running node processes."""
    cpu: float
    """Percent of one core."""
    memory: int
    started_at: float
    ended_at: float | None = None
    enabled: bool = False
    """Whether it is started at boot."""


class Enable(Struct):
    """Choose whether a dataflow is started at boot. It needs a name."""

    dataflow: str | None = None
    """Running or ended, by UUID or name; None means the only running one."""
    enabled: bool = True


class DataflowList(Struct):
    """All running dataflows, and those that have ended and were not cleaned."""

    dataflows: list[DataflowInfo]


class DataflowDetail(Struct):
    """One dataflow with its descriptor and paths."""

    info: DataflowInfo
    descriptor: dict[str, Any]
    """The current descriptor, including changes since the start."""
    path: str
    log_dir: str
    changes: list[str] = []


# -- nodes -------------------------------------------------------------------------------------

NodeStatus = Literal["starting", "running", "degraded", "restarting", "failed", "stopped"]


class NodeMetrics(Struct):
    """Resources that a node and its child processes use."""

    cpu: float = 0.0
    """Percent of one core."""
    memory: int = 0
    disk_read: float = 0.0
    """Bytes a second."""
    disk_write: float = 0.0
    net_tx: float = 0.0
    """Payload bytes a second over TCP connections, if `net_known`."""
    net_rx: float = 0.0
    net_known: bool = False
    """Whether the network rates of this node can be measured."""


class NodeInfo(Struct):
    """The current state of one node."""

    dataflow: str
    dataflow_name: str | None
    node: str
    status: NodeStatus
    pid: int | None
    restarts: int
    metrics: NodeMetrics
    broken_inputs: list[str] = []
    pending: int = 0
    """Messages that wait in its inputs."""
    stamps_refused: int = 0
    """Received timestamps that were too far ahead and did not move the node's clock."""
    dynamic: bool = False
    started_at: float | None = None
    last_exit: str | None = None
    """Description of how its last process ended."""
    deadline_misses: int | None = None
    """Timer ticks that it handled after their deadline, or never; None without timers."""
    tick_delay: float | None = None
    """Mean seconds from a tick's due time until the node handles it, over the last seconds."""
    tick_jitter: float | None = None
    """Mean absolute difference of successive delays in seconds, over the last seconds."""
    tick_worst: float | None = None
    """Longest delay since the start, in seconds."""


class NodeRef(Struct):
    """One node of a dataflow."""

    node: str
    dataflow: str | None = None


class NodeList(Struct):
    """The nodes of one dataflow, or of all running dataflows."""

    nodes: list[NodeInfo]


class Subscriber(Struct):
    """An input that receives an output."""

    node: str
    input: str


class NodeDetail(Struct):
    """One node with its inputs, its outputs and its policies."""

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
    """The source of each input, as text."""
    outputs: dict[str, list[Subscriber]]
    realtime: str | None = None
    """Description of the real-time settings it requests from the kernel."""
    notes: list[str] = []
    """Requested settings that its process did not get, one line each."""


class NodeAdd(Struct):
    """Add a node to a running dataflow."""

    definition: dict[str, Any]
    """An entry of `nodes` with variables in `env` expanded. Relative paths are relative to the
    folder of the dataflow's file."""
    dataflow: str | None = None


class NodeReplace(Struct):
    """Replace a node by another one, which keeps its inputs and outputs."""

    node: str
    definition: dict[str, Any]
    """As in `node.add`, with the same `id` and the same inputs."""
    dataflow: str | None = None
    grace: float | None = None
    """Seconds until the old process gets SIGTERM. The default is 10."""


class NodeStop(Struct):
    """Stop, remove or restart a node."""

    node: str
    dataflow: str | None = None
    grace: float | None = None
    """Seconds until SIGTERM; SIGKILL follows after half as many more. The default is 10, for a
    restart 5."""


class EdgeRef(Struct):
    """One edge, as `node/output` and `node/input`."""

    source: str
    target: str
    dataflow: str | None = None


class EdgeNew(Struct):
    """A new edge, as `node/output` and `node/input`."""

    source: str
    target: str
    options: dict[str, Any] = {}
    """Options of the input, as in its long form in the file, such as `{"queue_size": 1}`."""
    dataflow: str | None = None


class Changed(Struct):
    """The result of a change to a running dataflow."""

    uuid: str
    changes: list[str]
    """How the descriptor now differs from the file it was started from."""


# -- what passes -------------------------------------------------------------------------------


class EdgeStats(Struct):
    """Counters of one edge: totals since the start, and rates over the last seconds."""

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
    """Mean seconds from sending to receiving; None while nothing has been received."""
    jitter: float | None
    """Mean absolute difference of the latencies of successive messages, in seconds."""
    broken: bool = False
    unreadable: int = 0
    """Received messages that were malformed; the node got an ERROR event for each."""


class InterfaceRates(Struct):
    """Current rates of a network interface, in bytes and packets a second."""

    name: str
    received: float
    sent: float
    dropped: float
    """Packets dropped or faulty, in both directions."""


class Top(Struct):
    """A snapshot of everything that `dora top` shows."""

    at: float
    window: float
    """Seconds over which rates and latencies are measured."""
    nodes: list[NodeInfo]
    edges: list[EdgeStats]
    interfaces: list[InterfaceRates] = []


class TopicInfo(Struct):
    """One output and its subscribers."""

    node: str
    output: str
    subscribers: list[Subscriber]
    type: str | None = None
    """The declared type; null if the file declares none."""


class TopicList(Struct):
    """The outputs of one dataflow."""

    dataflow: str
    topics: list[TopicInfo]


class TopicWatch(Struct):
    """Measure outputs: a stream with one `TopicRates` a second. No topics means all of them."""

    dataflow: str | None = None
    topics: list[str] = []
    window: int = 10
    """Seconds over which rates are measured."""


class TopicRate(Struct):
    """Rate and bandwidth of one output. Intervals are in ms, None if unknown."""

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
    """Number of intervals behind minimum, maximum and deviation."""


class TopicRates(Struct):
    """The rates of all watched outputs."""

    at: float
    rates: list[TopicRate]


class TopicSubscribe(Struct):
    """Receive the messages of outputs as binary frames. No topics means all of the dataflow."""

    dataflow: str | None = None
    topics: list[str] = []
    queue_size: int = 64
    """Messages kept for a slow reader, for each topic; newer ones displace older ones."""


class TopicHeader(Struct):
    """The header before the Arrow IPC stream in a binary frame."""

    stream: int
    """Id of the `topic.subscribe` request."""
    topic: str
    sequence: int
    """Counts the frames of this topic from 1."""
    dropped: int
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

    messages: int
    subscribers: int


# -- parameters --------------------------------------------------------------------------------


class ParamRef(Struct):
    """One parameter of a node."""

    node: str
    key: str
    dataflow: str | None = None


class ParamSet(Struct):
    """Set a parameter and notify the node. Refused if its declaration forbids the value."""

    node: str
    key: str
    value: Any
    dataflow: str | None = None


class Param(Struct):
    """A parameter with its current value and its declaration."""

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
    """Whether the running node was notified. If not, it gets the value when it starts."""


class ParamList(Struct):
    """The parameters of a node."""

    params: list[Param]


# -- logs and events ---------------------------------------------------------------------------


class LogRead(Struct):
    """Read log lines, and follow new ones. Times are seconds since 1970."""

    dataflow: str | None = None
    nodes: list[str] = []
    """Ids of nodes; empty means all nodes, and the daemon's own lines about the dataflow."""
    tail: int | None = None
    """Maximum number of matching lines, the newest of all chosen nodes together."""
    since: float | None = None
    until: float | None = None
    level: str | None = None
    by_node: dict[str, str] = {}
    """Minimum severity by node."""
    grep: str | None = None
    follow: bool = False


class LogLine(Struct):
    """One log line. `node` is None for a line of the daemon."""

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
    """Log lines, oldest first. `left_out` lines were dropped because the reader was too slow."""

    dataflow: str
    lines: list[LogLine]
    left_out: int = 0


class Watch(Struct):
    """Follow the events of dataflows: a stream of `Event`."""

    dataflow: str | None = None
    """None means all dataflows."""


class Event(Struct):
    """An event of a dataflow or of one of its nodes."""

    at: float
    dataflow: str
    what: str
    """`dataflow-starting` `dataflow-running` `dataflow-ended` `node-started` `node-exited`
    `node-restarting` `node-failed` `input-broken` `input-recovered` `param-changed`
    `topology-changed`, `network-changed` (which belongs to no dataflow); more may be added."""
    node: str | None = None
    text: str = ""
    """Details for people; may be empty."""
    data: dict[str, Any] = {}
    """Details for programs: `pid` and `restarts` of `node-started`; `code` and `signal` of
    `node-exited`; `after`, in seconds, of `node-restarting`; `input` and `source` of `input-broken`
    and `input-recovered`; `key` and `value` of `param-changed`; `change` of `topology-changed`."""


# -- the table of methods ----------------------------------------------------------------------


class Method(msgspec.Struct, frozen=True):
    """A method of the API: the types of its parameters and of its result."""

    params: type[Struct]
    result: type[Struct]
    summary: str
    stream: bool = False
    """Whether it is answered by a stream of events of the type `result`, not by one reply."""
    binary: bool = False
    """Whether the events are binary frames with `result` as their header."""


METHODS: dict[str, Method] = {
    "daemon.status": Method(Nothing, DaemonStatus, "Return the state of the daemon."),
    "daemon.shutdown": Method(Shutdown, Nothing, "Stop the daemon."),
    "dataflow.start": Method(Start, Started, "Start a dataflow."),
    "dataflow.wait": Method(Wait, DataflowState, "Wait until a dataflow has reached a state."),
    "dataflow.stop": Method(Stop, DataflowState, "Stop a dataflow and wait for its end."),
    "dataflow.restart": Method(Stop, Restarted, "Stop a dataflow and start it again."),
    "dataflow.list": Method(Nothing, DataflowList, "List dataflows."),
    "dataflow.info": Method(Ref, DataflowDetail, "Describe one dataflow."),
    "dataflow.clean": Method(
        Nothing, DataflowList, "Remove dataflows that have ended from the list."
    ),
    "dataflow.enable": Method(
        Enable, DataflowInfo, "Choose whether a dataflow is started at boot."
    ),
    "node.list": Method(Ref, NodeList, "List the nodes of one or all dataflows."),
    "node.info": Method(NodeRef, NodeDetail, "Describe one node."),
    "node.add": Method(NodeAdd, Changed, "Add a node to a running dataflow."),
    "node.remove": Method(NodeStop, Changed, "Stop a node and remove it from its dataflow."),
    "node.replace": Method(NodeReplace, Changed, "Replace a node by another one."),
    "node.connect": Method(EdgeNew, Changed, "Add an edge."),
    "node.disconnect": Method(EdgeRef, Changed, "Remove an edge."),
    "node.restart": Method(NodeStop, Nothing, "Restart a node, regardless of its restart policy."),
    "node.stop": Method(NodeStop, Nothing, "Stop a node without restarting it."),
    "top": Method(Nothing, Top, "Measure all running nodes and their edges."),
    "topic.list": Method(Ref, TopicList, "List outputs and their subscribers."),
    "topic.watch": Method(TopicWatch, TopicRates, "Measure outputs.", stream=True),
    "topic.subscribe": Method(
        TopicSubscribe, TopicHeader, "Receive the messages of outputs.", stream=True, binary=True
    ),
    "topic.publish": Method(
        TopicPublish, Published, "Send messages on an output as if its node did."
    ),
    "param.list": Method(NodeRef, ParamList, "List a node's parameters."),
    "param.get": Method(ParamRef, Param, "Return one parameter."),
    "param.set": Method(ParamSet, Param, "Set a parameter and notify the node."),
    "param.delete": Method(ParamRef, Nothing, "Delete a parameter and notify the node."),
    "logs.read": Method(LogRead, LogLines, "Read log lines, and follow new ones.", stream=True),
    "watch": Method(Watch, Event, "Follow the events of dataflows.", stream=True),
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
    """Why a request failed: `code` for programs, the rest for people."""

    code: ErrorCode
    message: str
    hint: str | None = None
    problems: list[str] = []
    """The problems of an invalid dataflow, one line each."""


# -- frames ------------------------------------------------------------------------------------


class Hello(Struct):
    """The first frame from the client."""

    hello: str
    """Name and version of the client, such as `dora 0.1.0`."""
    protocol: int = PROTOCOL


class Welcome(Struct):
    """The first frame from the daemon."""

    welcome: str
    """Name and version of the daemon, such as `dorad 0.1.0`."""
    protocol: int = PROTOCOL


class Request(Struct):
    """A request. The client chooses ids; one that is in use is refused."""

    id: int
    method: str
    params: msgspec.Raw = msgspec.Raw(b"{}")


class Cancel(Struct):
    """The parameters of `cancel`: the id of the call or stream to end."""

    id: int


class Reply(Struct, omit_defaults=True):
    """An answer, an event of a stream, or the end of one. Exactly one of the fields is set."""

    id: int | None
    """None if the id of the request could not be read."""
    result: Any = msgspec.UNSET
    event: Any = msgspec.UNSET
    end: bool = False
    """True at the end of a stream. After `cancel`, events that are under way still come before."""
    error: Error | None = None

"""Messages about the nodes of a dataflow, and about changes of its nodes and edges."""

from __future__ import annotations

from typing import Any, Literal

from dorad.control.messages.base import Nothing, Struct
from dorad.control.messages.dataflows import Ref, until_kill
from dorad.control.messages.method import CallMethod
from dorad.control.messages.shares import Update
from dorad.int64 import Int64

NodeStatus = Literal[
    "pending", "starting", "running", "degraded", "restarting", "failed", "stopped"
]


class NodeMetrics(Struct):
    """Resources that a node and its child processes use."""

    cpu: float = 0.0
    """Percent of one core."""
    memory: Int64 = 0
    disk_read: float = 0.0
    """Bytes a second."""
    disk_write: float = 0.0
    net_tx: float = 0.0
    """Payload bytes a second that were sent over TCP connections, if `net_known`."""
    net_rx: float = 0.0
    """The same for bytes that were received."""
    net_known: bool = False
    """Whether the network rates of this node can be measured."""


class InputWork(Struct):
    """How long a node worked on the messages of one input, since the dataflow or daemon started.

    The work on a message lasts from its receipt until the node asks for the next one. Only messages
    count whose hop records the daemon has read, see `trace.list`.
    """

    input: str
    topic: str
    """`node/output`; for a tick, the timer's `node/input`."""
    durations: list[Int64]
    """Number of messages by duration, as in `EdgeStats.latencies`."""
    seconds: float
    """Sum of all durations."""


class NodeInfo(Struct):
    """The current state of one node."""

    dataflow: str
    dataflow_name: str | None
    node: str
    status: NodeStatus
    pid: Int64 | None
    restarts: Int64
    metrics: NodeMetrics
    broken_inputs: list[str] = []
    pending: Int64 = 0
    """Messages that wait in the node's inputs."""
    stamps_refused: Int64 = 0
    """Received timestamps that were too far ahead and did not move the node's clock."""
    protocol: Int64 | None = None
    """The format of shared memory and packets that the node's process and the daemon use. None
    while no process is attached as this node."""
    dynamic: bool = False
    started_at: float | None = None
    last_exit: str | None = None
    """How the node's last process ended, in words."""
    last_error: str = ""
    """If the node has failed: what it wrote to stderr last, such as the error of a traceback."""
    ended_by: Literal["command", "inputs"] | None = None
    """Why a stopped node has ended: `node.stop`, or because all its inputs had closed. None if it
    ended by itself."""
    deadline_misses: Int64 | None = None
    """Timer ticks that the node handled after their deadline, or never; None without timers."""
    tick_delay: float | None = None
    """Mean seconds from a tick's due time until the node handles it, over the last seconds."""
    tick_jitter: float | None = None
    """Mean absolute difference of successive tick delays in seconds, over the last seconds."""
    tick_worst: float | None = None
    """Longest tick delay since the start, in seconds."""
    work: list[InputWork] = []
    secrets: list[str] = []
    """Names of the secrets that the node gets."""
    old_secrets: list[str] = []
    """Secrets that have changed since the node's process was started, which still has the old
    values."""
    machine: str | None = None
    """The machine of the node; only from a coordinator."""
    reason: str = ""
    """Why the node is `pending`: no machine takes it yet."""


class NodeRef(Struct):
    """One node of a dataflow."""

    node: str
    dataflow: str | None = None


class NodeList(Struct):
    """The nodes of one dataflow, or of all running dataflows."""

    nodes: list[NodeInfo]
    missing: dict[str, str] = {}
    """Machines that did not answer, with the reason; only from a coordinator."""


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
    max_restarts: Int64
    restart_delay: float | None
    max_restart_delay: float | None
    restart_window: float | None
    health_check_timeout: float | None
    startup_timeout: float | None
    inputs: dict[str, str]
    """The source of each input, as text."""
    outputs: dict[str, list[Subscriber]]
    realtime: str | None = None
    """The real-time settings that the node requests from the kernel, in words."""
    notes: list[str] = []
    """Requested settings that the node's process did not get, one line each."""


class NodeAdd(Struct):
    """Add a node to a running dataflow."""

    definition: dict[str, Any]
    """An entry of `nodes` with variables in `env` expanded. Relative paths are relative to the
    folder of the dataflow's file."""
    dataflow: str | None = None


class NodeReplace(Struct):
    """Replace a node by another one, which takes over its edges."""

    node: str
    definition: dict[str, Any]
    """An entry of `nodes` as in `node.add`, with the same `id` and the same inputs. If it is empty,
    the node keeps its definition."""
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
    """Remove an edge."""

    source: str
    """`node/output`."""
    target: str
    """`node/input`."""
    dataflow: str | None = None


class EdgeNew(Struct):
    """Add an edge."""

    source: str
    """`node/output`."""
    target: str
    """`node/input`."""
    options: dict[str, Any] = {}
    """Options of the input, as in its long form in the file: `{"queue_size": 1}`."""
    dataflow: str | None = None


class Changed(Struct):
    """The result of a change to a running dataflow."""

    uuid: str
    changes: list[str]
    """How the descriptor now differs from the file that the dataflow was started from."""


MAX_START_WAIT_S = 30.0
"""Maximum seconds that a change of a dataflow waits until the dataflow has started."""


def _change_seconds(params: NodeStop | NodeReplace) -> float:
    return until_kill(params.grace) + MAX_START_WAIT_S


def _start_seconds(_params: Struct) -> float:
    return MAX_START_WAIT_S


DATAFLOW_UPDATE = CallMethod(
    "dataflow.update", "operator", Update, Changed, "Change a running dataflow to a new descriptor."
)
NODE_LIST = CallMethod(
    "node.list", "viewer", Ref, NodeList, "List the nodes of one or all dataflows.", scope="any"
)
NODE_INFO = CallMethod(
    "node.info", "viewer", NodeRef, NodeDetail, "Describe one node.", scope="any"
)
NODE_ADD = CallMethod(
    "node.add",
    "operator",
    NodeAdd,
    Changed,
    "Add a node to a running dataflow.",
    seconds=_start_seconds,
    scope="placed",
)
NODE_REMOVE = CallMethod(
    "node.remove",
    "operator",
    NodeStop,
    Changed,
    "Stop a node and remove it from its dataflow.",
    seconds=_change_seconds,
    scope="placed",
)
NODE_REPLACE = CallMethod(
    "node.replace",
    "operator",
    NodeReplace,
    Changed,
    "Replace a node by another one.",
    seconds=_change_seconds,
    scope="placed",
)
NODE_CONNECT = CallMethod(
    "node.connect",
    "operator",
    EdgeNew,
    Changed,
    "Add an edge.",
    seconds=_start_seconds,
    scope="placed",
)
NODE_DISCONNECT = CallMethod(
    "node.disconnect",
    "operator",
    EdgeRef,
    Changed,
    "Remove an edge.",
    seconds=_start_seconds,
    scope="placed",
)
NODE_RESTART = CallMethod(
    "node.restart",
    "operator",
    NodeStop,
    Nothing,
    "Restart a node, regardless of its restart policy.",
    seconds=_change_seconds,
    scope="any",
    record="names",
)
NODE_STOP = CallMethod(
    "node.stop",
    "operator",
    NodeStop,
    Nothing,
    "Stop a node without restarting it.",
    seconds=_change_seconds,
    scope="any",
    record="names",
)

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
    pid: Int64 | None
    restarts: Int64
    metrics: NodeMetrics
    broken_inputs: list[str] = []
    pending: Int64 = 0
    """Messages that wait in its inputs."""
    stamps_refused: Int64 = 0
    """Received timestamps that were too far ahead and did not move the node's clock."""
    dynamic: bool = False
    started_at: float | None = None
    last_exit: str | None = None
    """Description of how its last process ended."""
    last_error: str = ""
    """If it has failed: what it wrote to stderr last, such as the error of a traceback."""
    ended_by: Literal["command", "inputs"] | None = None
    """Why a stopped node has ended: `node.stop`, or because all its inputs had closed; absent if
    it has ended by itself."""
    deadline_misses: Int64 | None = None
    """Timer ticks that it handled after their deadline, or never; None without timers."""
    tick_delay: float | None = None
    """Mean seconds from a tick's due time until the node handles it, over the last seconds."""
    tick_jitter: float | None = None
    """Mean absolute difference of successive delays in seconds, over the last seconds."""
    tick_worst: float | None = None
    """Longest delay since the start, in seconds."""
    secrets: list[str] = []
    """Names of the secrets that it gets."""
    old_secrets: list[str] = []
    """Those that have changed since its process was started: it still has the values before."""
    machine: str | None = None
    """The machine that it is on; only from a coordinator."""
    reason: str = ""
    """Why it is `pending`: no machine takes it yet."""


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
    """As in `node.add`, with the same `id` and the same inputs. An empty one keeps
    the present definition."""
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
)
NODE_REMOVE = CallMethod(
    "node.remove",
    "operator",
    NodeStop,
    Changed,
    "Stop a node and remove it from its dataflow.",
    seconds=_change_seconds,
)
NODE_REPLACE = CallMethod(
    "node.replace",
    "operator",
    NodeReplace,
    Changed,
    "Replace a node by another one.",
    seconds=_change_seconds,
)
NODE_CONNECT = CallMethod(
    "node.connect", "operator", EdgeNew, Changed, "Add an edge.", seconds=_start_seconds
)
NODE_DISCONNECT = CallMethod(
    "node.disconnect", "operator", EdgeRef, Changed, "Remove an edge.", seconds=_start_seconds
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

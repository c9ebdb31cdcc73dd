"""Messages about dataflows: start, wait, stop, list."""

from __future__ import annotations

from typing import Any, Literal

from dorad.control.messages.base import Nothing, Struct
from dorad.control.messages.method import CallMethod
from dorad.control.messages.shares import LinkPeer, Share
from dorad.int64 import Int64

Status = Literal["starting", "running", "stopping", "finished", "failed"]


class Start(Struct):
    """Start a dataflow."""

    descriptor: dict[str, Any]
    """The parsed file, with the variables in each `env` expanded."""
    path: str
    """Absolute path of the file. Relative paths in the file start in its folder."""
    name: str | None = None
    """1 to 64 characters of `A-Z a-z 0-9 _ . -`, not starting with `-` and not a UUID. No other
    running dataflow may have the name."""
    env: dict[str, str] = {}
    """Variables of `--env`. They override the dataflow's `env`; a node's `env` overrides them."""
    uv: bool = False
    allow_shell: bool = False
    exit_when_nodes_finish: bool | None = None
    hot_reload: bool = False
    """Whether operators are reloaded, and nodes restarted, when their Python files change."""
    uuid: str | None = None
    """The UUID of the run; by default the daemon draws one. The UUID of a run that has ended starts
    that run again."""
    share: Share | None = None
    """The part of the dataflow that this machine runs; None means all of it."""
    params: dict[str, dict[str, Any]] = {}
    """Parameters to begin with, by node and key, as if a command had set them. A run that is
    started again under its `uuid` keeps its own."""
    hold: float | None = None
    """Seconds for which the start barrier waits for `dataflow.open`; after that the start fails."""
    user_of: str | None = None
    """The UUID of a running dataflow. The nodes get the same user as its nodes; None means a user
    of their own."""


class Started(Struct):
    """The dataflow is accepted and its nodes are being started."""

    uuid: str
    name: str | None = None


class Ref(Struct):
    """A dataflow, by UUID or name; None means the only running one."""

    dataflow: str | None = None


Until = Literal["spawned", "ready", "running", "ended"]


class Wait(Struct):
    """Wait until a dataflow has reached a state: all nodes spawned, all nodes running, or its end.

    `ready` means that only `dataflow.open` is missing: all nodes wait at the start barrier, and all
    links to other machines are up. A dataflow that has ended has reached every state.

    Fails with `deadline` after `timeout` seconds. In the error of a coordinator, `problems` then
    lists the machines that the start waits for, with the reason.
    """

    dataflow: str
    until: Until = "ended"
    timeout: float | None = None


class Failure(Struct):
    """One root cause: which node failed and how, and the last lines that it wrote to stderr."""

    headline: str
    lines: list[str] = []


class NodeResult(Struct):
    """How a node ended."""

    node: str
    outcome: Literal["ok", "failed", "grace", "cascading"]
    """`grace`: the node was killed because it did not end in time. `cascading`: the start failed
    because another node ended before calling `Node()`."""
    reason: str
    code: Int64 | None = None
    signal: Int64 | None = None


class DataflowState(Struct):
    """The state of a dataflow. The results are complete once it has ended."""

    uuid: str
    name: str | None
    status: Status
    results: list[NodeResult] = []
    failures: list[Failure] = []
    ready: bool = False
    """Whether only `dataflow.open` is missing, see `dataflow.wait`."""
    links: dict[str, LinkPeer] = {}
    """The link to each other machine."""


class Stop(Struct):
    """Stop a dataflow and wait until it has ended."""

    dataflow: str | None = None
    grace: float | None = None
    """Seconds until SIGTERM; SIGKILL follows after half as many more. The default is 10."""
    force: bool = False
    """SIGKILL at once."""


class Restarted(Struct):
    """The runs before and after a restart: the daemon has started the dataflow under a new UUID."""

    old: str
    new: str
    name: str | None = None
    changes: list[str] = []
    """How the descriptor differs from the file that the dataflow was started from: `added node x`,
    ..."""


class DataflowInfo(Struct):
    """A row of the list of dataflows."""

    uuid: str
    name: str | None
    status: Status
    nodes: Int64
    """Number of running node processes."""
    cpu: float
    """Percent of one core."""
    memory: Int64
    started_at: float
    ended_at: float | None = None
    enabled: bool = False
    """Whether the dataflow is started at boot."""
    interrupted: bool = False
    """Whether the dataflow ended only because its daemon or the machine did."""
    links: dict[str, LinkPeer] = {}
    """The link to each other machine."""
    strangers: str = ""
    """Which connections to the port of the dataflow's links were closed in the last minute, and
    why."""
    machines: list[str] = []
    """The machines that the dataflow runs on; only from a coordinator."""
    why: str = ""
    """Why the dataflow, or a node of it, has failed, with the line of stderr that shows the
    reason."""

    @property
    def active(self) -> bool:
        """Whether it has not ended."""
        return self.status in ("starting", "running", "stopping")


class Enable(Struct):
    """Choose whether a dataflow is started at boot. It needs a name."""

    dataflow: str | None = None
    """Running or ended, by UUID or name. None means the only running one, or the latest one that
    has ended if none runs."""
    enabled: bool = True


class DataflowList(Struct):
    """All running dataflows, and those that have ended since the last `dataflow.clean`."""

    dataflows: list[DataflowInfo]
    missing: dict[str, str] = {}
    """Machines that did not answer, with the reason; only from a coordinator."""


class DataflowDetail(Struct):
    """One dataflow with its descriptor and paths."""

    info: DataflowInfo
    descriptor: dict[str, Any]
    """The current descriptor, including changes since the start."""
    path: str
    log_dir: str
    changes: list[str] = []
    """How the descriptor differs from the file that the dataflow was started from."""
    placement: dict[str, str] = {}
    """The machine of each node; only from a coordinator."""
    pending: dict[str, str] = {}
    """Nodes that no machine takes yet, with the reason; only from a coordinator."""
    params: dict[str, dict[str, Any]] = {}
    """Parameters that were set since the start, by node and key; not from a coordinator."""


_DEFAULT_GRACE = 10.0
"""Seconds from a stop's beginning to SIGTERM when a request gives none."""


def until_kill(grace: float | None) -> float:
    """Return the seconds until SIGKILL of nodes that do not end."""
    return 1.5 * (_DEFAULT_GRACE if grace is None else grace)


def _wait_seconds(params: Wait) -> float | None:
    return params.timeout


def _stop_seconds(params: Stop) -> float:
    return 0.0 if params.force else until_kill(params.grace)


DATAFLOW_START = CallMethod("dataflow.start", "operator", Start, Started, "Start a dataflow.")
DATAFLOW_OPEN = CallMethod(
    "dataflow.open", "operator", Ref, Nothing, "Open the start barrier that `hold` keeps closed."
)
DATAFLOW_WAIT = CallMethod(
    "dataflow.wait",
    "viewer",
    Wait,
    DataflowState,
    "Wait until a dataflow has reached a state.",
    seconds=_wait_seconds,
    scope="any",
)
DATAFLOW_STOP = CallMethod(
    "dataflow.stop",
    "operator",
    Stop,
    DataflowState,
    "Stop a dataflow and wait for its end.",
    seconds=_stop_seconds,
    scope="placed",
)
DATAFLOW_RESTART = CallMethod(
    "dataflow.restart",
    "operator",
    Stop,
    Restarted,
    "Stop a dataflow and start it again.",
    seconds=_stop_seconds,
    scope="placed",
)
DATAFLOW_LIST = CallMethod("dataflow.list", "viewer", Nothing, DataflowList, "List dataflows.")
DATAFLOW_INFO = CallMethod(
    "dataflow.info", "viewer", Ref, DataflowDetail, "Describe one dataflow.", scope="any"
)
DATAFLOW_CLEAN = CallMethod(
    "dataflow.clean",
    "operator",
    Nothing,
    DataflowList,
    "Remove dataflows that have ended from the list, and return them.",
)
DATAFLOW_ENABLE = CallMethod(
    "dataflow.enable",
    "operator",
    Enable,
    DataflowInfo,
    "Choose whether a dataflow is started at boot.",
    scope="placed",
)

"""Messages for operators who watch many robots: one row a robot, alerts, and a reduced `top`.

A daemon answers them for its own machine, a coordinator for all robots.
"""

from __future__ import annotations

from typing import Literal

from dorad.control.messages.base import Struct
from dorad.control.messages.method import CallMethod, StreamMethod
from dorad.control.messages.topics import Top
from dorad.int64 import Int64

Severity = Literal["warn", "fail"]

RowState = Literal["ok", "busy", "update", "unreach", "warn", "fail"]
"""How a robot is. `unreach`: nothing is known of it now. `update`: its software is being changed
on purpose. `busy`: it must not be disturbed."""


class Finding(Struct):
    """Something that is wrong on a robot now."""

    cause: str
    """The kind of the problem, for programs: `node-failed`, `input-broken`, ..."""
    subject: str
    """The dataflow, node or input with the problem. `cause` and `subject` together identify the
    finding."""
    text: str
    """The problem for people, without the name of the robot."""
    severity: Severity
    since: float
    dataflow: str | None = None
    """The name of the dataflow, or its UUID."""
    node: str | None = None
    brief: str = ""
    """The text without figures, for several robots; empty if `text` has no figures."""
    event: bool = False
    """Whether the finding is an event, such as a crash, and not a state that may pass."""
    hint: str = ""
    """The next step, for people."""
    error: str = ""
    """If a node failed: the line of stderr that shows the reason, such as its exception."""


class FleetRow(Struct):
    """One robot in brief."""

    robot: str
    state: RowState = "ok"
    """`unreach`: the state of the robot is unknown. `update`: its software is being changed.
    `busy`: it must not be interrupted."""
    why: str = ""
    """The first of the robot's findings, or why the robot is not `ok`."""
    since: float | None = None
    """Since when the worst finding lasts. Without findings: when `state` or `why` changed."""
    dataflow: str = ""
    """The dataflows that run, or are ordered to run, separated by commas."""
    release: str = ""
    """The release of the robot's dataflow, if it has one."""
    instances: list[str] = []
    """From a coordinator: the instances over several machines that the robot belongs to,
    `cell1/pick`."""
    nodes: Int64 = 0
    """Number of nodes of the robot's running dataflows."""
    running: Int64 = 0
    """Number of these nodes that run."""
    stopped: list[str] = []
    """Nodes that a command has stopped, as `dataflow/node`."""
    known: bool = True
    """Whether the figures are current."""
    cpu: float = 0.0
    """Percent of the whole machine."""
    memory: float = 0.0
    """Percent of the memory that is in use."""
    drops: float = 0.0
    """Dropped messages a second, over all edges."""
    seen_at: float | None = None
    """When the robot reported last, by the clock of the daemon or coordinator that answers."""
    labels: dict[str, str] = {}
    version: str = ""
    findings: list[Finding] = []


class FleetWatch(Struct):
    """Follow the robots: first all rows, then those that have changed."""

    interval: float = 1.0
    """Minimum seconds between two events, 0.2 to 3600."""


class FleetRows(Struct):
    """Rows that are new or have changed."""

    at: float
    rows: list[FleetRow]
    removed: list[str] = []
    """Robots that are no longer in the fleet."""
    whole: bool = False
    """Whether these are all rows, as in the first event."""


class Alert(Struct):
    """One cause that needs an operator."""

    id: str
    severity: Severity
    text: str
    robots: list[str]
    """The robots with this cause; at most 100 are named."""
    count: Int64
    """Number of robots."""
    since: float
    cause: str
    dataflow: str | None = None
    node: str | None = None
    flapping: Int64 = 0
    """How often the alert has come back, if at least 3 times; else 0."""
    acked_by: str = ""
    """The user who has acknowledged the alert; empty before that."""
    acked_at: float | None = None
    hint: str = ""
    """The next step, for people."""


class AlertWatch(Struct):
    """Follow the alerts: all of them, whenever one changes."""

    interval: float = 1.0
    """Minimum seconds between two events, 0.2 to 3600."""


class Alerts(Struct):
    """All alerts, the worst and newest first."""

    at: float
    alerts: list[Alert]


class PastAlert(Alert, kw_only=True):
    """An alert that is over."""

    until: float
    """When the alert ended."""


class PastAlertsRead(Struct):
    """Return the alerts that are over."""

    limit: Int64 = 100
    """Maximum number of alerts. A coordinator keeps the last 200, a daemon the last 200 since its
    start."""


class PastAlerts(Struct):
    """Alerts that are over, the last one first."""

    alerts: list[PastAlert]


class AlertAck(Struct):
    """Acknowledge an alert, or withdraw the acknowledgement. The alert stays until its cause is
    gone."""

    id: str
    undo: bool = False


TopOrder = Literal["name", "cpu", "memory", "rate", "drops", "latency", "worst"]


class TopWatch(Struct):
    """Measure nodes and edges again and again, and return a part of them."""

    order: TopOrder = "name"
    """What to sort nodes and edges by."""
    limit: Int64 = 0
    """Maximum number of nodes, and of edges; 0 sets no limit."""
    filter: str = ""
    """Terms such as `cpu>50` or `node=camera`, see docs/console.md."""
    interval: float = 1.0
    """Seconds between two events, 0.2 to 3600."""
    dataflow: str | None = None
    """Only nodes and edges of this dataflow, by UUID or name."""
    machine: str | None = None
    """Only those on this robot."""


class TopPart(Struct):
    """The chosen part of a measurement."""

    top: Top
    nodes: Int64
    """Number of nodes that match, including those beyond the limit."""
    edges: Int64
    """Number of edges that match, including those beyond the limit."""


TOP_WATCH = StreamMethod(
    "top.watch",
    "viewer",
    TopWatch,
    TopPart,
    "Measure nodes and edges again and again.",
    scope="any",
)
FLEET_WATCH = StreamMethod(
    "fleet.watch", "viewer", FleetWatch, FleetRows, "Follow the robots.", report=True
)
ALERTS_WATCH = StreamMethod("alerts.watch", "viewer", AlertWatch, Alerts, "Follow the alerts.")
ALERTS_PAST = CallMethod(
    "alerts.past", "viewer", PastAlertsRead, PastAlerts, "Return the alerts that are over."
)
ALERTS_ACK = CallMethod("alerts.ack", "operator", AlertAck, Alert, "Acknowledge an alert.")

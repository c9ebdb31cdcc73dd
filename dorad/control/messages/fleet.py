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
    """What kind of trouble, for programs: `node-failed`, `input-broken`, ..."""
    subject: str
    """What it is about: a dataflow, a node or an input. With `cause` it identifies the finding."""
    text: str
    """For people, without the name of the robot."""
    severity: Severity
    since: float
    dataflow: str | None = None
    """Name of the dataflow, or its UUID."""
    node: str | None = None
    brief: str = ""
    """The text without figures, for several robots; empty if `text` has none."""
    event: bool = False
    """Whether it is an event, such as a crash, and not a state that may pass."""


class FleetRow(Struct):
    """One robot in brief."""

    robot: str
    state: RowState = "ok"
    why: str = ""
    """The first of its findings, or why it is not `ok`."""
    since: float | None = None
    """When `state` or `why` changed."""
    dataflow: str = ""
    """The dataflows that run, or are ordered to run, separated by commas."""
    release: str = ""
    """The release of its dataflow, if it has one."""
    nodes: Int64 = 0
    """Nodes of its running dataflows."""
    running: Int64 = 0
    """Those of them that run."""
    stopped: list[str] = []
    """Nodes that a command has stopped, `dataflow/node`."""
    known: bool = True
    """Whether the figures are those of now."""
    cpu: float = 0.0
    """Percent of the whole machine."""
    memory: float = 0.0
    """Percent of the memory that is in use."""
    drops: float = 0.0
    """Dropped messages a second, over all edges."""
    seen_at: float | None = None
    """When it reported last, by the server's clock."""
    labels: dict[str, str] = {}
    version: str = ""
    findings: list[Finding] = []


class FleetWatch(Struct):
    """Follow the robots: first all rows, then those that have changed."""

    interval: float = 1.0
    """Minimum seconds between two events, from 0.2 on."""


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
    """Where; at most 100 of them are named."""
    count: Int64
    """Number of robots."""
    since: float
    cause: str
    dataflow: str | None = None
    node: str | None = None
    flapping: Int64 = 0
    """How often it has come back; 0 for one that stays."""
    acked_by: str = ""
    """The user who has acknowledged it; empty before that."""
    acked_at: float | None = None


class AlertWatch(Struct):
    """Follow the alerts: all of them, whenever one changes."""

    interval: float = 1.0
    """Minimum seconds between two events, from 0.2 on."""


class Alerts(Struct):
    """All alerts, the worst and newest first."""

    at: float
    alerts: list[Alert]


class PastAlert(Alert, kw_only=True):
    """An alert that is over."""

    until: float
    """When it was over."""


class PastAlertsRead(Struct):
    """Read the alerts that are over."""

    limit: Int64 = 100
    """Maximum number of alerts; a server keeps the last 200, a daemon those since its start."""


class PastAlerts(Struct):
    """Alerts that are over, the last one first."""

    alerts: list[PastAlert]


class AlertAck(Struct):
    """Acknowledge an alert, or withdraw the acknowledgement. It stays until its cause is gone."""

    id: str
    undo: bool = False


TopOrder = Literal["name", "cpu", "memory", "rate", "drops", "latency"]


class TopWatch(Struct):
    """Measure nodes and edges again and again, reduced on the server."""

    order: TopOrder = "name"
    limit: Int64 = 0
    """Maximum number of nodes, and of edges; 0 sets no limit."""
    filter: str = ""
    """Terms such as `cpu>50` or `node=camera`; see docs/console.md."""
    interval: float = 1.0
    """Seconds between two events, from 0.2 on."""
    dataflow: str | None = None
    """Only of this one, by UUID or name."""
    machine: str | None = None
    """Only on this robot; for a coordinator."""


class TopPart(Struct):
    """The chosen part of a measurement."""

    top: Top
    nodes: Int64
    """Number of nodes that match, with those beyond the limit."""
    edges: Int64
    """The same for edges."""


TOP_WATCH = StreamMethod(
    "top.watch",
    "viewer",
    TopWatch,
    TopPart,
    "Measure nodes and edges again and again.",
    scope="any",
)
FLEET_WATCH = StreamMethod(
    "fleet.watch", "viewer", FleetWatch, FleetRows, "Follow the robots in brief.", report=True
)
ALERTS_WATCH = StreamMethod("alerts.watch", "viewer", AlertWatch, Alerts, "Follow the alerts.")
ALERTS_PAST = CallMethod(
    "alerts.past", "viewer", PastAlertsRead, PastAlerts, "Return the alerts that are over."
)
ALERTS_ACK = CallMethod("alerts.ack", "operator", AlertAck, Alert, "Acknowledge an alert.")

"""Messages about log lines and events."""

from __future__ import annotations

from typing import Any

from dorad.control.messages.base import Struct
from dorad.control.messages.method import StreamMethod
from dorad.int64 import Int64
from dorad.logrecord import LogRecord


class LogRead(Struct):
    """Read log lines, and follow new ones. Times are seconds since 1970."""

    dataflow: str | None = None
    nodes: list[str] = []
    """Ids of nodes. Empty means all nodes, and the daemon's own lines about the dataflow."""
    tail: Int64 | None = None
    """Maximum number of matching lines: the newest ones of all chosen nodes together."""
    since: float | None = None
    until: float | None = None
    level: str | None = None
    """Minimum severity."""
    by_node: dict[str, str] = {}
    """Other minimum severities, by node."""
    grep: str | None = None
    """Only lines whose message contains this text, in any case."""
    follow: bool = False
    machine: str | None = None
    """Only lines of this machine, from a coordinator."""


class LogLines(Struct):
    """Log lines, the oldest first."""

    dataflow: str
    lines: list[LogRecord]
    left_out: Int64 = 0
    """Number of lines that are missing because they were too long, or the reader too slow."""
    skew: dict[str, float] = {}
    """Machines whose clocks are wrong, with the seconds that they are ahead; only from a
    coordinator."""


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
    `topology-changed`, or `network-changed`, which belongs to no dataflow. Newer daemons may send
    others."""
    node: str | None = None
    text: str = ""
    """Details for people; may be empty."""
    machine: str | None = None
    """The machine of the event; only from a coordinator."""
    data: dict[str, Any] = {}
    """Details for programs: `pid` and `restarts` of `node-started`; `code` and `signal` of
    `node-exited`; `after`, in seconds, and `failed` of `node-restarting`; `input` and `source` of
    `input-broken` and `input-recovered`; `key` and `value` of `param-changed`; `change` of
    `topology-changed`."""


LOGS_READ = StreamMethod(
    "logs.read", "viewer", LogRead, LogLines, "Read log lines, and follow new ones."
)
WATCH = StreamMethod(
    "watch", "viewer", Watch, Event, "Follow the events of dataflows.", scope="any"
)

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
    """Ids of nodes; empty means all nodes, and the daemon's own lines about the dataflow."""
    tail: Int64 | None = None
    """Maximum number of matching lines, the newest of all chosen nodes together."""
    since: float | None = None
    until: float | None = None
    level: str | None = None
    by_node: dict[str, str] = {}
    """Minimum severity by node."""
    grep: str | None = None
    follow: bool = False
    machine: str | None = None
    """Only lines of this machine; only for a coordinator."""


class LogLines(Struct):
    """Log lines, oldest first. `left_out` more were too long, or the reader was too slow."""

    dataflow: str
    lines: list[LogRecord]
    left_out: Int64 = 0
    skew: dict[str, float] = {}
    """Seconds that the clocks of machines are ahead, of those that are off; from a coordinator."""


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
    machine: str | None = None
    """The machine that it is on; only from a coordinator."""
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

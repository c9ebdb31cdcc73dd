"""Messages about traces: what became of one message and of all that nodes sent because of it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

from dorad.control.messages.base import Nothing, Struct
from dorad.control.messages.method import CallMethod, StreamMethod
from dorad.int64 import Int64, clamped


class TraceLink(Struct):
    """Another message that a node received in the same synchronised set."""

    topic: str
    age: float
    """Seconds by which this message was sent earlier than the message of the span."""
    trace_id: str = ""
    """The trace that this message is part of; empty from an older daemon."""
    stamp: Int64 = 0
    """The message's timestamp in ns."""


class Span(Struct):
    """What one input of a node did with one message. Times are seconds after the trace's start."""

    topic: str
    """The topic of the message: `node/output`; for a tick, the timer's `node/input`."""
    node: str
    """The receiver; empty while no node has received the message."""
    input: str
    sent: float
    parent: Int64 | None = None
    """The index in `spans` of the span during which the message was sent; None at the beginning."""
    tick: bool = False
    """Whether the message is the tick of a timer."""
    received: float | None = None
    """None if the message was dropped, or still waits."""
    done: float | None = None
    """When the receiver asked for its next message; None if it has not yet."""
    wait: float = 0.0
    """Seconds between sending and receiving in which the receiver was busy with something else."""
    queued: Int64 = 0
    """Number of messages that were left in the queue behind this one."""
    bytes: Int64 = 0
    """Size of the message's array."""
    outcome: Literal["", "dropped", "failed", "ended"] = ""
    """`failed`: the receiver's process failed while it worked on the message. `ended`: that process
    exited without a failure."""
    links: list[TraceLink] = []
    stamp: Int64 = 0
    """The message's timestamp in ns, which identifies it among those of its topic; 0 from an older
    daemon."""
    context: str = ""
    """The trace context of OpenTelemetry that the message carries: the ids of a trace and a span in
    hexadecimal, with `-` between them."""
    remote: bool = False
    """Whether the message came from another machine."""
    machine: str | None = None
    """The machine of the receiver, in a trace over several."""


class TraceClock(Struct):
    """The clock of a machine in a trace over several."""

    offset: float
    """Seconds by which this clock is ahead of that of the machine where the trace begins, as the
    trace uses it."""
    measured: float | None = None
    """The same as links have measured it; None if they have not. `offset` differs from it if a
    message would otherwise have arrived before it was sent."""
    margin: float = 0.0
    """The true value differs from `measured` by at most so many seconds."""


class TraceOrigin(Struct):
    """The machine from which the first message of a trace came over a link."""

    machine: str
    clock: float | None = None
    """Seconds by which the clock of that machine is ahead of this machine's, as the link measures
    it now. None while that is unknown."""
    margin: float = 0.0
    """The true value differs from `clock` by at most so many seconds."""


class TraceGap(Struct):
    """A missing part of a trace: what another machine did before or after a message."""

    topic: str
    stamp: Int64
    """The message's timestamp in ns."""
    machine: str = ""
    """The machine of the part; empty if that is unknown."""
    incoming: bool = False
    """Whether the missing part is the one before the message, with which the trace begins here."""


class Trace(Struct):
    """One message that no other caused, or one tick, and all that followed from it."""

    id: str
    """32 hexadecimal digits."""
    dataflow: str
    start: float
    duration: float
    """Seconds until the last receiver on `path` was done."""
    path: str
    """The path that took longest: `camera/tick → camera → detector`."""
    span_count: Int64
    dropped: Int64 = 0
    failed: Int64 = 0
    cut: bool = False
    """Whether the beginning of the trace is unknown: its hop records were lost or skipped."""
    running: bool = False
    """Whether a node is still working on a message of the trace."""
    left_out: Int64 = 0
    """Spans beyond the maximum of one trace."""
    spans: list[Span] = []
    """Each span after its parent. Empty in a list, unless the request asks for `spans`."""
    machine: str | None = None
    """The machine of the trace; only from a coordinator. None if it is over several."""
    dataflow_name: str | None = None
    origin: TraceOrigin | None = None
    """None if the trace begins on this machine. From a coordinator it is set only if the part
    before this one is missing."""
    gaps: list[TraceGap] = []
    """Parts on other machines that are missing; only from a coordinator, or of recordings. A
    machine keeps its part if a request asks for it before the machine has forgotten it."""
    clocks: dict[str, TraceClock] = {}
    """In a trace over several machines: the clock of each, by which its times were converted to
    those of the first machine."""


class TraceCounts(Struct):
    """How many hop records were read, and what became of those that were not."""

    records: Int64 = 0
    overwritten: Int64 = 0
    """Records that newer ones had overwritten before they were read."""
    skipped: Int64 = 0
    """Records that were not read because there were more than the daemon reads in a second."""
    damaged: Int64 = 0
    """Invalid records: a process was killed while it wrote them, or has overwritten them."""
    unknown: Int64 = 0
    """Records of an input or output that the dataflow does not have, or no longer has."""
    drops: Int64 = 0
    """Dropped messages that belong to no known trace."""
    contexts: Int64 = 0
    """Messages whose trace context of OpenTelemetry is invalid, or has an unknown form."""

    @classmethod
    def total(cls, counts: Iterable[TraceCounts]) -> TraceCounts:
        """Return the sums of counts."""
        known = [*counts]
        names = cls.__struct_fields__
        return cls(**{name: clamped(sum(getattr(each, name) for each in known)) for name in names})


class TraceMessage(Struct):
    """A message, identified by its topic and its timestamp in ns."""

    topic: str
    stamp: Int64


class TraceQuery(Struct):
    """List traces of messages, the newest first."""

    dataflow: str | None = None
    id: str = ""
    """Only traces whose id begins like this."""
    through: list[str] = []
    """Only traces that have passed all of these: nodes, or outputs as `node/output`."""
    slow: bool = False
    """Return the slowest first."""
    troubled: bool = False
    """Only traces in which a message was dropped or a node failed."""
    min_duration: float = 0.0
    """Only traces that took at least so many seconds."""
    limit: Int64 = 20
    """Maximum number of traces, at most 20000."""
    spans: bool = False
    """Whether to return the spans of each trace, too."""
    messages: list[TraceMessage] = []
    """If not empty: only traces with one of these messages. A daemon then keeps those that go over
    a link, because another machine keeps its part of them."""


class TraceList(Struct):
    """The chosen traces, and what is missing among them."""

    traces: list[Trace]
    counts: TraceCounts
    left_out: Int64 = 0
    """Traces beyond the limit."""
    missing: dict[str, str] = {}
    """Machines that did not answer, with the reason; only from a coordinator."""


class TracePath(Struct):
    """All messages that took one path, since the dataflow started. Times are seconds."""

    dataflow: str
    path: str
    count: Int64
    p50: float
    """Half of the messages took at most so many seconds, true within an eighth."""
    p99: float
    """99 of 100 messages took at most so many seconds, true within an eighth."""
    worst: float
    """No message took more seconds."""
    wait: float
    """The share of their time, 0 to 1, in which the messages waited for receivers that were busy
    with something else."""
    work: float
    """The share in which nodes worked on the messages."""
    transport: float
    """The share in which the messages were on their way to receivers that were not busy."""
    worst_id: str
    """The id of the slowest trace."""
    machine: str | None = None
    dataflow_name: str | None = None
    kept_only: bool = False
    """Whether these figures are of kept traces only. They are if the path is over several machines,
    each of which counts its own part."""


class TracePathQuery(Struct):
    """Summarise the traces of each path, of one dataflow or of all."""

    dataflow: str | None = None
    through: list[str] = []
    """Only paths that pass all of these nodes."""


class TracePaths(Struct):
    """Paths, the one with the largest p99 first."""

    paths: list[TracePath]
    counts: TraceCounts
    left_out: Int64 = 0
    """Messages on paths beyond the maximum number."""
    missing: dict[str, str] = {}


class TraceBatch(Struct):
    """Traces for an exporter of telemetry, with their spans."""

    traces: list[Trace] = []
    left_out: Int64 = 0
    """Traces before these that were dropped because the exporter was too slow."""


class TraceSample(Struct):
    """Set how many traces exporters of telemetry get, until the daemon ends."""

    source: str = ""
    """What the traces begin with: a node, or its output or timer as `node/name`. An empty name sets
    all sources, also those that were set before."""
    rate: float | None = 1.0
    """Traces a second of each output or timer, 0 to 10000. Exporters get slow traces, and those in
    which a message was dropped or a node failed, besides these. None: not even those."""


class TraceSampling(Struct):
    """How many traces exporters of telemetry get."""

    rates: dict[str, float | None]
    """Traces a second by source, as in `trace.sample`. An empty name stands for all other
    sources."""
    exporters: Int64 = 0
    """Number of exporters that get traces now."""


TRACE_LIST = CallMethod(
    "trace.list", "viewer", TraceQuery, TraceList, "List traces of messages, the newest first."
)
TRACE_PATHS = CallMethod(
    "trace.paths", "viewer", TracePathQuery, TracePaths, "Summarise the traces of each path."
)
TRACE_FOLLOW = StreamMethod(
    "trace.follow",
    "viewer",
    Nothing,
    TraceBatch,
    "Follow the traces that exporters of telemetry get, each when it is complete.",
)
TRACE_SAMPLE = CallMethod(
    "trace.sample",
    "operator",
    TraceSample,
    TraceSampling,
    "Set how many traces exporters of telemetry get, until the daemon ends.",
)

"""Messages about a dataflow over several machines: the share of one of them."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from msgspec import Meta

from dorad.control.messages.base import Struct
from dorad.int64 import Int64

Percent = Annotated[int, Meta(ge=0, le=100)]


class LinkTls(Struct):
    """Files (PEM) with which the link processes of a fleet authenticate each other."""

    ca: str
    certificate: str
    key: str


class Share(Struct):
    """The part of a dataflow that this machine runs, and how it reaches the other machines.

    The descriptor beside it is that of the whole dataflow.
    """

    machine: str
    """The id of this machine."""
    placement: dict[str, str]
    """The machine of each node that runs. A node that is missing runs nowhere yet."""
    listen: list[str] = []
    """Addresses at which the link process listens: `tls/0.0.0.0:5456`."""
    connect: list[str] = []
    """Addresses that the link process connects to: of other machines, or of a router."""
    connect_to: list[str] = []
    """The machine at each address of `connect`; empty with a router."""
    router: bool = False
    """Whether the link process connects to a router, which links all machines of the dataflow."""
    tls: LinkTls | None = None
    min_rates: dict[str, float] = {}
    """Minimum messages a second of outputs, by `node/output`. Below that there is an alert. An
    output with 0 may be silent."""

    @property
    def own_nodes(self) -> list[str]:
        """The nodes that are placed on this machine."""
        return [node for node, machine in self.placement.items() if machine == self.machine]


class LinkPeer(Struct):
    """The link of a dataflow to one other machine."""

    state: Literal["absent", "greeting", "up", "refused"]
    reason: str = ""
    """Why the link is not up."""
    round_trip_us: Int64 | None = None
    clock_us: Int64 | None = None
    """How far the clock of the other machine is ahead of this machine's, true within
    `clock_margin_us`."""
    clock_margin_us: Int64 = 0


class LineUse(Struct):
    """How an output uses the line to another machine, and how many messages wait for the line."""

    bytes_per_s: Int64
    """Bytes that were sent in the last second. All outputs of a dataflow share the line to a
    machine."""
    bytes_on_the_way: Int64
    """Bytes that were sent and not yet acknowledged."""
    waiting: Int64
    """Messages in the queue before the link."""
    dropped: Int64
    """Messages that this queue has dropped, because the link could not send them in time."""
    wait: Percent
    """Percent of the last second in which messages waited until earlier ones were acknowledged."""
    backpressure: bool
    """Whether the messages may wait for nodes of the other machine. If not, they wait for the line
    only."""


class LinkChannel(Struct):
    """A channel: an output on its way to, or from, one other machine. Counts are since the
    start."""

    output: str
    """`node/output`"""
    machine: str
    """The other machine."""
    outgoing: bool
    """Whether this machine sends."""
    messages: Int64
    """Messages that were sent, or received."""
    lost: Int64
    queued: Int64
    """Messages that wait for credit, or for room in the queue of a node."""
    latency_us: Int64 | None = None
    """Of an incoming channel: mean time from sending to delivery, over the last second."""
    problem: str = ""
    """Why the link to the other machine is not up; empty if it is."""
    dataflow: str = ""
    """The UUID of the channel's dataflow."""
    reporter: str | None = None
    """The machine that counts; only from a coordinator."""
    line: LineUse | None = None
    """Of an outgoing channel: its use of the line to the other machine; null if that is unknown."""


class Update(Struct):
    """Change a running dataflow to a new descriptor and placement.

    Nodes and edges that do not differ continue to run. Refused for a dataflow that was not started
    with a `share`.
    """

    dataflow: str
    descriptor: dict[str, Any]
    share: Share
    params: dict[str, dict[str, Any]] = {}
    """Parameters of nodes that are new on this machine, by node and key, as they were set
    elsewhere."""
    alive: list[str] = []
    """Nodes that must run after the change. Those that have ended are started again, except a node
    that would receive nothing, and one that exited with 0 while its inputs were open."""

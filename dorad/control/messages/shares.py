"""Messages about a dataflow over several machines: the share of one of them."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from msgspec import Meta

from dorad.control.messages.base import Struct
from dorad.int64 import Int64

Percent = Annotated[int, Meta(ge=0, le=100)]


class LinkTls(Struct):
    """Files with which the link processes of a fleet prove to each other who they are (PEM)."""

    ca: str
    certificate: str
    key: str


class Share(Struct):
    """Which part of a dataflow this machine runs, and how it reaches the other machines.

    The descriptor beside it is that of the whole dataflow.
    """

    machine: str
    """The id of this machine."""
    placement: dict[str, str]
    """The machine of each node that runs; a node that is missing runs nowhere yet."""
    listen: list[str] = []
    """Where the link process listens: `tls/0.0.0.0:5456`."""
    connect: list[str] = []
    """Where it connects to: other machines, or a router."""
    connect_to: list[str] = []
    """The machine at each address of `connect`; empty with a router."""
    router: bool = False
    """Whether it connects to a router, through which all machines of the dataflow are linked."""
    tls: LinkTls | None = None
    min_rates: dict[str, float] = {}
    """Messages per second that outputs `node/output` must have, or an alert says so; 0: it may be
    silent."""


class LinkPeer(Struct):
    """The link of a dataflow to one other machine."""

    state: Literal["absent", "greeting", "up", "refused"]
    reason: str = ""
    """Why it is not up."""
    round_trip_us: Int64 | None = None


class LineUse(Struct):
    """How an output uses the line to another machine, and what waits for it."""

    bytes_per_s: Int64
    """Sent in the last second; the outputs of a dataflow share the line to a machine."""
    bytes_on_the_way: Int64
    """Sent and not acknowledged."""
    waiting: Int64
    """Messages in the queue before the link."""
    dropped: Int64
    """Messages that this queue has dropped, because the link could not send them in time."""
    wait: Percent
    """How much of the last second messages waited for acknowledgements of earlier ones."""
    backpressure: bool
    """Whether they may wait for nodes of the other machine; otherwise they wait for the line."""


class LinkChannel(Struct):
    """An output on its way to, or from, one other machine. Counts are since the start."""

    output: str
    """`node/output`"""
    machine: str
    """The other machine."""
    outgoing: bool
    messages: Int64
    """Sent, or received."""
    lost: Int64
    queued: Int64
    """Messages that wait for credit, or for room in the queue of a node."""
    latency_us: Int64 | None = None
    """Only incoming: from sending to delivery, averaged over the last second."""
    problem: str = ""
    """Why the link to the other machine is not up; empty if it is."""
    dataflow: str = ""
    """The UUID of its dataflow."""
    reporter: str | None = None
    """The machine that counts; only from a coordinator."""
    line: LineUse | None = None
    """Only outgoing: its use of the line to the other machine; null if that is unknown."""


class Update(Struct):
    """Make a running dataflow what this descriptor and placement say.

    Nodes and edges that do not differ run on.
    """

    dataflow: str
    descriptor: dict[str, Any]
    share: Share
    params: dict[str, dict[str, Any]] = {}
    """By node: what was set elsewhere for a node that is new here."""
    alive: list[str] = []
    """Nodes that run after the change: those that have ended are started again, but one that
    finished by itself, with 0 while its inputs were open, and one that would receive nothing."""

"""What the supervisor needs from the broker and from the launcher of processes."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dorad.daemon.rules.health import Vitals
    from dorad.dataflow.model import Dataflow, Input, NodeSpec
    from dorad.launch.model import Exit


class EdgeCounters(Protocol):
    """What passed over one edge so far: sent = received + dropped + queued."""

    @property
    def source_node(self) -> str:
        """Who sends."""

    @property
    def output(self) -> str:
        """The sender's output."""

    @property
    def node(self) -> str:
        """Who receives."""

    @property
    def input(self) -> str:
        """The receiver's input."""

    @property
    def queue_size(self) -> int:
        """Messages the input keeps for a slow receiver."""

    @property
    def sent(self) -> int:
        """Messages pushed."""

    @property
    def received(self) -> int:
        """Messages taken."""

    @property
    def dropped(self) -> int:
        """Messages that newer ones displaced."""

    @property
    def queued(self) -> int:
        """Messages that wait."""

    @property
    def unreadable(self) -> int:
        """Messages taken that could not be read."""

    @property
    def limited(self) -> bool:
        """Whether the file asks for fewer messages than are sent."""


class Notifications(Protocol):
    """Sends events to nodes."""

    def open_barrier(self) -> None:
        """Let every `Node()` return, now and later."""

    def abort_start(self, reason: str) -> None:
        """Let every `Node()` raise, now and later."""

    def stop(self, node_id: str, reason: str) -> None:
        """Send STOP; a second one is not sent."""

    def stop_operator(self, node_id: str, operator: str, reason: str) -> None:
        """Send STOP to one operator of a node; a second one is not sent."""

    def reload(self, node_id: str, operator: str) -> None:
        """Let an operator load its file anew."""

    def close_input(self, node_id: str, input_id: str) -> None:
        """Send INPUT_CLOSED after whatever is queued."""

    def node_failed(self, node_id: str, source_node: str, error: str, input_ids: list[str]) -> None:
        """Send NODE_FAILED."""

    def node_restarted(self, node_id: str, source_node: str) -> None:
        """Send NODE_RESTARTED to `node_id`: a node that feeds it is being restarted."""

    def input_broken(self, node_id: str, input_id: str) -> None:
        """Send INPUT_CLOSED for a timeout."""

    def input_recovered(self, node_id: str, input_id: str) -> None:
        """Send INPUT_RECOVERED."""

    def ping(self, node_id: str) -> None:
        """Send a packet that means nothing, so that a node at rest shows that it reads."""


class Stats(Protocol):
    """Reads counters and signs of life."""

    def activity(self, node_id: str) -> int:
        """Return a number that changes whenever the node sends or receives."""

    def vitals(self, node_id: str) -> Vitals:
        """Return what there is to see of a node."""

    def counters(self) -> Sequence[EdgeCounters]:
        """Return the counters of every edge."""

    def input_counters(self, node_id: str, input_id: str) -> Sent:
        """Return the counters of one input that a node feeds."""


class Topology(Protocol):
    """Changes the nodes and edges of the dataflow."""

    async def add_node(self, node: NodeSpec, dataflow: Dataflow) -> None:
        """Make the mailbox of one more node, and connect it. Raises OSError: memory is full."""

    def remove_node(self, node_id: str) -> None:
        """Take a node that has ended out of the dataflow, with its edges."""

    def add_edge(self, consumer: str, entry: Input) -> None:
        """Add an input to a node that runs. Raises OSError: its mailbox or memory is full."""

    def remove_edge(self, consumer: str, input_id: str) -> None:
        """Take an input away from a node that runs."""

    def update(self, dataflow: Dataflow) -> None:
        """Take note of how the dataflow is now described."""


class Handovers(Protocol):
    """Passes the mailbox of a node to a replacement."""

    def begin(self, node_id: str, replacement: NodeSpec, dataflow: Dataflow) -> None:
        """Let a second process say hello as this node, which waits until the first has let go."""

    def end(self, node_id: str) -> bool:
        """End the handover; False if the second process did not get the place."""


class Broker(Protocol):
    """The mailboxes of a dataflow, as far as decisions act on them. Only topology takes time."""

    @property
    def notifications(self) -> Notifications:
        """Sends events to nodes."""

    @property
    def stats(self) -> Stats:
        """Reads counters and signs of life."""

    @property
    def topology(self) -> Topology:
        """Changes the nodes and edges of the dataflow."""

    @property
    def handovers(self) -> Handovers:
        """Passes the mailbox of a node to a replacement."""

    def node_config(self, node_id: str) -> str:
        """Return the text of DORA_NODE_CONFIG."""

    def detach(self, node_id: str) -> None:
        """Take note that the node's process is gone for good."""

    def released(self, node_id: str) -> None:
        """Take note that the node's process is gone and that another one will take its place."""

    def restarting(self, node_id: str, restart_count: int) -> None:
        """Give the next process of the node this restart count."""

    def reopen(self, node_id: str) -> None:
        """Forget that the node was told to stop: its next process was not."""


class Sent(Protocol):
    """Of an edge's counters what only grows."""

    @property
    def sent(self) -> int:
        """Messages pushed."""


class Started(Protocol):
    """A node's process."""

    @property
    def pid(self) -> int:
        """Its process id."""

    def signal(self, sig: int) -> None:
        """Send `sig` to the whole process group; nothing happens after its end."""

    async def wait(self) -> Exit:
        """Return how the process ended, once all it wrote has been read."""

    @property
    def stderr(self) -> tuple[str, ...]:
        """The last lines it wrote to stderr."""


StartNode = Callable[["NodeSpec", str, int], Awaitable[Started]]
"""Starts the process of a node, given its DORA_NODE_CONFIG and how many it had before. Raises
LaunchError."""

Notice = Callable[[str, "str | None", str], None]
"""Tells the user something about the run: level, the node it is about, one sentence."""

Event = Callable[[str, "str | None", str, dict[str, Any]], None]
"""Tells programs that something happened: what (see the control API), to which node, in words, and
in figures."""

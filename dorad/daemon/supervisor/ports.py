"""The interfaces that the supervisor calls: broker, process launcher, and reporting functions.

`dorad.daemon.broker` implements `Broker` and documents each method. The supervisor does not import
it, so tests can put a fake in its place.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dorad.daemon.rules.health import Vitals
    from dorad.dataflow.model import Dataflow, Input, NodeSpec
    from dorad.launch.model import Exit
    from dorad.logrecord import Level


class Received(Protocol):
    """The number of messages that the consumer of an edge has taken."""

    @property
    def node(self) -> str: ...
    @property
    def received(self) -> int: ...


class Sent(Protocol):
    """The number of messages that the producer of an edge has pushed."""

    @property
    def sent(self) -> int: ...


class Notifications(Protocol):
    """Sends events to nodes."""

    def open_barrier(self) -> None: ...
    def abort_start(self, reason: str) -> None: ...
    def stop(self, node_id: str, reason: str) -> None: ...
    def stop_operator(self, node_id: str, operator: str, reason: str) -> None: ...
    def close_input(self, node_id: str, input_id: str) -> None: ...
    def input_broken(self, node_id: str, input_id: str) -> None: ...
    def input_recovered(self, node_id: str, input_id: str) -> None: ...
    def node_failed(
        self, node_id: str, source_node: str, error: str, input_ids: list[str]
    ) -> None: ...
    def node_restarted(self, node_id: str, source_node: str, *, had_ended: bool = ...) -> None: ...
    def ping(self, node_id: str) -> None: ...


class Stats(Protocol):
    """Reads counters and signs of life from shared memory."""

    def activity(self, node_id: str) -> int: ...
    def vitals(self, node_id: str) -> Vitals: ...
    def pid(self, node_id: str) -> int | None: ...
    def counters(self) -> Sequence[Received]: ...
    def input_counters(self, node_id: str, input_id: str) -> Sent: ...


class Topology(Protocol):
    """Changes the nodes and edges of the dataflow."""

    async def add_node(self, node: NodeSpec, dataflow: Dataflow) -> None: ...
    def remove_node(self, node_id: str) -> None: ...
    def add_edge(self, consumer: str, entry: Input) -> None: ...
    def remove_edge(self, consumer: str, input_id: str) -> None: ...
    def update(self, dataflow: Dataflow) -> None: ...


class Handovers(Protocol):
    """Passes the mailbox of a node to a replacement."""

    def begin(self, node_id: str, replacement: NodeSpec, dataflow: Dataflow) -> None: ...
    def end(self, node_id: str) -> bool: ...


class Broker(Protocol):
    """The part of a dataflow's broker that the supervisor uses."""

    @property
    def notifications(self) -> Notifications: ...
    @property
    def stats(self) -> Stats: ...
    @property
    def topology(self) -> Topology: ...
    @property
    def handovers(self) -> Handovers: ...

    def node_config(self, node_id: str) -> str: ...
    def has_refused(self, node_id: str) -> bool: ...
    def restarting(self, node_id: str, restart_count: int) -> None: ...
    def reopen(self, node_id: str) -> None: ...
    def released(self, node_id: str) -> None: ...
    def detach(self, node_id: str) -> None: ...


class RunningProcess(Protocol):
    """The process of a node."""

    @property
    def pid(self) -> int:
        """Its process id."""

    def signal(self, sig: int) -> None:
        """Send `sig` to the whole process group; do nothing after the process has exited."""

    async def exited(self) -> Exit:
        """Return how the process exited. Its output is still read, even if this is cancelled."""

    async def wait(self) -> Exit:
        """Return how the process exited, once all its output has been read.

        If this is cancelled, only the output that has arrived is read.
        """

    @property
    def stderr(self) -> tuple[str, ...]:
        """The last lines it wrote to stderr."""


StartNode = Callable[["NodeSpec", str, int], Awaitable[RunningProcess]]
"""Starts the process of a node. Takes the node, its DORA_NODE_CONFIG and its restart count. Raises
LaunchError."""

CheckProgram = Callable[["NodeSpec", "Dataflow"], None]
"""Checks that the program of a new node can be started. Raises DataflowError."""

Report = Callable[["Level", "str | None", str], None]
"""Reports to the user: log level, the node concerned if any, one sentence."""

PublishEvent = Callable[[str, "str | None", str, dict[str, Any]], None]
"""Publishes an event of the control API: kind, node, text, data."""

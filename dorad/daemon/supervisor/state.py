"""The state of one running dataflow, shared by the parts of its supervisor."""

from collections.abc import Callable, Iterable
from typing import Any, Protocol

from msgspec import Struct, field

from dorad.bell import Bell
from dorad.daemon.broker.broker import Broker
from dorad.daemon.rules.actions import Action
from dorad.daemon.rules.exits import Result
from dorad.daemon.rules.lifecycle import Lifecycle
from dorad.daemon.storing import Changes
from dorad.daemon.supervisor.noderun import NodeRun
from dorad.dataflow.model import Dataflow, NodeSpec
from dorad.logrecord import Level


class RunListener(Protocol):
    """Learns what happens in a dataflow, and knows its programs; the run does."""

    def report(self, level: Level, node: str | None, text: str) -> None:
        """Report one sentence to the user, about a node if any."""

    def note(self, node: str, text: str) -> None:
        """Report a setting that a node's process could not be given."""

    def publish(self, what: str, node: str | None, text: str, data: dict[str, Any]) -> None:
        """Publish an event of the control API."""

    def check_program(self, node: NodeSpec, after: Dataflow) -> None:
        """Check that the program of a new node can be started. Raises DataflowError."""

    def topology_changed(self, after: Dataflow) -> None:
        """Handle a change of the dataflow's nodes or edges by a command."""


class SupervisorState(Struct, eq=False):
    """One running dataflow: its lifecycle, its nodes, and who learns of it."""

    lifecycle: Lifecycle
    broker: Broker
    listener: RunListener
    changes: Changes
    """Learns when the supervisor's snapshot has changed."""
    nodes: dict[str, NodeRun]
    carry_out: Callable[[Iterable[Action]], None]
    """Carries out what the lifecycle decided."""
    results: list[Result] = field(default_factory=list)
    """In the order of the nodes' ends."""
    kill_reason: str = ""
    """Why all processes are killed, including ones being started; empty if they are not."""
    late: frozenset[str] = frozenset()
    """Nodes that had not called `Node()` when the time was over that the dataflow had to run."""
    finished: bool = False
    """Whether the dataflow has ended."""
    bell: Bell = field(default_factory=Bell)
    """Rings at every change."""

    def changed(self) -> None:
        """Wake all tasks that wait for a change, and request to store the snapshot."""
        self.bell.ring()
        self.changes.changed()

    def publish(self, what: str, node: str | None, text: str = "", **data: Any) -> None:
        """Publish an event to the watchers of the control API."""
        self.listener.publish(what, node, text, data)

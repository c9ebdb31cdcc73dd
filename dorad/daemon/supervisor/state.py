"""The state of one running dataflow, shared by the parts of its supervisor."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from msgspec import Struct, field

from dorad.bell import Bell

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from dorad.daemon.rules.actions import Action
    from dorad.daemon.rules.exits import Result
    from dorad.daemon.rules.lifecycle import Lifecycle
    from dorad.daemon.supervisor.noderun import NodeRun
    from dorad.daemon.supervisor.ports import Broker, PublishEvent, Report


class SupervisorState(Struct, eq=False):
    """One running dataflow: its lifecycle, its nodes, and its reporting functions."""

    lifecycle: Lifecycle
    broker: Broker
    report: Report
    """Reports something to the user."""
    publish_event: PublishEvent
    nodes: dict[str, NodeRun]
    on_change: Callable[[], None]
    """Called when the supervisor's snapshot has changed."""
    carry_out: Callable[[Iterable[Action]], None]
    """Carries out what the lifecycle decided."""
    results: list[Result] = field(default_factory=list)
    """In the order of the nodes' ends."""
    kill_reason: str = ""
    """Why all processes are killed, including ones being started; empty if they are not."""
    finished: bool = False
    """Whether the dataflow has ended."""
    bell: Bell = field(default_factory=Bell)
    """Rings at every change."""

    def changed(self) -> None:
        """Wake all tasks that wait for a change, and request to store the snapshot."""
        self.bell.ring()
        self.on_change()

    def publish(self, what: str, node: str | None, text: str = "", **data: Any) -> None:
        """Publish an event to the watchers of the control API."""
        self.publish_event(what, node, text, data)

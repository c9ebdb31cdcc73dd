"""The inputs of one operator: its share of the node's inputs and of the daemon's events."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

from dorad.node.nodeinputs import NodeInputs, Watched
from dorad.node.runtime.inprocess import InProcessInput
from dorad.shm.stepping import NO_STAMP

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from dorad.node.connection import DaemonConnection
    from dorad.node.daemonevents import DaemonEvents
    from dorad.node.inputs import Input
    from dorad.node.runtime.scheduler import OperatorScheduler
    from dorad.shm.spin import Spin


class Inbox(NodeInputs):
    """The inputs of one operator. Without a scheduler, it is the only operator of its process."""

    def __init__(
        self,
        connection: DaemonConnection,
        daemon_events: DaemonEvents,
        inputs: Sequence[Input],
        spin: Spin,
        make_input: Callable[[dict[str, Any]], Input],
        scheduler: OperatorScheduler | None,
    ) -> None:
        super().__init__(connection, daemon_events, inputs, spin, make_input)
        self._scheduler = scheduler
        self.gate = threading.Lock()
        """The operator waits by acquiring it; the scheduler releases it to wake the operator."""
        self.gate.acquire()

    def may_have_event(self) -> bool:
        """Return True if a poll may find an event, or the end."""
        connection = self.connection
        if connection.has_mail():
            connection.read_mail()
        if self._must_hold():
            return connection.packets_handled != self._packets
        return (
            connection.packets_handled != self._packets
            or connection.lost
            or (not self._stopped and self._has_daemon_events())
            or any(item.moved() for item in self._order)
        )

    def next_stamp(self) -> int:
        """Return the timestamp of the next message, 0 if an event of the daemon comes first."""
        if not self._stopped and self._has_daemon_events():
            return 0
        return min((item.next_stamp() for item in self._order), default=NO_STAMP)

    def _has_daemon_events(self) -> bool:
        daemon_events = self._daemon_events
        ending = bool(daemon_events.endings) and not self._must_wait(daemon_events.endings[0])
        return ending or bool(daemon_events.urgent)

    def close(self) -> None:
        """Accept no more messages: the operator has ended."""
        for item in self._order:
            if isinstance(item, InProcessInput):
                item.close()

    def wait(self, deadline: int | None, only: Watched | None = None) -> None:
        """See `NodeInputs`."""
        if self._scheduler is None:
            super().wait(deadline, only)
        else:
            self._scheduler.wait(self)

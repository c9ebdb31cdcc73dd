"""What one operator receives: its own inputs of the node, and the daemon's words about it."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

from dorad.node.receiver import Receiver
from dorad.node.runtime.handed import HandedInput

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from dorad.node.connection import DaemonConnection
    from dorad.node.daemonevents import DaemonEvents
    from dorad.node.inputs import RingInput, TimerInput
    from dorad.node.runtime.scheduler import OperatorScheduler
    from dorad.shm.spin import Spin

    Served = RingInput | TimerInput | HandedInput


class Inbox(Receiver):
    """The receiver of one operator. Without a hall it is the only one, and waits by itself."""

    def __init__(
        self,
        connection: DaemonConnection,
        daemon_events: DaemonEvents,
        inputs: Sequence[Served],
        spin: Spin,
        make_input: Callable[[dict[str, Any]], Served],
        scheduler: OperatorScheduler | None,
    ) -> None:
        super().__init__(connection, inputs, spin, make_input)  # type: ignore[arg-type]  # see below
        # A HandedInput has what a receiver asks of its inputs, but no ring to look at.
        self._daemon_events = daemon_events
        self._scheduler = scheduler
        self.gate = threading.Lock()
        """Released when it is to look again; whoever waits acquires it."""
        self.gate.acquire()

    def has_something(self) -> bool:
        """Tell whether a look may find an event, or the end."""
        connection = self._connection
        if connection.has_mail():
            connection.read_mail()
        daemon_events = self._daemon_events
        return (
            connection.packets_handled != self._packets
            or connection.lost
            or (not self._stopped and self._has_events(daemon_events))
            or any(item.moved() for item in self._order)
        )

    def _has_events(self, daemon_events: DaemonEvents) -> bool:
        ending = bool(daemon_events.endings) and not self._must_wait(daemon_events.endings[0])
        return ending or bool(daemon_events.urgent)

    def due_ns(self) -> int | None:
        """Return when the next tick is due, on CLOCK_MONOTONIC."""
        return self._due_ns(None)

    def close(self) -> None:
        """Take nothing any more: the operator has ended."""
        for item in self._order:
            if isinstance(item, HandedInput):
                item.close()

    def _wait(self, deadline: int | None, only: list[tuple[int, int]] | None = None) -> None:
        if self._scheduler is None:
            super()._wait(deadline, only)
        else:
            self._scheduler.wait(self)

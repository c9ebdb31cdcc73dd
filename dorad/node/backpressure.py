"""How a sender waits for room in queues with backpressure."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from dorad.shm import doorbell
from dorad.shm.fence import fence

if TYPE_CHECKING:
    from collections.abc import Callable

    from dorad.node.connection import DaemonConnection
    from dorad.shm.outlet import Outlet

_log = logging.getLogger(__name__)

POLL_NS = 100_000_000
"""How often a sender that waits for room checks for packets of the daemon."""


class Backpressure:
    """Waits for room, for one sender."""

    def __init__(self, connection: DaemonConnection, beat: Callable[[], None]) -> None:
        """`beat` counts a heartbeat while the sender waits."""
        self._connection = connection
        self._beat = beat
        self._waiter: doorbell.Waiter | None = None

    def has_room(self, outlet: Outlet, outlets: tuple[Outlet, ...]) -> bool:
        """Block until a ring with backpressure has room; return False if the node stops first.

        `outlets` are all receivers of the message: those that have it already are woken first.
        """
        if not outlet.full():
            return True
        fence()
        for other in outlets:
            other.peer.wake()
        connection = self._connection
        _log.debug("waiting for room in a queue of %d messages", outlet.queue_size)
        if self._waiter is None:
            self._waiter = doorbell.Waiter(connection.space, [connection.descriptor])
        try:
            while not outlet.closed:
                outlet.announce_waiting(True)
                if not outlet.blocking or not outlet.full():
                    return True
                if connection.daemon_events.stopping or connection.lost:
                    outlet.refuse()
                    return False
                self._beat()
                self._waiter.wait(POLL_NS)
                connection.read_mail()
        finally:
            outlet.announce_waiting(False)
            if connection.late_outputs:
                # This message is already being sent: late subscribers are served before the next.
                connection.mail = -1
        return False

"""Create the rings and timers of a node's inputs from the daemon's descriptions."""

from __future__ import annotations

import functools
import logging
from typing import TYPE_CHECKING, Any, Protocol

from dorad.node import logbridge
from dorad.node.correlation import session_of
from dorad.node.daemonevents import origin_of
from dorad.node.inputs import RingInput, TimerInput
from dorad.node.peers import ring_at
from dorad.shm.inlet import Inlet
from dorad.shm.lane import LanedInlet
from dorad.shm.layout import RING_LATCHED, RingPlan

if TYPE_CHECKING:
    from dorad.node.choosing import SyncGroup
    from dorad.node.clock import Clock
    from dorad.node.connection import DaemonConnection
    from dorad.shm.picking import PickingInlet

_log = logging.getLogger(__name__)


class InputTypes(Protocol):
    """The declared types of inputs; see `dorad.node.typecheck.TypeChecks`."""

    def input(self, input_id: str, source: str | None, inlet: Inlet, clock: Clock) -> RingInput:
        """See `TypeChecks.input`."""


class InputFactory:
    """Creates the inputs of one node or operator."""

    def __init__(
        self,
        connection: DaemonConnection,
        clock: Clock,
        epoch_ns: int,
        types: InputTypes | None,
    ) -> None:
        """Timers tick in multiples of their interval after `epoch_ns`."""
        self._connection = connection
        self._clock = clock
        self._epoch_ns = epoch_ns
        self._types = types
        self._groups: dict[str, SyncGroup] = {}

    def __call__(self, item: dict[str, Any]) -> RingInput | TimerInput:
        """Return the ring or timer that the daemon describes as `item`.

        Raises:
            LayoutError: a peer has overwritten the ring's words in the mailbox.
        """
        _log.debug("input %s: %s", item["id"], item)
        connection = self._connection
        ring = ring_at(connection.box.words, item["ring"])
        if item["interval_ns"] is not None:
            deadline_ns = connection.config.get("deadline_ns")
            interval_ns = item["interval_ns"]
            return TimerInput(
                item["id"], connection.box, ring, interval_ns, self._epoch_ns, deadline_ns
            )
        space = connection.spaces.get(item["source"]) if item["blocking"] else None
        if connection.box.words[ring.base + RING_LATCHED]:
            from dorad.shm.latch import LatchedInlet  # few inputs are latched

            return self._selecting(
                item, LatchedInlet(connection.box, ring, connection.segments, space)
            )
        if "max_rate_hz" in item or "sync" in item:
            from dorad.shm.picking import PickingInlet  # few inputs select

            return self._selecting(
                item, PickingInlet(connection.box, ring, connection.segments, space)
            )
        return self._plain(item, self._inlet(ring, space, item["id"]))

    def _plain(self, item: dict[str, Any], inlet: Inlet) -> RingInput:
        if self._types is not None:
            return self._types.input(item["id"], origin_of(item), inlet, self._clock)
        return RingInput(item["id"], inlet, self._clock)

    def _selecting(self, item: dict[str, Any], inlet: PickingInlet) -> RingInput:
        served = self._plain(item, inlet)
        if "max_rate_hz" not in item and "sync" not in item:
            return served
        from dorad.node import choosing

        return choosing.make(item, served, inlet, self._clock, self._groups)

    def _inlet(self, ring: RingPlan, space: int | None, input_id: str) -> Inlet:
        connection = self._connection
        if not ring.lane:
            return Inlet(connection.box, ring, connection.segments, space)
        inlet = LanedInlet(connection.box, ring, connection.segments, space)
        inlet.session_of = session_of
        inlet.on_lost = functools.partial(_report_lost, connection.config["node_id"], input_id)
        return inlet


def _report_lost(node_id: str, input_id: str, lost: int) -> None:
    text = (
        f"input `{input_id}`: {lost} messages with a request_id or goal_id were dropped: the queue "
        "is full of newer ones; read faster, or give the input a larger `queue_size`"
    )
    logbridge.emit(logbridge.line(node_id, "error", text, None, None))

"""What a simulated robot does about orders of releases: it has all files, every switch works."""

import asyncio
import time
from collections.abc import Callable

from msgspec import structs

from dorad.control.errors import ControlError
from dorad.control.messages.releases import ReleaseOrder, ReleasePhase, ReleaseState
from dorad.control.session import Call

STAGE_S = 0.5
SWITCH_S = 0.5
PROBATION_S = 2.0


class SimulatedReleases:
    """The releases of one robot. They survive its connections."""

    def __init__(self, report: Callable[[str], None]) -> None:
        self._report = report
        self.states: dict[str, ReleaseState] = {}
        self._orders: dict[str, ReleaseOrder] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}

    async def order(self, call: Call, params: ReleaseOrder) -> ReleaseState:
        """Store an order, and carry it out in the background."""
        known = self._orders.get(params.dataflow)
        number = (params.epoch, params.generation)
        if known is not None and number < (known.epoch, known.generation):
            raise ControlError("conflict", f"generation {params.generation} is old")
        if known is None or number != (known.epoch, known.generation):
            self._orders[params.dataflow] = params
            task = self._tasks.get(params.dataflow)
            if task is None or task.done():
                carrying_out = asyncio.create_task(self._carry_out(params.dataflow))
                self._tasks[params.dataflow] = carrying_out
        return self._state(params.dataflow)

    def _state(self, dataflow: str) -> ReleaseState:
        order = self._orders[dataflow]
        known = self.states.get(dataflow) or ReleaseState(
            dataflow=dataflow, epoch=0, generation=0, phase="pending", since=time.time(), release=""
        )
        return structs.replace(
            known,
            epoch=order.epoch,
            generation=order.generation,
            release=order.release or "",
            rollout=order.rollout,
        )

    async def _carry_out(self, dataflow: str) -> None:
        done = None
        while done is not (order := self._orders[dataflow]):
            done = order
            state = self._state(dataflow)
            if not order.release or order.release == state.running:
                self._become(dataflow, "confirmed", running=order.release or "")
                continue
            if state.phase != "staged":
                await asyncio.sleep(STAGE_S)
                self._become(dataflow, "staged")
            if self._orders[dataflow] is order and order.switch:
                self._become(dataflow, "switching")
                await asyncio.sleep(SWITCH_S)
                self._become(dataflow, "probation", running=order.release)
                await asyncio.sleep(PROBATION_S)
                self._become(dataflow, "confirmed", confirmed=order.release)

    def _become(self, dataflow: str, phase: ReleasePhase, **fields: str) -> None:
        self.states[dataflow] = structs.replace(
            self._state(dataflow), phase=phase, since=time.time(), **fields
        )
        self._report(dataflow)

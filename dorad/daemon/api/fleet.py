"""The methods `fleet.watch`, `alerts.…` and `top.watch` of a daemon: one row, for this machine."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

from dorad.control import messages as m
from dorad.control.errors import ControlError
from dorad.control.naming import ended
from dorad.control.rowdeltas import RowDeltas
from dorad.control.session import HandlerTable
from dorad.control.topparts import interval, reduction

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from dorad.control.server import Call
    from dorad.daemon.measuring.measure import Measure
    from dorad.daemon.measuring.watching import SelfWatch
    from dorad.daemon.registry import Registry


class FleetMethods:
    """Answers the methods for operators."""

    def __init__(self, registry: Registry, measure: Measure, watch: SelfWatch) -> None:
        self._registry = registry
        self._measure = measure
        self._watch = watch

    @property
    def table(self) -> HandlerTable:
        """The handler of each method."""
        table = HandlerTable()
        table.stream(m.TOP_WATCH, self.top)
        table.stream(m.FLEET_WATCH, self.rows)
        table.stream(m.ALERTS_WATCH, self.alerts)
        table.call(m.ALERTS_PAST, self.past_alerts)
        table.call(m.ALERTS_ACK, self.ack)
        return table

    async def rows(self, _call: Call, params: m.FleetWatch) -> AsyncIterator[m.FleetRows]:
        """Yield the row of this machine, whenever it changes."""
        deltas = RowDeltas()
        pause = interval(params)
        while True:
            row = self._watch.row
            event = None if row is None else deltas.take([row])
            if event is not None:
                yield event
                await asyncio.sleep(pause)
            else:
                await self._watch.bell.wait()

    async def alerts(self, _call: Call, params: m.AlertWatch) -> AsyncIterator[m.Alerts]:
        """Yield all alerts, whenever one changes."""
        sent: list[m.Alert] | None = None
        pause = interval(params)
        while True:
            alerts = self._watch.book.alerts()
            if alerts != sent:
                sent = alerts
                yield m.Alerts(at=time.time(), alerts=alerts)
                await asyncio.sleep(pause)
            else:
                await self._watch.bell.wait()

    async def past_alerts(self, _call: Call, params: m.PastAlertsRead) -> m.PastAlerts:
        """Return the alerts that are over."""
        return m.PastAlerts(alerts=self._watch.past.latest(params.limit))

    async def ack(self, call: Call, params: m.AlertAck) -> m.Alert:
        """Record who has acknowledged an alert."""
        who = call.peer.name or f"user {call.peer.uid}"
        return self._watch.ack(params.id, who, undo=params.undo)

    async def top(self, _call: Call, params: m.TopWatch) -> AsyncIterator[m.TopPart]:
        """Yield the chosen part of each measurement, until the dataflow has ended."""
        record = None if params.dataflow is None else self._registry.find(params.dataflow)
        params.dataflow = None if record is None else record.uuid
        if params.machine not in (None, own := self._watch.robot):
            message = f"no robot is called {params.machine!r}; this one is `{own}`"
            raise ControlError("not-found", message)
        params.machine = None
        reduce = reduction(params)
        while True:
            if record is not None and not record.running:
                raise ended(record)
            yield reduce(self._measure.top())
            await asyncio.sleep(interval(params))

"""Methods of a fleet that a daemon has, too, for its machine: rows, curves, alerts, `top.watch`."""

import asyncio
import time
from collections.abc import AsyncIterator

from dorad.control import messages as m
from dorad.control.errors import ControlError
from dorad.control.naming import ended
from dorad.control.rowdeltas import RowDeltas
from dorad.control.session import Call, handles
from dorad.control.topparts import interval, reduction
from dorad.daemon.measuring.measure import Measure
from dorad.daemon.measuring.watching import SelfWatch
from dorad.daemon.registry import Registry


class FleetMethods:
    """Answers the methods for operators."""

    def __init__(self, registry: Registry, measure: Measure, watch: SelfWatch) -> None:
        self._registry = registry
        self._measure = measure
        self._watch = watch

    @handles(m.FLEET_WATCH)
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

    @handles(m.ROBOT_HISTORY)
    async def history(self, _call: Call, _params: m.RobotHistoryQuery) -> m.RobotHistory:
        """Return the last ten minutes of this machine."""
        return m.RobotHistory(robots={self._watch.robot: self._measure.whole_history()})

    @handles(m.ALERTS_WATCH)
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

    @handles(m.ALERTS_PAST)
    async def past_alerts(self, _call: Call, params: m.PastAlertsRead) -> m.PastAlerts:
        """Return the alerts that are over."""
        return m.PastAlerts(alerts=self._watch.past.latest(params.limit))

    @handles(m.ALERTS_ACK)
    async def ack(self, call: Call, params: m.AlertAck) -> m.Alert:
        """Record who has acknowledged an alert."""
        who = call.peer.name or f"user {call.peer.uid}"
        return self._watch.ack(params.id, who, undo=params.undo)

    @handles(m.TOP_WATCH)
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

"""Follow the coordinator that leads: measurements of the whole fleet, for collectors."""

from __future__ import annotations

import asyncio
import logging
import time
from typing import TYPE_CHECKING

from opentelemetry.sdk.resources import Resource

from dorad.control.asyncclient import AsyncClient
from dorad.control.errors import ControlError
from dorad.telemetry.exporter import MAX_POINTS
from dorad.telemetry.instruments import Own
from dorad.telemetry.metrics import point_count
from dorad.telemetry.otlp import metrics_export
from dorad.telemetry.resources import base_resource
from dorad.telemetry.sender import Delivery, Sender
from dorad.telemetry.service import log_change
from dorafleet.coordinator.loadmessages import FLEET_LOAD, FleetLoadQuery, FleetLoads
from dorafleet.telemetry.figures import INSTANCE, ROBOT, choose, fleet_metrics

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from opentelemetry.sdk.metrics.export import MetricsData

    from dorad.control.target import Targets
    from dorad.telemetry.settings import TelemetrySettings

RETRY_S = 2.0
STALE = 3
"""Intervals after which a measurement is not served any more."""
NAME = "dorafleet-telemetry"

_log = logging.getLogger(__name__)


class FleetExporter:
    """Measures a fleet again and again, and sends what it measures."""

    def __init__(
        self,
        targets: Targets,
        settings: TelemetrySettings,
        labels: Sequence[str],
        environ: Mapping[str, str],
    ) -> None:
        """`targets` are the coordinators, of which one leads; `labels` are keys to add up by.

        Raises:
            TelemetryError: a standard variable has a value that cannot be used.
        """
        self._targets = targets
        self._interval = settings.interval
        self._by = (ROBOT, INSTANCE, *labels)
        self._resource = base_resource(environ).merge(Resource({"service.name": "dorafleet"}))
        self._began = time.time_ns()
        self._latest: tuple[float, Mapping[str, FleetLoads]] | None = None
        self._left_out: dict[str, int] = {}
        self._metrics: Sender[MetricsData] | None = None
        if (endpoint := settings.endpoints.get("metrics")) is not None:
            self._metrics = Sender(
                "metrics",
                endpoint,
                metrics_export(endpoint),
                log_change,
                limit=MAX_POINTS,
                batch=1,
            )

    @property
    def deliveries(self) -> dict[str, Delivery]:
        """How the sending goes."""
        return {} if self._metrics is None else {"metrics": self._metrics.delivery}

    def close(self, seconds: float) -> dict[str, Delivery]:
        """Send what waits, for at most so long, and return how that went."""
        if self._metrics is not None:
            self._metrics.close()
            self._metrics.join(seconds)
        return self.deliveries

    async def follow(self) -> None:
        """Measure until cancelled, on each coordinator that leads meanwhile."""
        reachable = True
        while True:
            try:
                async with AsyncClient(self._targets, name=NAME) as client:
                    _log.info("connected to %s", client.daemon)
                    reachable = True
                    while True:
                        await self._measure(client)
                        await asyncio.sleep(self._interval)
            except ControlError as error:
                if reachable:
                    _log.warning("the fleet is not measured: %s; trying again", error)
                reachable = False
            await asyncio.sleep(RETRY_S)

    async def _measure(self, client: AsyncClient) -> None:
        # The coordinator asks robots once for all of these calls.
        loads = {by: await client.call(FLEET_LOAD, FleetLoadQuery(by=by)) for by in self._by}
        self._latest = (time.monotonic(), loads)
        self._report_left_out(loads)
        if self._metrics is not None:
            data = self._data(loads)
            self._metrics.put(data, items=point_count(data))

    def _report_left_out(self, loads: Mapping[str, FleetLoads]) -> None:
        left_out = {by: choose(each.rows, by).left_out for by, each in loads.items()}
        for by, count in left_out.items():
            if count and not self._left_out.get(by):
                _log.warning("%d rows by %s have no metrics: there are too many", count, by)
        self._left_out = left_out

    def _data(self, loads: Mapping[str, FleetLoads]) -> MetricsData:
        deliveries = self.deliveries
        own = Own(
            {name: each.sent for name, each in deliveries.items()},
            {name: each.dropped for name, each in deliveries.items()},
        )
        return fleet_metrics(loads, own, self._resource, self._began)

    async def page(self) -> MetricsData | None:
        """Return the last measurement; None without a recent one.

        Whoever scrapes, robots are asked once in an interval: those that do not answer take time.
        """
        if self._latest is None:
            return None
        at, loads = self._latest
        return self._data(loads) if time.monotonic() - at < STALE * self._interval else None

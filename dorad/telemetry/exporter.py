"""What the process does with measurements, log lines and traces: makes telemetry of them."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING

from dorad.logrecord import LogRecord, size
from dorad.telemetry.exemplars import Exemplars
from dorad.telemetry.instruments import Own, read_machine
from dorad.telemetry.logs import log_record
from dorad.telemetry.metrics import Collector, point_count
from dorad.telemetry.otlp import logs_export, metrics_export, traces_export
from dorad.telemetry.resources import Resources, base_resource
from dorad.telemetry.sender import Delivery, Sender
from dorad.telemetry.spans import spans_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from opentelemetry.sdk.metrics.export import MetricsData
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import ReadableSpan

    from dorad.control.messages import LogLines, Top, TraceBatch
    from dorad.telemetry.settings import TelemetrySettings

MAX_POINTS = 100_000
"""Data points that wait at most."""
MAX_LINES = 50_000
"""Log lines that wait at most."""
LINES_AT_ONCE = 2_048
MAX_TRACES = 5_000
"""Traces that wait at most."""
TRACES_AT_ONCE = 200
SPAN_BYTES = 500
"""What a span needs while it waits, about as much as in a request."""

_log = logging.getLogger(__name__)


class Exporter:
    """Sends what it is given to the collectors of the settings."""

    def __init__(
        self,
        settings: TelemetrySettings,
        environ: Mapping[str, str],
        changed: Callable[[str, Delivery], None],
    ) -> None:
        """`changed` is called in a thread when sending begins to fail, and when it works again.

        Raises:
            TelemetryError: a standard variable has a value that cannot be used.
        """
        self._resources = Resources(base_resource(environ))
        self._exemplars = Exemplars()
        self._collector = Collector(self._resources, time.time_ns(), self._exemplars)
        self._names: dict[str, str | None] = {}
        self._metrics: Sender[MetricsData] | None = None
        self._logs: Sender[tuple[LogRecord, Resource]] | None = None
        self._traces: Sender[Sequence[ReadableSpan]] | None = None
        if (endpoint := settings.endpoints.get("metrics")) is not None:
            export = metrics_export(endpoint)
            self._metrics = Sender("metrics", endpoint, export, changed, limit=MAX_POINTS, batch=1)
        if (endpoint := settings.endpoints.get("logs")) is not None:
            export_logs = logs_export(endpoint)

            def export_lines(batch: Sequence[tuple[LogRecord, Resource]]) -> bool:
                return export_logs([log_record(*each) for each in batch])

            self._logs = Sender(
                "logs", endpoint, export_lines, changed, limit=MAX_LINES, batch=LINES_AT_ONCE
            )
        if (endpoint := settings.endpoints.get("traces")) is not None:
            self._traces = Sender(
                "traces",
                endpoint,
                traces_export(endpoint),
                changed,
                limit=MAX_TRACES,
                batch=TRACES_AT_ONCE,
            )

    @property
    def deliveries(self) -> dict[str, Delivery]:
        """How the sending of each signal goes."""
        senders = {"metrics": self._metrics, "logs": self._logs, "traces": self._traces}
        return {name: each.delivery for name, each in senders.items() if each is not None}

    def collect(self, top: Top) -> MetricsData:
        """Return a measurement as metrics, with those of the machine and of the exporter."""
        deliveries = self.deliveries
        own = Own(
            {name: each.sent for name, each in deliveries.items()},
            {name: each.dropped for name, each in deliveries.items()},
        )
        return self._collector.collect(top, read_machine(), own)

    def measured(self, top: Top) -> None:
        """Send a measurement."""
        self._names = {node.dataflow: node.dataflow_name for node in top.nodes}
        if self._metrics is not None:
            data = self.collect(top)
            self._metrics.put(data, items=point_count(data))

    def logged(self, lines: LogLines, name: str | None = None) -> None:
        """Send log lines; `name` is that of a dataflow that was not measured yet."""
        if self._logs is None:
            return
        name = self._names.get(lines.dataflow, name)
        for record in lines.lines:
            resource = self._resources.of(lines.dataflow, name, record.node)
            self._logs.put((record, resource), size=size(record))
        if lines.left_out:
            self._logs.drop(lines.left_out)

    def traced(self, batch: TraceBatch, name: str | None = None) -> None:
        """Send traces, and take exemplars from them; `name` is as in `logged`."""
        for trace in batch.traces:
            trace.dataflow_name = trace.dataflow_name or name
            spans = spans_of(trace, self._resources)
            self._exemplars.add(spans)
            if self._traces is not None:
                self._traces.put(spans, size=len(spans) * SPAN_BYTES)
        if self._traces is not None and batch.left_out:
            self._traces.drop(batch.left_out)

    def close(self, seconds: float) -> dict[str, Delivery]:
        """Send what waits, for at most so long, and return how that went."""
        deadline = time.monotonic() + seconds
        known = (self._metrics, self._logs, self._traces)
        senders = [each for each in known if each is not None]
        for sender in senders:
            sender.close()
        for sender in senders:
            sender.join(deadline - time.monotonic())
        _log.debug("closed: %s", self.deliveries)
        return self.deliveries

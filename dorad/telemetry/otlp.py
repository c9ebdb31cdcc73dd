"""The exporters of OpenTelemetry for the endpoints of the settings.

Headers, TLS, compression, timeouts and retries are theirs, from the standard variables.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from opentelemetry.sdk._logs.export import LogRecordExportResult
from opentelemetry.sdk.metrics.export import MetricExportResult, MetricsData
from opentelemetry.sdk.trace.export import SpanExportResult

from dorad.telemetry.settings import Endpoint, TelemetryError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from opentelemetry.sdk._logs import ReadableLogRecord
    from opentelemetry.sdk.trace import ReadableSpan


def metrics_export(endpoint: Endpoint) -> Callable[[Sequence[MetricsData]], bool]:
    """Return a function that sends measurements, and returns whether all were accepted.

    Raises:
        TelemetryError: a standard variable has a value that cannot be used.
    """
    if endpoint.protocol == "grpc":
        from opentelemetry.exporter.otlp.proto.grpc.metric_exporter import OTLPMetricExporter
    else:
        from opentelemetry.exporter.otlp.proto.http.metric_exporter import (  # type: ignore[assignment]
            OTLPMetricExporter,
        )
    exporter = _make(OTLPMetricExporter, endpoint)

    def export(batch: Sequence[MetricsData]) -> bool:
        return all(exporter.export(each) is MetricExportResult.SUCCESS for each in batch)

    return export


def logs_export(endpoint: Endpoint) -> Callable[[Sequence[ReadableLogRecord]], bool]:
    """Return a function that sends log records, and returns whether they were accepted.

    Raises:
        TelemetryError: a standard variable has a value that cannot be used.
    """
    if endpoint.protocol == "grpc":
        from opentelemetry.exporter.otlp.proto.grpc._log_exporter import OTLPLogExporter
    else:
        from opentelemetry.exporter.otlp.proto.http._log_exporter import (  # type: ignore[assignment]
            OTLPLogExporter,
        )
    exporter = _make(OTLPLogExporter, endpoint)
    return lambda batch: exporter.export(batch) is LogRecordExportResult.SUCCESS


def traces_export(endpoint: Endpoint) -> Callable[[Sequence[Sequence[ReadableSpan]]], bool]:
    """Return a function that sends the spans of traces, and returns whether they were accepted.

    Raises:
        TelemetryError: a standard variable has a value that cannot be used.
    """
    if endpoint.protocol == "grpc":
        from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
    else:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import (  # type: ignore[assignment]
            OTLPSpanExporter,
        )
    exporter = _make(OTLPSpanExporter, endpoint)
    return lambda batch: (
        exporter.export([span for trace in batch for span in trace]) is SpanExportResult.SUCCESS
    )


def _make(exporter: Callable[..., Any], endpoint: Endpoint) -> Any:
    try:
        return exporter(endpoint=endpoint.url)
    except Exception as error:
        raise TelemetryError(
            f"the exporter for {endpoint.shown} refuses its settings: {error!r}",
            "see the variables OTEL_EXPORTER_OTLP_*",
        ) from error

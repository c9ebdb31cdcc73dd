"""Exemplars of histograms: the trace of the slowest message in each bucket."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from opentelemetry.sdk.metrics import Exemplar
from opentelemetry.trace import StatusCode

if TYPE_CHECKING:
    from collections.abc import Iterable

    from opentelemetry.sdk.trace import ReadableSpan

KEPT_S = 600
"""Seconds after which a faster message takes the place of the slowest: its trace may be gone."""
MAX_SERIES = 10_000
"""Inputs with exemplars; those that came first are forgotten first."""

_NS = 1e9


class _Slowest(NamedTuple):
    ns: int
    end: int
    trace_id: int
    span_id: int


class Exemplars:
    """The slowest message of each input and bucket, among those whose traces were sent."""

    def __init__(self) -> None:
        self._series: dict[tuple[str, str, str], dict[int, _Slowest]] = {}

    def add(self, spans: Iterable[ReadableSpan]) -> None:
        """Take the spans of a trace."""
        for span in spans:
            attributes = span.attributes or {}
            operation = attributes["messaging.operation.name"]
            if operation == "send" or span.status.status_code is StatusCode.ERROR:
                continue
            assert span.start_time is not None and span.end_time is not None and span.context
            ns = span.end_time - span.start_time
            key = (
                str(span.resource.attributes["dora.dataflow.id"]),
                str(operation),
                str(attributes["dora.edge.target"]),
            )
            series = self._series.get(key)
            if series is None:
                if len(self._series) >= MAX_SERIES:
                    del self._series[next(iter(self._series))]
                series = self._series[key] = {}
            known = series.get(ns.bit_length())
            if known is None or ns >= known.ns or span.end_time - known.end > KEPT_S * _NS:
                ids = span.context.trace_id, span.context.span_id
                series[ns.bit_length()] = _Slowest(ns, span.end_time, *ids)

    def of(self, dataflow: str, operation: str, target: str) -> list[Exemplar]:
        """Return those of a histogram: `receive` for latencies of an edge, `process` for work."""
        return [
            Exemplar({}, each.ns / _NS, each.end, each.span_id, each.trace_id)
            for _, each in sorted(self._series.get((dataflow, operation, target), {}).items())
        ]

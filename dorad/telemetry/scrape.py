"""The scrape endpoint: metrics as OpenMetrics text, for a token on loopback or on a Unix socket."""

from __future__ import annotations

import asyncio
import hmac
import logging
import re
import stat
from bisect import bisect_left
from contextlib import suppress
from itertools import accumulate
from typing import TYPE_CHECKING

from opentelemetry.sdk.metrics.export import (
    Gauge,
    Histogram,
    HistogramDataPoint,
    Metric,
    MetricsData,
    NumberDataPoint,
    Sum,
)

from dorad.control.privatefile import check_private
from dorad.telemetry.settings import Listening, TelemetryError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator, Mapping
    from pathlib import Path

    from opentelemetry.sdk.metrics import Exemplar


PATH = "/metrics"
CONTENT_TYPE = "application/openmetrics-text; version=1.0.0; charset=utf-8"
MAX_REQUEST = 8_192
MAX_CLIENTS = 8
TIMEOUT_S = 5.0
SOCKET_MODE = 0o660
MIN_TOKEN = 16
"""Characters of a token at least."""

_UNITS = {"By": "bytes", "s": "seconds"}
_WRONG = re.compile(r"[^a-zA-Z0-9_]")

_log = logging.getLogger(__name__)


def openmetrics(data: MetricsData) -> str:
    """Return metrics as a page of OpenMetrics.

    Names and units are as Prometheus makes them of what it gets over OTLP; the attributes of the
    resource are labels of each value.
    """
    families: dict[str, tuple[Metric, list[str]]] = {}
    for of_resource in data.resource_metrics:
        shared = {
            name: value
            for name, value in of_resource.resource.attributes.items()
            if name.startswith(("service.", "host.name", "dora."))
        }
        for scope in of_resource.scope_metrics:
            for metric in scope.metrics:
                name = family_name(metric)
                _, lines = families.setdefault(name, (metric, []))
                for point in metric.data.data_points:
                    labels = _labels({**shared, **(point.attributes or {})})
                    lines += _samples(name, _type(metric), point, labels)
    return "\n".join([*_page(families), "# EOF\n"])


def _page(families: Mapping[str, tuple[Metric, list[str]]]) -> Iterator[str]:
    for name, (metric, lines) in families.items():
        yield f"# TYPE {name} {_type(metric)}"
        if unit := _UNITS.get(metric.unit or ""):
            yield f"# UNIT {name} {unit}"
        yield f"# HELP {name} {_escaped(metric.description or '')}"
        yield from lines


def family_name(metric: Metric) -> str:
    """Return the name of a metric for Prometheus, without `_total`."""
    name = _WRONG.sub("_", metric.name)
    suffix = _UNITS.get(metric.unit or "", "")
    if metric.unit == "1" and isinstance(metric.data, Gauge):
        suffix = "ratio"
    return name if not suffix or name.endswith(f"_{suffix}") else f"{name}_{suffix}"


def _type(metric: Metric) -> str:
    if isinstance(metric.data, Histogram):
        return "histogram"
    return "counter" if isinstance(metric.data, Sum) and metric.data.is_monotonic else "gauge"


def _samples(name: str, kind: str, point: object, labels: str) -> Iterator[str]:
    if isinstance(point, HistogramDataPoint):
        bounds = [*map(str, point.explicit_bounds), "+Inf"]
        slowest = {bisect_left(point.explicit_bounds, each.value): each for each in point.exemplars}
        for at, count in enumerate(accumulate(point.bucket_counts)):
            exemplar = slowest.get(at) if point.bucket_counts[at] else None
            tail = "" if exemplar is None else _exemplar(exemplar)
            yield f'{name}_bucket{{{labels},le="{bounds[at]}"}} {count}{tail}'
        yield f"{name}_sum{{{labels}}} {point.sum}"
        yield f"{name}_count{{{labels}}} {point.count}"
    else:
        assert isinstance(point, NumberDataPoint)
        yield f"{name}{'_total' if kind == 'counter' else ''}{{{labels}}} {point.value}"


def _exemplar(exemplar: Exemplar) -> str:
    ids = f'trace_id="{exemplar.trace_id:032x}",span_id="{exemplar.span_id:016x}"'
    return f" # {{{ids}}} {exemplar.value} {exemplar.time_unix_nano / 1e9:.3f}"


def _labels(attributes: Mapping[str, object]) -> str:
    return ",".join(
        f'{_WRONG.sub("_", name)}="{_escaped(str(value))}"' for name, value in attributes.items()
    )


def _escaped(text: str) -> str:
    return text.replace("\\", r"\\").replace("\n", r"\n").replace('"', r"\"")


class ScrapeServer:
    """Serves the page, and nothing else, to clients that may see it."""

    def __init__(
        self,
        where: Listening,
        token: Path | None,
        measure: Callable[[], Awaitable[MetricsData | None]],
    ) -> None:
        """Prepare a server. On a port, clients must send the token of this file.

        `measure` returns what the page shows, None while nothing can be measured.
        """
        self._where = where
        self._token_file = token
        self._token = b""
        self._measure = measure
        self._server: asyncio.Server | None = None
        self._clients = 0

    async def start(self) -> None:
        """Listen.

        Raises:
            TelemetryError: the place cannot be used, or the token is too short.
            ControlError: others can read the token, or we cannot.
        """
        where = self._where
        try:
            if where.path is not None:
                _remove_socket(where.path)
                self._server = await asyncio.start_unix_server(
                    self._serve, where.path, limit=MAX_REQUEST
                )
                where.path.chmod(SOCKET_MODE)
            else:
                assert self._token_file is not None
                check_private(self._token_file, group_reads=True)
                self._token = self._token_file.read_bytes().strip()
                if len(self._token) < MIN_TOKEN:
                    raise TelemetryError(
                        f"{self._token_file}: the token has fewer than {MIN_TOKEN} characters"
                    )
                self._server = await asyncio.start_server(
                    self._serve, where.host, where.port, limit=MAX_REQUEST
                )
        except OSError as error:
            name = error.filename or where
            raise TelemetryError(f"cannot serve metrics: {name}: {error.strerror}") from error
        _log.info("metrics at %s", where)

    async def close(self) -> None:
        """Stop listening."""
        if self._server is not None:
            self._server.close()
            if self._where.path is not None:
                self._where.path.unlink(missing_ok=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._clients += 1
        try:
            with suppress(TimeoutError, OSError, asyncio.IncompleteReadError):
                async with asyncio.timeout(TIMEOUT_S):
                    code, body = await self._answer(reader)
                    _log.debug("a client gets %s", code)
                    kind = CONTENT_TYPE if code.startswith("200") else "text/plain; charset=utf-8"
                    content = body.encode()
                    head = (
                        f"HTTP/1.1 {code}\r\nContent-Type: {kind}\r\n"
                        f"Content-Length: {len(content)}\r\nConnection: close\r\n\r\n"
                    )
                    writer.write(head.encode() + content)
                    await writer.drain()
        finally:
            self._clients -= 1
            writer.close()

    async def _answer(self, reader: asyncio.StreamReader) -> tuple[str, str]:
        if self._clients > MAX_CLIENTS:
            return "503 Service Unavailable", "too many clients\n"
        try:
            head = await reader.readuntil(b"\r\n\r\n")
        except asyncio.LimitOverrunError:
            return "431 Request Header Fields Too Large", "the request is too long\n"
        request, *fields = head.decode("latin-1").split("\r\n")
        if self._token and not hmac.compare_digest(_bearer(fields), self._token):
            return "401 Unauthorized", "the token is missing or wrong\n"
        if request.split(" ")[:2] != ["GET", PATH]:
            return "404 Not Found", f"only GET {PATH} is here\n"
        data = await self._measure()
        if data is None:
            return "503 Service Unavailable", "nothing can be measured now: no server answers\n"
        return "200 OK", openmetrics(data)


def _bearer(fields: list[str]) -> bytes:
    for field in fields:
        name, _, value = field.partition(":")
        scheme, _, token = value.strip().partition(" ")
        if name.strip().lower() == "authorization" and scheme.lower() == "bearer":
            return token.strip().encode("latin-1")
    return b""


def _remove_socket(path: Path) -> None:
    """Remove the socket that a process before us has left; anything else stays."""
    with suppress(FileNotFoundError):
        if stat.S_ISSOCK(path.lstat().st_mode):
            path.unlink()

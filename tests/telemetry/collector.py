"""Collectors for tests, made of the messages and services in `opentelemetry-proto`."""

import gzip
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import grpc
from opentelemetry.proto.collector.logs.v1 import logs_service_pb2 as logs
from opentelemetry.proto.collector.logs.v1 import logs_service_pb2_grpc as logs_grpc
from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2 as metrics
from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2_grpc as metrics_grpc
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2 as traces
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2_grpc as traces_grpc

REQUESTS = {
    "/v1/metrics": metrics.ExportMetricsServiceRequest,
    "/v1/logs": logs.ExportLogsServiceRequest,
    "/v1/traces": traces.ExportTraceServiceRequest,
}


def attributes(owner: Any) -> dict[str, Any]:
    """Return the attributes of a point, a record or a resource."""
    return {
        each.key: getattr(each.value, each.value.WhichOneof("value")) for each in owner.attributes
    }


class Collector:
    """What a collector has got."""

    def __init__(self) -> None:
        self.url = ""
        self.metrics: list[metrics.ExportMetricsServiceRequest] = []
        self.logs: list[logs.ExportLogsServiceRequest] = []
        self.traces: list[traces.ExportTraceServiceRequest] = []
        self.headers: list[dict[str, str]] = []
        self.requests: Counter[str] = Counter()

    def take(self, request: Any) -> None:
        for name in ("metrics", "logs", "traces"):
            if hasattr(request, f"resource_{name.replace('traces', 'spans')}"):
                getattr(self, name).append(request)

    @property
    def points(self) -> dict[tuple[str, str, frozenset[tuple[str, Any]]], list[Any]]:
        """The points by metric, service and their attributes, in order of arrival."""
        found: dict[tuple[str, str, frozenset[tuple[str, Any]]], list[Any]] = {}
        for request in self.metrics:
            for of_resource in request.resource_metrics:
                service = attributes(of_resource.resource)["service.name"]
                for scope in of_resource.scope_metrics:
                    for metric in scope.metrics:
                        for point in getattr(metric, metric.WhichOneof("data")).data_points:
                            key = (metric.name, service, frozenset(attributes(point).items()))
                            found.setdefault(key, []).append(point)
        return found

    def last(self, name: str, service: str, **wanted: str) -> float:
        """Return the last value of a metric of a service; underscores of names stand for dots."""
        points = [
            each[-1]
            for (metric, of, labels), each in self.points.items()
            if (metric, of) == (name, service)
            and {key.replace("_", "."): value for key, value in wanted.items()}.items()
            <= dict(labels).items()
        ]
        assert len(points) == 1, (name, service, wanted, points)
        return getattr(points[0], points[0].WhichOneof("value"))

    @property
    def records(self) -> list[tuple[str, Any]]:
        """The log records, each with its service."""
        return [
            (attributes(of_resource.resource)["service.name"], record)
            for request in self.logs
            for of_resource in request.resource_logs
            for scope in of_resource.scope_logs
            for record in scope.log_records
        ]

    @property
    def spans(self) -> list[tuple[dict[str, Any], Any]]:
        """The spans, each with the attributes of its resource."""
        return [
            (attributes(of_resource.resource), span)
            for request in list(self.traces)
            for of_resource in request.resource_spans
            for scope in of_resource.scope_spans
            for span in scope.spans
        ]


@contextmanager
def http_collector(
    answer: Callable[[BaseHTTPRequestHandler, bytes], bool] | None = None,
) -> Iterator[Collector]:
    """Run a collector over HTTP. `answer` may answer a request instead, and returns True then."""
    collector = Collector()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            collector.requests[self.path] += 1
            if answer is not None and answer(self, b""):
                return
            body = self.rfile.read(int(self.headers["Content-Length"]))
            if self.headers.get("Content-Encoding") == "gzip":
                body = gzip.decompress(body)
            collector.headers.append({k.lower(): v for k, v in self.headers.items()})
            collector.take(REQUESTS[self.path].FromString(body))
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *args: object) -> None:
            """Be silent."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        server.block_on_close = False
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        collector.url = f"http://127.0.0.1:{server.server_port}"
        try:
            yield collector
        finally:
            server.shutdown()
            thread.join()


@contextmanager
def grpc_collector() -> Iterator[Collector]:
    """Run a collector over gRPC."""
    collector = Collector()

    class Metrics(metrics_grpc.MetricsServiceServicer):
        def Export(self, request: Any, context: Any) -> Any:  # noqa: N802
            collector.headers.append(dict(context.invocation_metadata()))
            collector.take(request)
            return metrics.ExportMetricsServiceResponse()

    class Logs(logs_grpc.LogsServiceServicer):
        def Export(self, request: Any, context: Any) -> Any:  # noqa: N802
            collector.take(request)
            return logs.ExportLogsServiceResponse()

    class Traces(traces_grpc.TraceServiceServicer):
        def Export(self, request: Any, context: Any) -> Any:  # noqa: N802
            collector.take(request)
            return traces.ExportTraceServiceResponse()

    server = grpc.server(ThreadPoolExecutor(4))
    metrics_grpc.add_MetricsServiceServicer_to_server(Metrics(), server)
    logs_grpc.add_LogsServiceServicer_to_server(Logs(), server)
    traces_grpc.add_TraceServiceServicer_to_server(Traces(), server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    collector.url = f"http://127.0.0.1:{port}"
    try:
        yield collector
    finally:
        server.stop(None).wait()

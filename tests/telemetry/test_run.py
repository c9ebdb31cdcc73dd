"""`dora run` with an exporter: real collectors, absent ones, slow ones, ones that refuse."""

import sys
import time
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest

from tests.harness.dataflow import clean_environment
from tests.harness.flows import write_flow
from tests.harness.process import run

from .collector import Collector, attributes, grpc_collector, http_collector

MESSAGES = 50
ALIEN = "0af7651916cd43dd8448eb211c80319c"

SOURCE = f"""
    import pyarrow as pa
    from dora import Node

    node = Node()
    number = 0
    print("plain line")
    ids = {{"trace_id": "{ALIEN}", "span_id": "b7ad6b7169203331", "joint": "3"}}
    node.log("error", "bad", fields=ids)
    node.log("warn", "broken", fields={{"trace_id": "no hex", "span_id": "7"}})
    for event in node:
        if event["type"] == "INPUT":
            context = "traceparent:00-{ALIEN}-b7ad6b7169203331-01;tracestate:;"
            if number == 3:  # as from a node of dora 1.1.0
                node.send_output(
                    "number", pa.array([number]), {{"open_telemetry_context": context}}
                )
            elif number == 4:
                node.send_output("number", pa.array([number]), {{"traceparent": "00-nonsense"}})
            else:
                node.send_output("number", pa.array([number]))
            number += 1
            if number == {MESSAGES}:
                break
"""

SINK = """
    from dora import Node

    for event in Node():
        pass
"""


def flow(folder: Path) -> Path:
    nodes = [
        {
            "id": "source",
            "path": "source.py",
            "inputs": {"tick": "dora/timer/millis/5"},
            "outputs": ["number"],
        },
        {
            "id": "sink",
            "path": "sink.py",
            "inputs": {"number": {"source": "source/number", "queue_size": 5}},
        },
    ]
    return write_flow(folder, nodes, source=SOURCE, sink=SINK)


def dora_run(folder: Path, **env: str):
    file = flow(folder)
    bin_dir = Path(sys.executable).parent
    environ = clean_environment(bin_dir, {"OTEL_RESOURCE_ATTRIBUTES": "site=lab", **env})
    return run([bin_dir / "dora", "run", file], cwd=folder, env=environ, deadline=120)


@pytest.mark.parametrize("make", [http_collector, grpc_collector])
def test_a_collector_gets_the_counts_of_the_rings_and_every_line(tmp_path, make):
    protocol = {http_collector: "http/protobuf", grpc_collector: "grpc"}[make]
    with make() as collector:
        outcome = dora_run(
            tmp_path,
            OTEL_EXPORTER_OTLP_ENDPOINT=collector.url,
            OTEL_EXPORTER_OTLP_PROTOCOL=protocol,
            OTEL_EXPORTER_OTLP_HEADERS="x-key=secret",
        ).expect(0)
    assert "did not reach" not in outcome.output
    assert "may be missing" not in outcome.output
    assert all(headers["x-key"] == "secret" for headers in collector.headers)
    edge = {"dora_edge_target": "sink/number"}
    sent = collector.last("messaging.client.sent.messages", "source", **edge)
    got = collector.last("messaging.client.consumed.messages", "sink", **edge)
    lost = collector.last("dora.edge.dropped", "sink", **edge)
    waits = collector.last("dora.edge.queue.depth", "sink", **edge)
    assert sent == MESSAGES == got + lost + waits
    assert collector.last("dora.node.restarts", "sink") == 0
    assert collector.last("system.memory.usage", "dorad", system_memory_state="used") > 0
    lines = {record.body.string_value: (of, record) for of, record in collector.records}
    of, plain = lines["plain line"]
    assert (of, plain.severity_number, attributes(plain)["log.iostream"]) == ("source", 9, "stdout")
    _, bad = lines["bad"]
    assert (bad.severity_number, bad.trace_id.hex()) == (17, ALIEN)
    assert attributes(bad)["joint"] == "3"
    _, broken = lines["broken"]
    assert (broken.severity_number, broken.trace_id) == (13, b"")
    assert_traces(collector)
    resources = [
        each.resource for request in collector.metrics for each in request.resource_metrics
    ]
    assert all(attributes(each)["site"] == "lab" for each in resources)


def assert_traces(collector: Collector) -> None:
    """Check the spans: their names, owners, parents, ids, and the trace of somebody else."""
    traces: dict[bytes, list[tuple[dict[str, object], object]]] = {}
    for resource, span in collector.spans:
        assert (len(span.trace_id), len(span.span_id)) == (16, 8)
        assert span.start_time_unix_nano <= span.end_time_unix_nano
        traces.setdefault(span.trace_id, []).append((resource, span))
    alien = traces.pop(bytes.fromhex(ALIEN))
    complete = 0
    for spans in traces.values():
        ids = {span.span_id: span.name for _, span in spans}
        assert len(ids) == len(spans)
        assert [span.name for _, span in spans if not span.parent_span_id] == [
            "receive source/tick"
        ]
        assert all(not span.parent_span_id or span.parent_span_id in ids for _, span in spans)
        owners = {(resource["service.name"], span.name) for resource, span in spans}
        complete += owners == {
            ("source", "receive source/tick"),
            ("source", "process source/tick"),
            ("source", "send source/number"),
            ("sink", "receive source/number"),
            ("sink", "process source/number"),
        }
        assert all(resource["site"] == "lab" for resource, _ in spans)
    # The slowest sixteen are sent in any case; the run is shorter than a second.
    assert complete >= 16
    (sent,) = (span for _, span in alien if span.name == "send source/number")
    assert sent.parent_span_id.hex() == "b7ad6b7169203331"
    assert sent.links
    assert {span.name for _, span in alien} >= {"receive source/number"}


def hangs(handler: BaseHTTPRequestHandler, body: bytes) -> bool:
    handler.rfile.read(10)
    time.sleep(30)
    return True


def is_cut(handler: BaseHTTPRequestHandler, body: bytes) -> bool:
    handler.rfile.read(10)
    handler.close_connection = True
    handler.connection.close()
    return True


def refuses(code: int):
    def answer(handler: BaseHTTPRequestHandler, body: bytes) -> bool:
        handler.rfile.read(int(handler.headers["Content-Length"]))
        handler.send_response(code)
        handler.send_header("Content-Length", "0")
        handler.send_header("Retry-After", "20")
        handler.end_headers()
        return True

    return answer


@pytest.mark.long
@pytest.mark.parametrize(
    "answer",
    [hangs, is_cut, *map(refuses, (401, 429, 503))],
    ids=["hangs", "is cut", "401", "429", "503"],
)
def test_a_bad_collector_costs_telemetry_and_nothing_else(tmp_path, answer):
    with http_collector(answer) as collector:
        outcome = dora_run(tmp_path, OTEL_EXPORTER_OTLP_ENDPOINT=collector.url).expect(0)
    assert "data points did not reach" in outcome.output
    assert "log lines did not reach" in outcome.output
    assert "traces did not reach" in outcome.output


def test_the_reason_is_shown(tmp_path):
    with http_collector(refuses(401)) as collector:
        outcome = dora_run(tmp_path, OTEL_EXPORTER_OTLP_ENDPOINT=collector.url).expect(0)
    assert "401" in outcome.output


@pytest.mark.parametrize("name", ["DORA_OTLP_ENDPOINT", "DORA_JAEGER_TRACING"])
def test_an_absent_collector_is_reported_under_the_variables_of_dora(tmp_path, name):
    outcome = dora_run(tmp_path, **{name: "http://127.0.0.1:9"}).expect(0)
    assert "data points did not reach http://127.0.0.1:9" in outcome.output


def test_a_wrong_endpoint_is_refused_before_anything_starts(tmp_path):
    outcome = dora_run(tmp_path, OTEL_EXPORTER_OTLP_ENDPOINT="nonsense://x").expect(1)
    assert "OTEL_EXPORTER_OTLP_ENDPOINT: `nonsense://x` is not a URL" in outcome.output


def test_headers_that_nobody_can_read_do_not_stop_the_dataflow(tmp_path):
    with http_collector() as collector:
        dora_run(
            tmp_path,
            OTEL_EXPORTER_OTLP_ENDPOINT=collector.url,
            OTEL_EXPORTER_OTLP_HEADERS="\u00fc,,=,a b=c",
        ).expect(0)

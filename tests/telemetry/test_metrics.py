"""From measurements to metrics: names, owners, kinds and starts."""

from __future__ import annotations

import math
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.sdk.metrics.export import Gauge, Sum
from opentelemetry.sdk.resources import Resource

from dorad.control.messages import EdgeStats, InputWork, NodeInfo, NodeMetrics, Top
from dorad.telemetry.exemplars import Exemplars
from dorad.telemetry.instruments import (
    OF_DATAFLOWS,
    OF_EXPORTER,
    OF_MACHINE,
    OF_NODES,
    OF_NODES_IN_DORA,
    OF_RECEIVERS,
    OF_SENDERS,
    Machine,
    Own,
    Times,
    read_machine,
)
from dorad.telemetry.metrics import Collector, histogram_point, point_count
from dorad.telemetry.resources import Resources, base_resource
from dorad.telemetry.scrape import family_name, openmetrics
from dorad.telemetry.spans import spans_of
from dorad.trace.build import as_trace
from tests.trace.recorded import chain, joined, run_chain

BEGAN = 1_000 * 10**9
MACHINE = Machine({"user": 3.5}, {"used": 7}, (1, 2), {"eth0": (3, 4, 5, 6)}, 500.0)
OWN = Own({"logs": 8}, {"logs": 9})
TABLES = (
    OF_SENDERS,
    OF_RECEIVERS,
    OF_NODES,
    OF_NODES_IN_DORA,
    OF_DATAFLOWS,
    OF_MACHINE,
    OF_EXPORTER,
)


def node(name, **changes):
    fields = {
        "dataflow": "u-1",
        "dataflow_name": "arm",
        "node": name,
        "status": "running",
        "pid": 12,
        "restarts": 2,
        "metrics": NodeMetrics(cpu=50.0, memory=4096),
        "started_at": 900.0,
    }
    return NodeInfo(**(fields | changes))


def edge(**changes):
    fields = {
        "dataflow": "u-1",
        "dataflow_name": "arm",
        "source": "camera/image",
        "target": "detector/image",
        "queue_size": 4,
        "sent": 10,
        "received": 6,
        "dropped": 3,
        "queued": 1,
        "payload": 1000,
        "rate": 1.0,
        "drop_rate": 0.0,
        "bandwidth": 1.0,
        "latency": None,
        "jitter": None,
    }
    return EdgeStats(**(fields | changes))


def top(*edges, at=1010.0, nodes=None):
    known = [node("camera"), node("detector")] if nodes is None else nodes
    return Top(at=at, window=5.0, nodes=known, edges=list(edges))


@pytest.fixture
def collector():
    return Collector(Resources(Resource({"host.name": "arm1"})), BEGAN, Exemplars())


def points(data):
    """Return (metric, point) by metric name and service."""
    found = {}
    for of_resource in data.resource_metrics:
        service = of_resource.resource.attributes["service.name"]
        for scope in of_resource.scope_metrics:
            for metric in scope.metrics:
                for point in metric.data.data_points:
                    found.setdefault((metric.name, service), []).append((metric, point))
    return found


def one(data, name, service):
    ((metric, point),) = points(data)[name, service]
    return metric, point


def test_what_an_edge_counts_belongs_to_its_two_nodes(collector):
    data = collector.collect(top(edge(broken=True)), MACHINE, OWN)
    metric, point = one(data, "messaging.client.sent.messages", "camera")
    assert (point.value, metric.unit, metric.data.is_monotonic) == (10, "{message}", True)
    assert point.attributes == {
        "messaging.system": "dora",
        "messaging.operation.name": "send",
        "messaging.destination.name": "camera/image",
        "dora.edge.target": "detector/image",
    }
    values = {
        name: one(data, name, "detector")[1].value
        for name in (
            "messaging.client.consumed.messages",
            "dora.edge.dropped",
            "dora.edge.bytes",
            "dora.edge.queue.depth",
            "dora.edge.queue.limit",
            "dora.edge.broken",
        )
    }
    assert list(values.values()) == [6, 3, 1000, 1, 4, 1]
    (resource,) = (
        each.resource
        for each in data.resource_metrics
        if each.resource.attributes["service.name"] == "camera"
    )
    assert resource.attributes["service.namespace"] == "arm"
    assert resource.attributes["service.instance.id"] == "u-1/camera"
    assert resource.attributes["host.name"] == "arm1"


def test_latencies_are_a_histogram_with_bounds_that_every_backend_knows(collector):
    counts = [0] * 8 + [2, 0, 5, 1] + [0] * 28 + [1]
    data = collector.collect(top(edge(latencies=counts, latency_sum=2.5)), MACHINE, OWN)
    metric, point = one(data, "dora.edge.latency", "detector")
    assert (metric.unit, point.count, point.sum) == ("s", 9, 2.5)
    assert point.bucket_counts[:2] == [7, 1]
    assert point.bucket_counts[-1] == 1
    assert len(point.bucket_counts) == len(point.explicit_bounds) + 1
    page = openmetrics(data).splitlines()
    found = [x.rpartition(" ")[2] for x in page if x.startswith("dora_edge_latency_seconds_bucket")]
    assert (found[:2], found[-2:]) == (["7", "8"], ["8", "9"])
    assert any(x.startswith("dora_edge_latency_seconds_count") and x.endswith(" 9") for x in page)


def test_work_is_a_histogram_of_the_node_that_does_it(collector):
    work = InputWork(input="tick", topic="camera/tick", durations=[0] * 12 + [3, 1], seconds=0.5)
    data = collector.collect(top(nodes=[node("camera", work=[work])]), MACHINE, OWN)
    metric, point = one(data, "messaging.process.duration", "camera")
    assert (metric.unit, point.count, point.sum) == ("s", 4, 0.5)
    assert point.bucket_counts[2:4] == [3, 1]
    assert point.attributes["messaging.destination.name"] == "camera/tick"
    assert point.attributes["messaging.operation.name"] == "process"


def test_a_bucket_names_the_trace_of_its_slowest_message():
    nodes = chain()
    run_chain(nodes, 0)
    (tree,) = joined(*nodes)
    trace = as_trace(tree, "u-1")
    exemplars, resources = Exemplars(), Resources(Resource({}))
    collector = Collector(resources, BEGAN, exemplars)
    exemplars.add(spans_of(trace, resources))
    counts = [0] * 21 + [4]  # 2 ms, of the only message from the camera to the detector
    data = collector.collect(top(edge(latencies=counts, latency_sum=0.1)), MACHINE, OWN)
    _, point = one(data, "dora.edge.latency", "detector")
    (exemplar,) = point.exemplars
    assert (exemplar.value, f"{exemplar.trace_id:032x}") == (0.002, trace.id)
    marked = [line for line in openmetrics(data).splitlines() if " # {" in line]
    (line,) = marked
    assert 'le="0.002097151"' in line
    assert f' 4 # {{trace_id="{trace.id}",span_id="' in line
    # A page has no exemplar in a bucket that has counted nothing.
    data = collector.collect(top(edge(latencies=[0] * 25 + [4])), MACHINE, OWN)
    assert " # {" not in openmetrics(data)


@given(st.lists(st.integers(0, 1 << 40), max_size=50))
def test_a_latency_is_in_the_bucket_whose_bounds_enclose_it(latencies):
    counts = [0] * 64
    for each in latencies:
        counts[each.bit_length()] += 1
    point = histogram_point(Times(counts, 0.0), {}, 0, 1)
    bounds = [-math.inf, *point.explicit_bounds, math.inf]
    for at, count in enumerate(point.bucket_counts):
        assert count == sum(bounds[at] < each / 1e9 <= bounds[at + 1] for each in latencies)


def test_what_a_node_of_another_machine_sends_is_counted_there(collector):
    data = collector.collect(top(edge(source="far/image", lost=2)), MACHINE, OWN)
    assert ("messaging.client.sent.messages", "far") not in points(data)
    assert one(data, "dora.edge.lost", "detector")[1].value == 2


def test_a_node_has_one_status(collector):
    data = collector.collect(top(nodes=[node("camera", status="degraded")]), MACHINE, OWN)
    values = {
        point.attributes["dora.node.status"]: point.value
        for _, point in points(data)["dora.node.status", "camera"]
    }
    assert values["degraded"] == 1
    assert (sum(values.values()), len(values)) == (1, 7)


def test_timers_and_processes_are_left_out_where_there_are_none(collector):
    data = collector.collect(top(nodes=[node("camera", pid=None)]), MACHINE, OWN)
    names = {name for name, service in points(data) if service == "camera"}
    assert not {"dora.timer.missed", "dora.timer.late", "process.memory.usage"} & names
    data = collector.collect(
        top(nodes=[node("camera", deadline_misses=3, tick_delay=0.25)]), MACHINE, OWN
    )
    assert one(data, "dora.timer.missed", "camera")[1].value == 3
    metric, point = one(data, "dora.timer.late", "camera")
    assert (point.value, metric.unit, type(metric.data)) == (0.25, "s", Gauge)


def test_the_gauges_of_dora_have_its_names_and_attributes(collector):
    data = collector.collect(top(nodes=[node("camera", pending=5)]), MACHINE, OWN)
    for name, value in {
        "dora_node_cpu_usage": 50.0,
        "dora_node_memory_bytes": 4096,
        "dora_node_pending_messages": 5,
        "dora_node_restart_count": 2,
    }.items():
        metric, point = one(data, name, "camera")
        assert (point.value, type(metric.data)) == (value, Gauge)
        assert point.attributes.keys() == {"dataflow", "node", "daemon"}
    _, point = one(data, "dora_dataflow_nodes", "dorad")
    assert (point.value, point.attributes) == (1, {"dataflow": "u-1"})


def test_a_counter_starts_with_its_dataflow_or_where_it_fell(collector):
    def start(at, sent):
        data = collector.collect(top(edge(sent=sent), at=at), MACHINE, OWN)
        return one(data, "messaging.client.sent.messages", "camera")[1].start_time_unix_nano

    assert start(1010.0, 5) == start(1020.0, 7) == 900 * 10**9
    assert start(1030.0, 2) == 1020 * 10**9  # the edge was removed and added again
    assert start(1040.0, 2) == start(1050.0, 9) == 1020 * 10**9


@given(st.lists(st.integers(0, 5), min_size=1, max_size=30))
def test_no_counter_falls_between_its_starts(values):
    collector = Collector(Resources(Resource({})), BEGAN, Exemplars())
    before = None
    for at, value in enumerate(values):
        data = collector.collect(top(edge(sent=value), at=1010.0 + at), MACHINE, OWN)
        _, point = one(data, "messaging.client.sent.messages", "camera")
        if before is not None and before.start_time_unix_nano == point.start_time_unix_nano:
            assert point.value >= before.value
        assert point.start_time_unix_nano < point.time_unix_nano
        before = point


def test_values_that_are_no_numbers_are_left_out(collector):
    wrong = node("camera", tick_delay=math.nan, deadline_misses=0)
    data = collector.collect(top(nodes=[wrong]), MACHINE, OWN)
    assert ("dora.timer.late", "camera") not in points(data)


def test_the_machine_is_measured_for_real(collector):
    data = collector.collect(top(nodes=[]), read_machine(), OWN)
    (metric, point), *_ = points(data)["system.cpu.time", "dorad"]
    assert isinstance(metric.data, Sum)
    assert point.value > 0
    assert point.start_time_unix_nano < point.time_unix_nano


def test_losses_of_the_exporter_are_a_metric(collector):
    data = collector.collect(top(), MACHINE, OWN)
    _, point = one(data, "dora.telemetry.dropped", "dorad")
    assert (point.value, point.attributes) == (9, {"dora.telemetry.signal": "logs"})
    assert point_count(data) == sum(map(len, points(data).values()))


def test_a_name_of_the_users_environment_is_not_that_of_each_node(monkeypatch):
    monkeypatch.setenv("OTEL_SERVICE_NAME", "mine")
    monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment.name=lab")
    base = base_resource({"DORA_ROBOT_ID": "arm1"})
    assert Resources(base).of("u", None, "camera").attributes["service.name"] == "camera"
    assert base.attributes["deployment.environment.name"] == "lab"
    assert base.attributes["dora.robot.id"] == "arm1"


def test_each_metric_has_one_meaning():
    rows = [row for table in TABLES for row in table]
    assert len({row.name for row in rows}) == len(rows)


def test_the_guide_lists_every_metric():
    page = Path(__file__).parents[2] / "docs/guide/telemetry.md"
    words = set(re.findall(r"`([^`\n]+)`", page.read_text(encoding="utf-8")))
    assert not {row.name for table in TABLES for row in table} - words


def test_the_page_for_prometheus_has_each_family_once_with_its_values(collector):
    nasty = top(edge(source='camera/im"a\\g\ne'), nodes=[node("camera", dataflow_name="a b")])
    page = openmetrics(collector.collect(nasty, MACHINE, OWN))
    lines = page.splitlines()
    assert lines[-1] == "# EOF"
    families = [line.split()[2] for line in lines if line.startswith("# TYPE")]
    assert len(set(families)) == len(families)
    (sent,) = (x for x in lines if x.startswith("messaging_client_sent_messages_total{"))
    assert sent.endswith(" 10")
    assert r'messaging_destination_name="camera/im\"a\\g\ne"' in sent
    assert 'service_namespace="a b"' in sent
    assert "dora_node_memory_bytes{" in page
    assert "# UNIT dora_timer_late_seconds" not in page
    assert 'system_cpu_time_seconds_total{service_name="dorad"' in page.replace(
        'host_name="arm1",', ""
    )


def test_names_for_prometheus_have_their_unit_once(collector):
    data = collector.collect(top(edge()), MACHINE, OWN)
    names = {
        metric.name: family_name(metric)
        for of_resource in data.resource_metrics
        for scope in of_resource.scope_metrics
        for metric in scope.metrics
    }
    assert names["dora.edge.bytes"] == "dora_edge_bytes"
    assert names["process.memory.usage"] == "process_memory_usage_bytes"
    assert names["process.cpu.utilization"] == "process_cpu_utilization_ratio"
    assert names["dora_node_memory_bytes"] == "dora_node_memory_bytes"
    assert names["dora.node.status"] == "dora_node_status"

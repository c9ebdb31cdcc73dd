"""Measure what observing dataflows costs: hop records, traces, spans, metrics and log lines.

`python -m hwtests.observe.bench [--write]` takes about two minutes. Figures are CPU time where
possible: on a busy machine, time of day says little. `--write` writes docs/bench/observe.md.
"""

import argparse
import gc
import os
import platform
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import psutil
from opentelemetry.sdk.resources import Resource

from dorad.control.messages import EdgeStats, LogLines, NodeInfo, NodeMetrics, Top, TraceBatch
from dorad.heap import collect_rarely
from dorad.logrecord import LogRecord
from dorad.record.export.perfetto import perfetto
from dorad.shm import hoplog, hops, layout
from dorad.telemetry.exemplars import Exemplars
from dorad.telemetry.exporter import Exporter
from dorad.telemetry.instruments import Own, read_machine
from dorad.telemetry.metrics import Collector
from dorad.telemetry.resources import Resources
from dorad.telemetry.scrape import openmetrics
from dorad.telemetry.settings import settings_of
from dorad.telemetry.spans import spans_of
from dorad.trace.build import as_trace
from dorad.trace.join import Joiner
from dorad.trace.model import NodePlaces, Place, Tree
from dorad.trace.store import MAX_RATE, TraceStore
from tests.harness.commands import command_server
from tests.harness.daemon import daemon
from tests.harness.flows import write_flow
from tests.harness.waiting import wait_until
from tests.telemetry.collector import http_collector

ROUNDS = 15
US = 1e6
MS = 1_000_000
PAGE = Path(__file__).parents[2] / "docs/bench/observe.md"
TITLE = "# Observability, measured"

CAMERA = """
    import pyarrow as pa
    from dora import Node

    node, value = Node(), pa.array([0] * 10)
    for event in node:
        if event["type"] == "INPUT":
            node.send_output("out", value)
"""
SINK = """
    from dora import Node

    for event in Node():
        pass
"""

PLACES = {
    "camera": NodePlaces({9000: Place("tick", "camera/tick", tick=True)}, {70: "camera/image"}),
    "detector": NodePlaces({9100: Place("image", "camera/image")}, {71: "detector/boxes"}),
    "planner": NodePlaces({9200: Place("boxes", "detector/boxes")}, {}),
}


class Row(NamedTuple):
    """A figure of the page."""

    what: str
    figure: str


def best(measure: Callable[[], float], rounds: int = ROUNDS) -> float:
    """Return the least of several measurements."""
    return min(measure() for _ in range(rounds))


def cpu_each(work: Callable[[], object], count: int) -> float:
    """Return the CPU microseconds of one of `count` things that `work` does."""
    begun = time.process_time()
    work()
    return (time.process_time() - begun) / count * US


class Chain:
    """Records of `camera/tick → camera → detector → planner` in rings of real size."""

    def __init__(self) -> None:
        size = layout.BOX_WORDS * layout.WORD
        self.boxes = {name: memoryview(bytearray(size)).cast("Q") for name in PLACES}
        self.cursors = dict.fromkeys(PLACES, hoplog.HopCursor())
        self._writer = hops._Writer()
        self._at = 1_700_000_000_000 * MS

    def run(self, messages: int) -> None:
        """Record so many ticks with what follows from them, 1 ms apart: eight records each."""
        camera, detector, planner = self.boxes.values()
        write = self._writer
        for _ in range(messages):
            at = self._at
            write.received(camera, 9000, at, at + 50_000, 0)
            write.sent(camera, 70, at + 100_000, at + 100_000, 80)
            write._write(camera, layout.HOP_DONE, at + 120_000, 9000, at, 0)
            write.received(detector, 9100, at + 100_000, at + 200_000, 0)
            write.sent(detector, 71, at + 400_000, at + 400_000, 80)
            write._write(detector, layout.HOP_DONE, at + 420_000, 9100, at + 100_000, 0)
            write.received(planner, 9200, at + 400_000, at + 450_000, 0)
            write._write(planner, layout.HOP_DONE, at + 700_000, 9200, at + 400_000, 0)
            self._at += MS


def drain_cost() -> tuple[float, float, float]:
    """Return the CPU microseconds of a record: to read it, to join it, and to keep its trace."""
    chain, joiner, store = Chain(), Joiner(), TraceStore()
    clock = time.process_time
    read = join = keep = 0.0
    records = 0
    for turn in range(60):
        chain.run(100)
        now_ns = (turn + 1) * 100 * MS
        for name, box in chain.boxes.items():
            begun = clock()
            found, chain.cursors[name] = hoplog.read(box, chain.cursors[name])
            middle = clock()
            joiner.add(name, PLACES[name], found, now_ns)
            join += clock() - middle
            read += middle - begun
            records += len(found)
        begun = clock()
        for tree in joiner.settle(now_ns):
            store.add("flow", tree)
        keep += clock() - begun
    return read / records * US, join / records * US, keep / records * US


def some_trees(count: int) -> list[Tree]:
    """Return traces of the chain."""
    chain, joiner = Chain(), Joiner()
    for at in range(0, count, 100):
        chain.run(min(100, count - at))
        for name, box in chain.boxes.items():
            found, chain.cursors[name] = hoplog.read(box, chain.cursors[name])
            joiner.add(name, PLACES[name], found, 0)
    return joiner.settle(0, everything=True)


def record_cost() -> float:
    """Return the CPU nanoseconds of a record for a node in Python; in C it is a tenth."""
    (box,) = [memoryview(bytearray(layout.BOX_WORDS * layout.WORD)).cast("Q")]
    received = hops.received
    assert received is not None

    def work() -> None:
        for number in range(20_000):
            received(box, 9000, number, number, 0)

    return best(lambda: cpu_each(work, 20_000)) * 1000


def traces_rows() -> list[Row]:
    """Measure traces in the daemon and in the exporter."""
    read, join, keep = (min(each) for each in zip(*(drain_cost() for _ in range(9)), strict=True))
    total = read + join + keep
    share = total * MAX_RATE / US
    trees = some_trees(1000)
    made = [as_trace(tree, "flow") for tree in trees]
    whole = best(lambda: cpu_each(lambda: [as_trace(tree, "flow") for tree in trees], 1000))
    resources = Resources(Resource({}))
    spans = best(lambda: cpu_each(lambda: [spans_of(each, resources) for each in made], 1000))
    file = b"".join(perfetto(made))
    export = best(lambda: cpu_each(lambda: b"".join(perfetto(made)), 8000))
    return [
        Row("a hop record, written by a node in Python", f"{record_cost():.0f} ns"),
        Row("a record in the daemon: read", f"{read:.2f} µs"),
        Row("joined to messages", f"{join:.2f} µs"),
        Row("its trace completed, counted, and kept or not", f"{keep:.2f} µs"),
        Row(f"all of that for {MAX_RATE:,} records a second", f"{share:.1%} of a core"),
        Row("a trace of three nodes for an exporter: in the daemon", f"{whole:.0f} µs"),
        Row("in the exporter, as eight spans", f"{spans:.0f} µs"),
        Row("a record in a file for Perfetto", f"{export:.1f} µs, {len(file) / 8000:.0f} bytes"),
    ]


def a_top(edges: int) -> Top:
    """Return a measurement of a chain of nodes."""
    counts = [0] * 15 + [100] * 6
    return Top(
        at=time.time(),
        window=5.0,
        nodes=[
            NodeInfo(
                dataflow="u", dataflow_name="flow", node=f"n{n}", status="running", pid=1,
                restarts=0, metrics=NodeMetrics(), started_at=time.time(),
            )
            for n in range(edges + 1)
        ],
        edges=[
            EdgeStats(
                dataflow="u", dataflow_name="flow", source=f"n{n}/out", target=f"n{n + 1}/in",
                queue_size=10, sent=9, received=9, dropped=0, queued=0, payload=90, rate=1.0,
                drop_rate=0.0, bandwidth=1.0, latency=None, jitter=None, latencies=counts,
            )
            for n in range(edges)
        ],
    )  # fmt: skip


def scrape_row(edges: int) -> Row:
    """Measure a scrape."""
    collector = Collector(Resources(Resource({})), time.time_ns(), Exemplars())
    top, machine, own = a_top(edges), read_machine(), Own({}, {})

    def work() -> str:
        return openmetrics(collector.collect(top, machine, own))

    size = len(work()) / 1000
    cost = best(lambda: cpu_each(work, 1)) / 1000
    return Row(f"a scrape with {edges} edges", f"{cost:.1f} ms, {size:.0f} kB")


def sending_rows() -> list[Row]:
    """Measure the exporter with a collector in the same process: CPU of both, so at most that."""
    rows = []
    with http_collector() as collector:
        settings = settings_of({"OTEL_EXPORTER_OTLP_ENDPOINT": collector.url})
        exporter = Exporter(settings, {}, lambda *_change: None)
        record = LogRecord(time.time(), "info", "camera", "frame 17 took 3.2 ms")
        lines = LogLines(dataflow="u", lines=[record] * 500)
        begun, at = time.process_time(), time.monotonic()
        for _ in range(60):
            exporter.logged(lines, "flow")
        exporter.traced(TraceBatch(traces=[as_trace(each, "u") for each in some_trees(1000)]))
        deliveries = exporter.close(60)
        cost, seconds = time.process_time() - begun, time.monotonic() - at
    for name, delivery in deliveries.items():
        if delivery.sent or delivery.dropped:
            text = f"{delivery.sent} sent, {delivery.dropped} dropped"
            rows.append(Row(f"{name} over HTTP to a collector beside it", text))
    rows.append(Row("CPU of exporter and collector together", f"{cost:.1f} s in {seconds:.1f} s"))
    return rows


def live_rows(seconds: float = 10.0) -> list[Row]:
    """Measure a daemon that drains a chain of three nodes at 1 kHz, and what is lost."""
    nodes = [
        {"id": "a", "path": "a.py", "inputs": {"in": "dora/timer/millis/1"}, "outputs": ["out"]},
        {"id": "b", "path": "a.py", "inputs": {"in": "a/out"}, "outputs": ["out"]},
        {"id": "c", "path": "c.py", "inputs": {"in": "b/out"}},
    ]
    with tempfile.TemporaryDirectory() as folder, daemon() as dorad:
        file = write_flow(Path(folder), nodes, a=CAMERA, c=SINK)
        dorad.dora_ok("start", file, "--name", "flow", "--detach")
        assert dorad.process is not None
        process = psutil.Process(dorad.process.pid)
        with dorad.client() as client:
            wait_until(lambda: client.traces("flow").counts.records > 5000)
            before, first = client.traces("flow").counts, process.cpu_times()
            begun = time.monotonic()
            time.sleep(seconds)
            after, last = client.traces("flow").counts, process.cpu_times()
            elapsed = time.monotonic() - begun
            top = client.top()
        dorad.dora_ok("stop", "flow")
    cpu = (last.user + last.system - first.user - first.system) / elapsed
    lost = after.overwritten + after.skipped - before.overwritten - before.skipped
    rate = (after.records - before.records) / elapsed
    worst = max(edge.latency_p99 or 0.0 for edge in top.edges)
    return [
        Row("three nodes in a chain at 1 kHz", f"{rate:.0f} records a second read, {lost} not"),
        Row("the daemon, with all that it does", f"{cpu:.1%} of a core"),
        Row("p99 of the latency of an edge", f"{worst * 1e6:.0f} µs at most"),
    ]


def page() -> str:
    """Measure everything, and return the page."""
    sections = {
        "Records and traces": traces_rows(),
        "Metrics": [scrape_row(10), scrape_row(200)],
        "Sending": sending_rows(),
        "A running daemon": live_rows(),
    }
    load = os.getloadavg()[0]
    lines = [
        TITLE,
        "",
        f"`make bench-observe`, on {os.cpu_count()} cores of {platform.machine()};",
        f"load of the machine at the end: {load:.1f}. Figures are CPU time, the least of several",
        "runs, unless a row says otherwise.",
    ]
    for title, rows in sections.items():
        lines += ["", f"## {title}", "", "| | |", "|---|---|"]
        lines += [f"| {row.what} | {row.figure} |" for row in rows]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Run the measurements, and print or write the page."""
    parser = argparse.ArgumentParser(description="Measure what observing dataflows costs.")
    parser.add_argument("--write", action="store_true", help=f"write {PAGE.name}")
    options = parser.parse_args()
    gc.freeze()
    collect_rarely()
    with command_server():
        text = page()
    print(text)
    if options.write:
        PAGE.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()

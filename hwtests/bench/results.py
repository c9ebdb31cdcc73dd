"""Compute figures from the reports of nodes."""

from collections.abc import Iterator, Mapping
from typing import Any

from hwtests.bench.cases import Flow
from hwtests.bench.stats import Key, percentile

Reports = Mapping[str, dict[str, Any]]
Measured = Iterator[tuple[int, str, float]]
"""Payload size, metric, value."""


def figures_of(flow: Flow, system: str, reports: Reports) -> Iterator[tuple[Key, float]]:
    """Return all figures of one run.

    Raises:
        ValueError: a report holds no measurement, for example because every message of a
            size was lost.
    """
    read = {
        "round trip": _round_trip,
        "one-way": _one_way,
        "burst": _burst,
        "stream": _stream,
    }[flow.kind]
    for size, metric, value in read(reports):
        yield Key(flow.measure, system, size, metric), value


def latencies(size: int, ns: list[float]) -> Measured:
    """Return median and 99th percentile in µs of times in ns."""
    if not ns:
        raise ValueError(f"no message of {size} B arrived")
    yield size, "p50_us", percentile(ns, 0.5) / 1e3
    yield size, "p99_us", percentile(ns, 0.99) / 1e3
    yield size, "samples", float(len(ns))


def slowest(per_receiver: list[dict[str, float]]) -> list[float]:
    """Return the latency of the slowest receiver for each message that all received."""
    first, *others = per_receiver
    return [
        max(latency, *(other[seq] for other in others)) if others else latency
        for seq, latency in first.items()
        if all(seq in other for other in others)
    ]


def _round_trip(reports: Reports) -> Measured:
    for size, step in reports["ping"]["sizes"].items():
        yield from latencies(int(size), step["ns"])
        yield int(size), "lost", step["lost"]


def _one_way(reports: Reports) -> Measured:
    sinks = [report for node, report in reports.items() if node.startswith("sink")]
    for size, sent in reports["sender"]["sent"].items():
        whole = slowest([sink["sizes"].get(size, {}) for sink in sinks])
        yield from latencies(int(size), whole)
        yield int(size), "lost", sent - len(whole)


def _burst(reports: Reports) -> Measured:
    sinks = [report["sizes"] for node, report in reports.items() if node.startswith("sink")]
    for size, step in reports["sender"]["sizes"].items():
        if not step["settled"]:
            raise ValueError(f"the receivers never answered the end of the burst of {size} B")
        tallies = [sink.get(size) for sink in sinks]
        rates = [
            (tally["received"] - 1) / tally["ns"] * 1e9 if tally and tally["ns"] else 0.0
            for tally in tallies
        ]
        yield int(size), "per_s", min(rates)
        yield int(size), "sent_per_s", step["sent"] / step["ns"] * 1e9
        yield int(size), "sent", step["sent"]
        yield int(size), "received", min(tally["received"] if tally else 0 for tally in tallies)


def _stream(reports: Reports) -> Measured:
    shares = {}
    for node in ("source", "sink"):
        report = reports[node]
        if not report["wall_s"]:
            raise ValueError(f"{node} measured nothing")
        shares[node] = 100 * report["cpu_s"] / report["wall_s"]
        yield 0, f"{node}_cpu_percent", shares[node]
    yield 0, "cpu_percent", sum(shares.values())
    yield 0, "messages", reports["sink"]["messages"]

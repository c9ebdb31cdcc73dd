"""Rates, latency and jitter follow from two samples of counters."""

from typing import Any

import msgspec
import pytest

from dorad.control.messages import EdgeStats
from dorad.daemon.broker.readings import EdgeCounters
from dorad.daemon.measuring.rates import EdgeHistory, Rates, between


def _seen(**counts: Any) -> EdgeCounters:
    values: dict[str, Any] = {
        "source_node": "a",
        "output": "o",
        "node": "b",
        "input": "i",
        "queue_size": 10,
    }
    names = EdgeCounters._fields[5:]
    return EdgeCounters(**values | dict.fromkeys(names, 0) | {"latencies": ()} | counts)


@pytest.mark.parametrize(
    ("seconds", "first", "last", "expected"),
    [
        (2.0, {}, {}, Rates(2.0)),
        (
            2.0,
            {"sent": 10, "dropped": 1, "payload_bytes": 100},
            {"sent": 30, "dropped": 5, "payload_bytes": 500},
            Rates(2.0, 10.0, 2.0, 200.0),
        ),
        (
            1.0,
            {"received": 10, "latency_sum": 10**9, "latency_diff": 10**9},
            {"received": 14, "latency_sum": 10**9 + 8_000_000, "latency_diff": 10**9 + 400_000},
            Rates(1.0, 0.0, 0.0, 0.0, 0.002, 0.0001),
        ),
        # five messages from the start have four differences
        (
            1.0,
            {},
            {"received": 5, "latency_sum": 5_000_000, "latency_diff": 400_000},
            Rates(1.0, 0.0, 0.0, 0.0, 0.001, 0.0001),
        ),
        (1.0, {}, {"received": 1, "latency_sum": 3_000_000}, Rates(1.0, 0, 0, 0, 0.003, None)),
        # 8 MiB at 30 Hz for longer than a 32-bit counter lasts
        (
            4.0,
            {"sent": 10**6, "payload_bytes": 10**6 << 23},
            {"sent": 10**6 + 120, "payload_bytes": (10**6 + 120) << 23},
            Rates(4.0, 30.0, 0.0, 30.0 * (8 << 20)),
        ),
    ],
)
def test_rates_between_two_samples(
    seconds: float, first: dict[str, int], last: dict[str, int], expected: Rates
) -> None:
    assert between(seconds, _seen(**first), _seen(**last)) == pytest.approx(expected)


def test_one_sample_has_totals_and_no_rates() -> None:
    history = EdgeHistory()
    history.add(5.0, [_seen(sent=7, received=5, dropped=1, queued=1, payload_bytes=70)])
    (edge,) = history.stats("u", broken=["b/i"])
    assert (edge.source, edge.target, edge.dataflow, edge.broken) == ("a/o", "b/i", "u", True)
    assert (edge.sent, edge.received, edge.dropped, edge.queued) == (7, 5, 1, 1)
    assert (edge.rate, edge.latency, edge.payload) == (0.0, None, 70)
    assert history.window == 0.0


def test_rates_cover_the_window_only() -> None:
    history = EdgeHistory(window=5.0)
    for second in range(60):
        history.add(float(second), [_seen(sent=second * 10 if second < 50 else 500)])
    (edge,) = history.stats("u")
    assert edge.rate == 0.0
    assert edge.sent == 500
    assert history.window == pytest.approx(5.0)


def test_a_late_sample_divides_by_the_real_interval() -> None:
    history = EdgeHistory(window=1.0)
    history.add(0.0, [_seen()])
    history.add(7.0, [_seen(sent=70)])
    assert history.stats("u")[0].rate == pytest.approx(10.0)
    assert history.window == 7.0


def test_a_removed_edge_is_forgotten_and_a_new_one_starts_afresh() -> None:
    history = EdgeHistory()
    history.add(0.0, [_seen(sent=100)])
    history.add(1.0, [])
    assert history.stats("u") == []
    history.add(2.0, [_seen(sent=100)])
    history.add(3.0, [_seen(sent=5)])
    history.add(4.0, [_seen(sent=25)])
    assert history.stats("u")[0].rate == pytest.approx(20.0)


def test_edges_are_distinguished() -> None:
    history = EdgeHistory()
    for at in (0.0, 1.0):
        history.add(at, [_seen(sent=int(at)), _seen(input="j", sent=int(at) * 2)])
    assert [(e.target, e.rate) for e in history.stats("u")] == [("b/i", 1.0), ("b/j", 2.0)]


def test_counters_that_a_node_has_overwritten_are_a_report_that_clients_accept() -> None:
    history = EdgeHistory()
    largest = (1 << 64) - 1
    for second in range(2):
        counts = dict.fromkeys(EdgeCounters._fields[5:], largest)
        history.add(float(second), [_seen(**counts | {"latencies": (largest, 0, 3, 0)})])
    sent = msgspec.json.encode(history.stats("u"))
    (edge,) = msgspec.json.decode(sent, type=list[EdgeStats])
    assert edge.received == (1 << 63) - 1
    assert edge.latencies == [(1 << 63) - 1, 0, 3]

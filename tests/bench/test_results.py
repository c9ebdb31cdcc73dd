"""Figures from the reports of nodes."""

import pytest

from hwtests.bench.cases import Plan, burst, round_trip, spaced, stream
from hwtests.bench.results import figures_of, slowest
from hwtests.bench.stats import Key


def test_a_round_trip_gives_percentiles_in_microseconds_and_what_was_lost():
    reports = {"ping": {"sizes": {"8": {"ns": [1_000, 2_000, 3_000], "lost": 1}}}, "pong": {}}
    found = dict(figures_of(round_trip(Plan(), "round trip"), "ours", reports))
    assert found[Key("round trip", "ours", 8, "p50_us")] == 2.0
    assert found[Key("round trip", "ours", 8, "lost")] == 1


def test_a_size_of_which_no_message_arrived_is_an_error():
    reports = {"ping": {"sizes": {"8": {"ns": [], "lost": 5}}}, "pong": {}}
    with pytest.raises(ValueError, match="no message of 8 B arrived"):
        list(figures_of(round_trip(Plan(), "round trip"), "ours", reports))


def test_fan_out_latency_is_that_of_the_slowest_receiver():
    assert slowest([{"0": 5, "1": 7}, {"0": 9, "1": 2}]) == [9, 7]


def test_a_message_that_one_receiver_missed_is_left_out_and_counted_as_lost():
    reports = {
        "sender": {"sent": {"8": 2}},
        "sink_0": {"sizes": {"8": {"0": 5_000, "1": 7_000}}},
        "sink_1": {"sizes": {"8": {"1": 9_000}}},
    }
    found = dict(figures_of(spaced(Plan(), "fan", "fanout", 2), "dora", reports))
    assert found[Key("fan", "dora", 8, "p50_us")] == 9.0
    assert found[Key("fan", "dora", 8, "lost")] == 1


def burst_reports(settled=True):
    return {
        "sender": {"sizes": {"8": {"sent": 100, "ns": 10**9, "settled": settled}}},
        "sink_0": {"sizes": {"8": {"received": 91, "ns": 10**9}}},
    }


def test_burst_throughput_is_what_was_received_between_first_and_last():
    found = dict(figures_of(burst(Plan(), "burst", "burst", 1, None), "dora", burst_reports()))
    assert found[Key("burst", "dora", 8, "per_s")] == 90
    assert found[Key("burst", "dora", 8, "sent")] == 100
    assert found[Key("burst", "dora", 8, "received")] == 91


def test_a_burst_whose_end_was_never_seen_is_an_error():
    flow = burst(Plan(), "burst", "burst", 1, None)
    with pytest.raises(ValueError, match="never answered the end"):
        list(figures_of(flow, "dora", burst_reports(settled=False)))


def test_stream_cost_is_both_nodes_in_percent_of_a_core():
    reports = {
        "source": {"cpu_s": 0.1, "wall_s": 10.0, "messages": 300},
        "sink": {"cpu_s": 0.05, "wall_s": 10.0, "messages": 300},
    }
    found = dict(figures_of(stream(Plan(), "stream", 33, True), "ours", reports))
    assert found[Key("stream", "ours", 0, "cpu_percent")] == pytest.approx(1.5)

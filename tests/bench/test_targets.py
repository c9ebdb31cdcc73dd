"""The targets of the project, and how a miss is reported."""

import pytest

from hwtests.bench.stats import Key
from hwtests.bench.targets import verdicts


def only(summary):
    (verdict,) = verdicts(summary)
    return verdict


def latency(measure, system, size, value):
    return {Key(measure, system, size, "p50_us"): value}


def test_a_round_trip_40_times_faster_is_reached():
    summary = latency("round trip", "ours", 4096, 10) | latency("round trip", "dora", 4096, 400)
    assert only(summary).reached
    assert str(only(summary)) == "≥ 40x: 40x, reached"


def test_a_missed_target_shows_by_how_much():
    summary = latency("one-way, spaced", "ours", 1 << 20, 400) | latency(
        "one-way, spaced", "dora", 1 << 20, 400
    )
    assert not only(summary).reached
    assert str(only(summary)) == "≥ 2x: 1x, missed by a factor of 2"


def test_a_round_trip_is_compared_with_iceoryx2_too():
    summary = latency("round trip", "ours", 8 << 20, 90) | latency(
        "round trip", "iceoryx2 polling", 8 << 20, 100
    )
    assert str(only(summary)) == "≤ 1x of iceoryx2 polling: 0.9x, reached"


def test_arrays_in_shared_memory_are_compared_with_our_smallest_round_trip():
    size = 8 << 20
    allocated = latency("round trip, allocated in shm", "ours", size, 12)
    assert only(allocated | latency("round trip", "ours", 8, 10)).got == 1.2


def test_the_native_data_plane_is_compared_with_the_one_in_python():
    summary = {
        Key("stream 1 kHz", "ours", 0, "cpu_percent"): 6.0,
        Key("stream 1 kHz, pure Python", "ours", 0, "cpu_percent"): 12.0,
    }
    assert str(only(summary)) == "≤ 0.55x of pure Python: 0.5x, reached"


def test_spinning_is_compared_with_our_own_figure_without_it():
    summary = {
        Key("stream 1 kHz", "ours", 0, "cpu_percent"): 8.0,
        Key("stream 1 kHz, spin off", "ours", 0, "cpu_percent"): 5.0,
    }
    assert str(only(summary)) == (
        "≤ 2 % of a core more than with spinning off: 3 % of a core, missed by 1 % of a core"
    )


def test_the_help_has_its_own_limit():
    assert str(only({Key("dora --help", "ours", 0, "s"): 0.025})) == "≤ 25 ms: 25 ms, reached"


@pytest.mark.parametrize("measure", ["hello", "first tick", "first tick, CPU"])
def test_a_start_may_take_as_long_as_that_of_the_peer(measure):
    summary = {Key(measure, "ours", 0, "s"): 1.1, Key(measure, "dora", 0, "s"): 1.0}
    assert not only(summary).reached
    assert only(summary | {Key(measure, "ours", 0, "s"): 1.0}).reached


def test_without_figures_there_is_no_verdict():
    assert verdicts({}) == []
    assert verdicts(latency("round trip", "ours", 8, 10)) == []


def test_a_struct_is_compared_with_a_bare_array_and_with_dora():
    nested = latency("round trip, nested", "ours", 80, 12)
    bare = only(nested | latency("round trip, bare", "ours", 80, 8))
    assert str(bare) == "≤ 2x of a bare array of as many bytes: 1.5x, reached"
    beside = only(nested | latency("round trip, nested", "dora", 80, 360))
    assert str(beside) == "≥ 20x: 30x, reached"


@pytest.mark.parametrize("languages", ["", ", C and C", ", C and Python"])
def test_nested_data_is_compared_with_bare_arrays_between_the_same_languages(languages):
    summary = latency(f"round trip, nested{languages}", "ours", 80, 3) | latency(
        f"round trip, bare{languages}", "ours", 80, 2
    )
    assert str(only(summary)) == "≤ 2x of a bare array of as many bytes: 1.5x, reached"

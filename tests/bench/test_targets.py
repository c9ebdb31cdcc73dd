"""The targets of the project, and how a miss is reported."""

from hwtests.bench.stats import Key
from hwtests.bench.targets import verdicts


def only(summary):
    (verdict,) = verdicts(summary)
    return verdict


def latency(measure, system, size, value):
    return {Key(measure, system, size, "p50_us"): value}


def test_a_round_trip_25_times_faster_is_reached():
    summary = latency("round trip", "ours", 8, 10) | latency("round trip", "dora", 8, 250)
    assert only(summary).reached
    assert str(only(summary)) == "≥ 25x: 25x, reached"


def test_a_missed_target_shows_by_how_much():
    summary = latency("round trip", "ours", 1 << 20, 100) | latency(
        "round trip", "dora", 1 << 20, 400
    )
    assert not only(summary).reached
    assert str(only(summary)) == "≥ 8x: 4x, missed by a factor of 2"


def test_arrays_in_shared_memory_are_compared_with_heap_arrays_of_dora():
    size = 8 << 20
    born = latency("round trip, allocated in shm", "ours", size, 30)
    heap = latency("round trip", "dora", size, 30_000)
    raw = latency("round trip, allocated in shm", "dora", size, 29_000)
    assert only(born | heap | raw).got == 1000
    assert "against dora's round trip" in str(only(born | heap | raw))


def test_spinning_is_compared_with_our_own_figure_without_it():
    summary = {
        Key("stream 1 kHz", "ours", 0, "cpu_percent"): 8.0,
        Key("stream 1 kHz, spin off", "ours", 0, "cpu_percent"): 5.0,
    }
    assert str(only(summary)) == (
        "≤ 2 % of a core more than with spinning off: 3 % of a core, missed by 1 % of a core"
    )


def test_the_help_has_a_limit_of_its_own():
    assert str(only({Key("dora --help", "ours", 0, "s"): 0.05})) == "≤ 50 ms: 50 ms, reached"


def test_hello_may_take_one_and_a_half_times_as_long():
    summary = {Key("hello", "ours", 0, "s"): 1.6, Key("hello", "dora", 0, "s"): 1.0}
    assert not only(summary).reached


def test_without_figures_there_is_no_verdict():
    assert verdicts({}) == []
    assert verdicts(latency("round trip", "ours", 8, 10)) == []

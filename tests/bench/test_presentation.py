"""The table, the page and the picture of a run."""

import xml.etree.ElementTree as ET

import pytest
from rich.console import Console

from hwtests.bench.chart import Scale, chart, scale_for, time_text
from hwtests.bench.markdown import page
from hwtests.bench.stats import Key
from hwtests.bench.table import losses, main_table, number, rows, size_text

SUMMARY = {
    Key("round trip", "ours", 8, "p50_us"): 10.0,
    Key("round trip", "ours", 8, "p99_us"): 20.0,
    Key("round trip", "dora", 8, "p50_us"): 363.0,
    Key("round trip", "dora", 8, "p99_us"): 500.0,
    Key("burst", "ours", 8, "per_s"): 120_000.0,
    Key("burst", "dora", 8, "per_s"): 20_000.0,
    Key("burst", "dora", 8, "sent"): 20_000.0,
    Key("burst", "dora", 8, "received"): 15_000.0,
    Key("round trip", "eventfd free", 0, "p50_us"): 38.0,
    Key("round trip", "iceoryx2 polling", 8, "p50_us"): 4.5,
}


def test_a_row_shows_the_ratio_in_either_direction():
    latency, burst = rows(SUMMARY)
    assert latency.times == pytest.approx(36.3)
    assert burst.times == pytest.approx(6.0)
    assert not latency.reached
    assert not burst.reached


def test_a_measure_that_only_one_side_has_still_gets_its_row():
    (row,) = rows({Key("round trip, spin off", "ours", 8, "p50_us"): 70.0})
    assert (row.ours, row.peer, row.times, row.reached) == (70.0, None, None, None)


def test_the_table_shows_both_sides():
    console = Console(width=150, record=True, file=None, quiet=False)
    with console.capture() as capture:
        console.print(main_table(SUMMARY))
    text = capture.get()
    assert "10 µs" in text
    assert "363 µs" in text
    assert "36.3x" in text


def test_drops_are_shown():
    assert losses(SUMMARY) == ["dora: burst, 8 B: 15000 of 20000 received"]


def test_numbers_carry_their_unit():
    assert number(0.0417, "s") == "41.7 ms"
    assert number(9_999, "p50_us") == "9,999 µs"
    assert number(30_144, "p50_us") == "30.1 ms"
    assert number(76543.2, "per_s") == "76,543/s"
    assert number(None, "p50_us") == "-"


def test_sizes_have_readable_units():
    assert [size_text(size) for size in (0, 8, 4096, 8 << 20)] == ["", "8 B", "4 KiB", "8 MiB"]


def test_the_page_holds_table_floor_and_losses():
    text = page(SUMMARY, "a machine")
    assert "| round trip | 8 B | 10 µs | 20 µs | 363 µs | 500 µs | 36.3x |" in text
    assert "| round trip | iceoryx2 polling |" in text
    assert "- dora: burst, 8 B: 15000 of 20000 received" in text


def test_the_picture_is_well_formed_and_names_every_system_it_shows():
    root = ET.fromstring(chart(SUMMARY, 'a "machine" & more'))
    text = " ".join(root.itertext())
    assert "ours, heap array" in text
    assert "dora 1.1.0, heap array" in text
    assert "bare eventfd, unpinned" in text
    assert "send_output_raw" not in text


def test_a_decade_is_as_high_as_another():
    scale = Scale(0, 2)
    assert scale.y(1) - scale.y(10) == pytest.approx(scale.y(10) - scale.y(100))


def test_a_scale_holds_its_values():
    assert scale_for([4.5, 30_000]) == Scale(0, 5)
    assert scale_for([10.0, 10.0]) == Scale(1, 2)


def test_times_have_the_unit_that_suits_them():
    assert [time_text(us) for us in (4.46, 63.2, 1_500, 30_144)] == [
        "4.5 µs",
        "63 µs",
        "1.5 ms",
        "30 ms",
    ]

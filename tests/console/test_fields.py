"""Values of messages as a tree, a table and a scan: functions of data."""

from __future__ import annotations

import math
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from dorad.terminal import visible
from dorafleet.console.view import fields, scan, words
from dorafleet.console.view.rows import fitted, line, plain

POSE = {
    "frame": "map",
    "pose": {"x": 1.5, "y": -2.0, "covariance": [0.1, 0.2]},
    "ok": True,
    "objects": [{"id": 7, "box": {"w": 2.0}}, {"id": 8, "box": {"w": 3.0}, "label": "cup"}],
    "ranges": [float(n) for n in range(100)],
    "empty": [],
    "nothing": None,
}


def test_a_struct_is_a_tree_of_fields_with_values() -> None:
    rows = {each.path: each for each in fields.fields(POSE)}
    assert list(rows) == [
        *("frame", "pose", "pose.x", "pose.y"),
        *("pose.covariance", "pose.covariance[0]", "pose.covariance[1]"),
        *("ok", "objects", "ranges", "empty", "nothing"),
    ]
    assert (rows["pose.x"].text, rows["pose.x"].number, rows["pose.x"].depth) == ("1.5", 1.5, 1)
    assert rows["ok"].number == 1.0 and rows["frame"].number is None
    assert rows["objects"].is_table and rows["objects"].text == "2 structs"
    assert rows["ranges"].text.startswith("100 values: 0, 1, 2")
    assert [fields.text_of(each) for each in (1_796_000_000.25, 1e-9, 2 / 3, 1e12)] == [
        *("1796000000.25", "1e-09", "0.666667", "1e+12")
    ]
    assert rows["nothing"].text == "None" and rows["empty"].text == "0 values"


def test_a_list_of_structs_is_a_table_in_which_numbers_stand_below_each_other() -> None:
    assert fields.at(POSE, "objects") == POSE["objects"]
    assert fields.at(POSE, "pose.x") is None
    assert [plain(each).rstrip() for each in fields.table(fields.at(POSE, "objects"))] == [
        " #  id  box.w  label",
        " 0   7      2",
        " 1   8      3  'cup'",
    ]
    many = fields.table([{"a": 1}] * 1000)
    assert "800 more structs" in plain(many[-1])


ANY = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary(),
    lambda inner: st.lists(inner, max_size=20) | st.dictionaries(st.text(), inner, max_size=20),
    max_leaves=40,
)


@given(st.dictionaries(st.text(), ANY) | st.lists(ANY))
def test_any_value_is_a_tree_and_its_lists_are_tables(value: Any) -> None:
    rows = fields.fields(value)
    assert len(rows) <= fields.MAX_FIELDS + 1
    shown = fitted(fields.COLUMNS, 80)
    lines = [line(fields.row(each, 3), shown) for each in rows]
    for path in ["", *(each.path for each in rows if each.is_table)]:
        lines += fields.table(fields.at(value, path) or [])
    for spans in lines:
        assert all(visible(text) == text for text, _ in spans)
    assert len(fields.text_of(value)) <= 2 * fields.MAX_TEXT
    assert all(words.width(plain(each)) <= 80 for each in lines[: len(rows)])


def test_of_very_many_fields_the_first_are_shown_and_the_others_counted() -> None:
    rows = fields.fields({f"f{n}": n for n in range(600)})
    assert len(rows) == fields.MAX_FIELDS + 1
    assert rows[-1].text == "100 more fields are not shown"


def wall(far: float = 2.0) -> dict[str, Any]:
    """Return a scan of ROS: a wall two metres ahead, 30 degrees to both sides, nothing else."""
    angles = [math.radians(degree - 180) for degree in range(360)]
    ranges = [far / math.cos(a) if abs(a) < math.pi / 6 else math.inf for a in angles]
    return {"angle_min": -math.pi, "angle_increment": math.radians(1), "ranges": ranges}


def test_a_scan_is_drawn_from_above_with_what_is_ahead_at_the_top() -> None:
    found_scan = scan.scan_of(wall(), {})
    assert found_scan is not None
    lines = [plain(each) for each in scan.lines(found_scan, 60, 21)]
    assert len(lines) == 21
    marked = [at for at, each in enumerate(lines[:-1]) if set(each) - {" ", "+"}]
    assert marked and max(marked) <= 3, "a wall ahead is a line at the top"
    (middle,) = [at for at, each in enumerate(lines) if "+" in each[25:35] and at < 20]
    assert 9 <= middle <= 11
    assert "59 of 360 ranges, nearest 2 m" in lines[-1]
    ascii_lines = [plain(each) for each in scan.lines(found_scan, 60, 21, ascii_only=True)]
    assert all(each.isascii() for each in ascii_lines)


def test_an_array_of_ranges_is_a_scan_if_its_metadata_say_so() -> None:
    given_wall = wall()
    ranges = given_wall.pop("ranges")
    assert scan.scan_of(ranges, given_wall) is not None
    assert scan.scan_of(ranges, {}) is None
    assert scan.scan_of({"ranges": ranges}, given_wall) is None


NUMBERS = st.none() | st.floats() | st.integers() | st.text(max_size=1)


@given(st.lists(NUMBERS), NUMBERS, NUMBERS, st.integers(0, 80), st.integers(0, 30))
def test_any_ranges_and_angles_are_a_drawing_that_fits(
    ranges: list[Any], start: Any, step: Any, columns: int, rows: int
) -> None:
    value = {"ranges": ranges, "angle_min": start, "angle_increment": step}
    scanned = scan.scan_of(value, {})
    if scanned is not None:
        for spans in scan.lines(scanned, columns, rows)[:-1]:
            assert words.width(plain(spans)) <= columns

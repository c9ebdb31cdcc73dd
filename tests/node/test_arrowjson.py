"""Arrow arrays in test files: the same JSON as in dora 1.1.0, and a round trip without loss."""

import datetime as dt
import json
import math
from decimal import Decimal
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dorad.node.offline import arrowtimes
from dorad.node.offline.arrowjson import from_json, to_json


def field(name: str, data_type: Any, *, nullable: bool = True) -> dict[str, Any]:
    return {
        "name": name,
        "data_type": data_type,
        "nullable": nullable,
        "dict_id": 0,
        "dict_is_ordered": False,
        "metadata": {},
    }


ITEM = field("item", "Int64")
ENTRIES = {"Struct": [field("key", "Utf8", nullable=False), field("value", "Int64")]}

# What dora 1.1.0 wrote for the same arrays; where it writes nothing, the line says so.
CASES: list[tuple[pa.Array, list[Any], Any]] = [
    (pa.array([1, None, -3]), [1, None, -3], "Int64"),
    (pa.array([2**63 - 1, -(2**63)]), [2**63 - 1, -(2**63)], "Int64"),
    (pa.array([2**64 - 1], pa.uint64()), [2**64 - 1], "UInt64"),
    (pa.array([1.5, None, 1e20, 0.1]), [1.5, None, 1e20, 0.1], "Float64"),
    (pa.array([math.inf, -math.inf]), ["Infinity", "-Infinity"], "Float64"),
    (pa.array([0.1], pa.float32()), [0.10000000149011612], "Float32"),
    (pa.array(np.array([1.5], np.float16)), [1.5], "Float16"),
    (pa.array([True, None, False]), [True, None, False], "Boolean"),
    (pa.array(["a", None, 'é"\n']), ["a", None, 'é"\n'], "Utf8"),
    (pa.array(["x"], pa.large_string()), ["x"], "LargeUtf8"),
    (pa.array(["x"], pa.string_view()), ["x"], "Utf8View"),
    (pa.array([b"ab", None]), ["6162", None], "Binary"),
    (pa.array([b"ab"], pa.large_binary()), ["6162"], "LargeBinary"),
    (pa.array([b"ab"], pa.binary_view()), ["6162"], "BinaryView"),
    (pa.array([b"ab"], pa.binary(2)), ["6162"], {"FixedSizeBinary": 2}),
    (pa.nulls(2), [None, None], "Null"),
    (pa.array([], pa.int32()), [], "Int32"),
    (pa.array([1, 2, 3])[1:], [2, 3], "Int64"),
    (pa.array([dt.date(2020, 1, 2)]), ["2020-01-02"], "Date32"),
    (pa.array([86_400_000], pa.date64()), ["1970-01-02T00:00:00"], "Date64"),
    (pa.array([3661], pa.time32("s")), ["01:01:01"], {"Time32": "Second"}),
    (
        pa.array([dt.time(12, 0, 1, 5)]),
        ["12:00:01.000005"],
        {"Time64": "Microsecond"},
    ),
    (
        pa.array([5], pa.timestamp("ns")),
        ["1970-01-01T00:00:00.000000005"],
        {"Timestamp": ["Nanosecond", None]},
    ),
    (
        pa.array([5, -1], pa.timestamp("ms")),
        ["1970-01-01T00:00:00.005", "1969-12-31T23:59:59.999"],
        {"Timestamp": ["Millisecond", None]},
    ),
    (
        pa.array([5], pa.timestamp("ms", "+01:00")),
        ["1970-01-01T01:00:00.005+01:00"],
        {"Timestamp": ["Millisecond", "+01:00"]},
    ),
    (  # dora 1.1.0 knows no zone that is not an offset
        pa.array([5], pa.timestamp("ms", "Europe/Paris")),
        ["1970-01-01T00:00:00.005Z"],
        {"Timestamp": ["Millisecond", "Europe/Paris"]},
    ),
    (pa.array([5, -3], pa.duration("s")), ["PT5S", "-PT3S"], {"Duration": "Second"}),
    (
        pa.array([1_500_000_001], pa.duration("ns")),
        ["PT1.500000001S"],
        {"Duration": "Nanosecond"},
    ),
    (pa.array([Decimal("1.23"), None]), [1.23, None], {"Decimal128": [3, 2]}),
    (pa.array([Decimal("1.23")], pa.decimal256(40, 2)), [1.23], {"Decimal256": [40, 2]}),
    (pa.array([[1, 2], None, []]), [[1, 2], None, []], {"List": ITEM}),
    (pa.array([[1]], pa.large_list(pa.int64())), [[1]], {"LargeList": ITEM}),
    (pa.array([[1]], pa.list_view(pa.int64())), [[1]], {"ListView": ITEM}),
    (pa.array([[1, 2]], pa.list_(pa.int64(), 2)), [[1, 2]], {"FixedSizeList": [ITEM, 2]}),
    (
        pa.array([{"a": 1, "b": None}, None], pa.struct({"a": pa.int64(), "b": pa.string()})),
        [{"a": 1}, None],
        {"Struct": [field("a", "Int64"), field("b", "Utf8")]},
    ),
    (
        pa.array([[("a", 1)], None], pa.map_(pa.string(), pa.int64())),
        [{"a": 1}, None],
        {"Map": [field("entries", ENTRIES, nullable=False), False]},
    ),
    (
        pa.DictionaryArray.from_arrays(pa.array([0, 1, None], pa.int8()), pa.array(["a", "b"])),
        ["a", "b", None],
        {"Dictionary": ["Int8", "Utf8"]},
    ),
    (
        pa.RunEndEncodedArray.from_arrays(pa.array([2, 3], pa.int32()), pa.array(["a", "b"])),
        ["a", "a", "b"],
        {
            "RunEndEncoded": [
                field("run_ends", "Int32", nullable=False),
                field("values", "Utf8"),
            ]
        },
    ),
]


@pytest.mark.parametrize(
    ("array", "data", "data_type"), CASES, ids=[str(case[0].type) for case in CASES]
)
def test_an_array_is_written_as_dora_does_and_read_back(
    array: pa.Array, data: list[Any], data_type: Any
) -> None:
    written = to_json(array)
    assert written == {"data": data, "data_type": data_type}
    read = from_json(**_through_text(written))
    read.validate(full=True)
    assert read.equals(array)


def _through_text(written: dict[str, Any]) -> dict[str, Any]:
    content = json.loads(json.dumps(written))
    return {"data": content["data"], "description": content["data_type"]}


def test_a_nan_is_written_and_read_back() -> None:
    written = to_json(pa.array([math.nan]))
    assert written["data"] == ["NaN"]
    assert math.isnan(from_json(**_through_text(written))[0].as_py())


def test_metadata_and_nullability_of_a_field_round_trip() -> None:
    kind = pa.struct([pa.field("a", pa.int64(), nullable=False, metadata={"unit": "m"})])
    array = pa.array([{"a": 1}], kind)
    read = from_json(**_through_text(to_json(array)))
    assert read.type.field(0).equals(kind.field(0), check_metadata=True)


def test_an_extension_array_is_written_as_its_storage() -> None:
    array = pa.ExtensionArray.from_storage(pa.opaque(pa.int64(), "t", "v"), pa.array([1]))
    assert to_json(array) == {"data": [1], "data_type": "Int64"}


def test_a_decimal_that_no_float_holds_is_written_as_text() -> None:
    value = Decimal("12345678901234567890.12")
    written = to_json(pa.array([value]))
    assert written["data"] == [str(value)]
    assert from_json(**_through_text(written)).to_pylist() == [value]


@pytest.mark.parametrize(
    "array",
    [
        pa.array([pa.MonthDayNano([1, 2, 3])]),
        pa.UnionArray.from_sparse(pa.array([0], pa.int8()), [pa.array([1])]),
        pa.array([[(1, 1)]], pa.map_(pa.int64(), pa.int64())),
    ],
    ids=["interval", "union", "map-of-numbers"],
)
def test_types_without_a_json_form_are_refused(array: pa.Array) -> None:
    with pytest.raises(ValueError, match="JSON"):
        to_json(array)


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (1, pa.array([1])),
        (1.5, pa.array([1.5])),
        ("s", pa.array(["s"])),
        (True, pa.array([True])),
        (None, pa.nulls(1)),
        ([], pa.nulls(0)),
        ([1, None], pa.array([1, None])),
        ([1, 2.5], pa.array([1.0, 2.5])),
        ([[1], [2, 3]], pa.array([[1], [2, 3]])),
        ({"a": 1}, pa.array([{"a": 1}])),
        ([{"a": 1}, {"a": 2, "b": "x"}], pa.array([{"a": 1}, {"a": 2, "b": "x"}])),
    ],
    ids=lambda value: "" if isinstance(value, pa.Array) else json.dumps(value),
)
def test_a_missing_type_is_inferred(data: Any, expected: pa.Array) -> None:
    assert from_json(data).equals(expected)


@pytest.mark.parametrize(
    ("data", "data_type"),
    [
        ([300], "Int8"),
        (["x"], "Int64"),
        ([5], "Utf8"),
        ([1], "Boolean"),
        (["xyz"], "Binary"),
        ([1], {"List": ITEM}),
        ([1], {"Struct": [ITEM]}),
        ([1], {"Map": [field("entries", ENTRIES, nullable=False), False]}),
        (["yesterday"], "Date32"),
        (["12h"], {"Time64": "Microsecond"}),
        (["2020-01-01T00:00:00.5"], {"Timestamp": ["Second", None]}),
        (["P"], {"Duration": "Second"}),
        (["many"], {"Decimal128": [10, 2]}),
        ([1], "Int"),
        ([1], {"Int": 5}),
        ([1], {"Timestamp": ["Fortnight", None]}),
        ([1], {"List": {"name": "item"}}),
        ([1], 5),
        ([1], {}),
        ([1, "a"], None),
    ],
    ids=repr,
)
def test_data_that_does_not_fit_is_refused(data: Any, data_type: Any) -> None:
    with pytest.raises(ValueError, match=r".+"):
        from_json(data, data_type)


def test_numbers_are_accepted_where_strings_are_written() -> None:
    assert from_json([18_000], "Date32").to_pylist() == [dt.date(2019, 4, 14)]
    assert from_json([5], {"Duration": "Microsecond"}).to_pylist() == [dt.timedelta(microseconds=5)]
    assert from_json("5", "Int64").to_pylist() == [5]
    assert from_json(1.5, {"Decimal128": [10, 2]}).to_pylist() == [Decimal("1.50")]


UNITS = st.sampled_from(list(arrowtimes.PER_SECOND))
SECONDS = st.integers(-(10**10), 10**11)


@given(
    UNITS, SECONDS, st.integers(0, 10**9 - 1), st.sampled_from([None, "+05:30", "-08:00", "UTC"])
)
def test_every_timestamp_round_trips(unit: str, seconds: int, part: int, zone: str | None) -> None:
    per_second = arrowtimes.PER_SECOND[unit]
    count = seconds * per_second + part % per_second
    assert arrowtimes.stamp_count(arrowtimes.stamp_text(count, unit, zone), unit, zone) == count


@given(UNITS, st.integers(-(2**62), 2**62))
def test_every_duration_round_trips(unit: str, count: int) -> None:
    assert arrowtimes.duration_count(arrowtimes.duration_text(count, unit), unit) == count


@given(UNITS, st.integers(0, 86_399), st.integers(0, 10**9 - 1))
def test_every_time_of_day_round_trips(unit: str, seconds: int, part: int) -> None:
    per_second = arrowtimes.PER_SECOND[unit]
    count = seconds * per_second + part % per_second
    assert arrowtimes.time_count(arrowtimes.time_text(count, unit), unit) == count


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("2020-07-01", 1593561600),
        ("2020-07-01T12:00:00Z", 1593604800),
        ("2020-07-01 12:00:00+0200", 1593597600),
        ("2020-07-01T12:00", 1593604800),
    ],
)
def test_timestamps_are_read_in_other_notations(text: str, seconds: int) -> None:
    assert arrowtimes.stamp_count(text, "s", None) == seconds


def test_a_timestamp_without_offset_is_in_the_zone_of_its_column() -> None:
    assert arrowtimes.stamp_count("2020-07-01T12:00:00", "s", "Europe/Paris") == 1593597600

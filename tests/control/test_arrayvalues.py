"""Arrays of any number of values: as a stream, as Python objects, and the size of those."""

import tracemalloc

import numpy as np
import pyarrow as pa
import pytest

from dorad.control.arrays import from_ipc, to_ipc
from dorad.control.arrayvalues import python_size, to_python_within

MANY = 2**31 - 1


def nulls(length: int) -> pa.Array:
    return pa.Array.from_buffers(pa.null(), length, [None])


def views(values: pa.Array, lists: int) -> pa.Array:
    """Return lists that all have all of the same values."""
    return pa.ListViewArray.from_arrays(
        pa.array([0] * lists, pa.int32()), pa.array([len(values)] * lists, pa.int32()), values
    )


def union(*fields: pa.Array, length: int) -> pa.Array:
    """Return a union with `length` values, each the first one of the first field."""
    kinds, at = pa.array([0] * length, pa.int8()), pa.array([0] * length, pa.int32())
    return pa.UnionArray.from_dense(kinds, at, list(fields))


def test_an_array_of_any_length_fits_into_a_stream() -> None:
    array = from_ipc(to_ipc(nulls(2**40)))
    assert array is not None
    assert (len(array), array.type) == (2**40, pa.null())


@pytest.mark.parametrize(
    "array",
    [
        nulls(2**40),
        pa.Array.from_buffers(pa.struct([("a", pa.null())]), MANY, [None], children=[nulls(MANY)]),
        pa.Array.from_buffers(pa.list_(pa.null(), 2**30), 2, [None], children=[nulls(2**31)]),
        pa.RunEndEncodedArray.from_arrays(pa.array([MANY], pa.int32()), pa.array([5])),
        pa.DictionaryArray.from_arrays(pa.array([0] * 2_000, pa.int8()), pa.array(["x" * 10**6])),
        views(pa.array([1] * 100_000, pa.int8()), 10_000),
        views(views(views(pa.array(["x"] * 200), 200), 200), 200),
        union(pa.array(["x" * 1_000_000]), pa.array([1]), length=2_000),
    ],
    ids=lambda array: str(array.type),
)
def test_a_few_bytes_that_stand_for_very_many_values_are_large(array: pa.Array) -> None:
    assert array.nbytes < 4 << 20
    assert python_size(array) > 1 << 30


WORDS = ["a", None, "b" * 50, ""]


@pytest.mark.parametrize(
    "array",
    [
        pa.array(np.arange(2_000) + 10**6),
        pa.array(np.arange(2_000), pa.uint8(), safe=False),
        pa.array(np.linspace(0, 1, 2_000), pa.float32()),
        pa.array([True, None] * 1_000),
        pa.array(WORDS * 500),
        pa.array(WORDS * 500, pa.large_binary()),
        pa.array(WORDS * 500, pa.string_view()),
        pa.array(WORDS * 500).dictionary_encode(),
        pa.array([None, b"abcde"] * 1_000, pa.binary(5)),
        pa.array([0] * 1_000, pa.decimal128(5)),
        pa.array([[1, 2], None, [], [10**6]] * 500),
        pa.array([[1, 2], None] * 500, pa.list_(pa.int8(), 2)),
        pa.array([{"x": 1.5, "y": "word"}, None] * 500),
        pa.array([[("a", 1), ("b", 2)], []] * 500, pa.map_(pa.string(), pa.int8())),
        views(pa.array(range(10), pa.int8()), 500),
    ],
    ids=lambda array: str(array.type),
)
@pytest.mark.parametrize("part", [slice(None), slice(100, 700)], ids=["whole", "slice"])
def test_what_values_take_is_known_without_making_them(array: pa.Array, part: slice) -> None:
    array = array[part]
    array.to_pylist()  # what Arrow makes once
    tracemalloc.start()
    values = array.to_pylist()
    taken, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert taken / 4 < python_size(array) < 8 * taken, len(values)


@pytest.mark.parametrize(
    "kind",
    [
        pa.null(),
        pa.string(),
        pa.string_view(),
        pa.list_(pa.string()),
        pa.list_view(pa.string()),
        pa.dictionary(pa.int8(), pa.string()),
        pa.struct([]),
        pa.map_(pa.string(), pa.int8()),
    ],
    ids=str,
)
def test_an_array_without_values_takes_nothing(kind: pa.DataType) -> None:
    assert python_size(pa.array([], kind)) == 0


@pytest.mark.parametrize(
    "kind", [pa.timestamp("ns"), pa.duration("ns"), pa.time64("ns"), pa.timestamp("s")]
)
def test_times_that_python_cannot_hold_become_integers(kind: pa.DataType) -> None:
    numbers = pa.array([1, None, 2**55 + 1], pa.int64())
    times = numbers.cast(kind)
    assert to_python_within(times, 1 << 20) == [1, None, 2**55 + 1]
    lists = pa.ListArray.from_arrays([0, 1, 3], times)
    assert to_python_within(lists, 1 << 20) == [[1], [None, 2**55 + 1]]


def test_what_cannot_be_converted_or_is_too_large_has_no_values() -> None:
    for time in (pa.array([1], pa.duration("ns")), pa.array([2**62], pa.timestamp("s"))):
        assert to_python_within(union(time, length=1), 1 << 20) is None
    assert to_python_within(pa.array([1.5] * 100), 1000) is None

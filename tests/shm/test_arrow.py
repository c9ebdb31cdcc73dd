"""Arrow arrays as buffers in shared memory, and back."""

from __future__ import annotations

import datetime
import decimal
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dorad.shm import arrow, layout


def round_trip(array: Any) -> pa.Array:
    """Encode, lay out in memory as a publisher does, and decode as a subscriber does."""
    code, length, nulls, size, parts = arrow.encode(array)
    memory = bytearray(size)
    for at, data in parts:
        view = memoryview(data)
        memory[at : at + view.nbytes] = view.cast("B") if view.nbytes else b""
    received = arrow.decode(code, length, nulls, pa.py_buffer(bytes(memory)))
    received.validate(full=True)
    return received


class Celsius(pa.ExtensionType):
    def __init__(self) -> None:
        super().__init__(pa.float32(), "test.celsius")

    def __arrow_ext_serialize__(self) -> bytes:
        return b""

    @classmethod
    def __arrow_ext_deserialize__(cls, storage: pa.DataType, serialized: bytes) -> Celsius:
        return cls()


SCALARS = [
    *(pa.int8(), pa.int16(), pa.int32(), pa.int64()),
    *(pa.uint8(), pa.uint16(), pa.uint32(), pa.uint64()),
    *(pa.float32(), pa.float64(), pa.bool_(), pa.string(), pa.binary()),
    *(pa.large_string(), pa.large_binary(), pa.date32(), pa.date64()),
    *(pa.time32("ms"), pa.time64("ns"), pa.timestamp("us", "UTC"), pa.duration("ns")),
    *(pa.decimal128(20, 3), pa.binary(4), pa.string_view(), pa.null()),
]

VALUES: dict[str, st.SearchStrategy[Any]] = {
    "bool": st.booleans(),
    "string": st.text(max_size=20),
    "large_string": st.text(max_size=20),
    "string_view": st.text(max_size=40),
    "binary": st.binary(max_size=20),
    "large_binary": st.binary(max_size=20),
    "fixed_size_binary[4]": st.binary(min_size=4, max_size=4),
    "date32[day]": st.dates(),
    "date64[ms]": st.dates(),
    "time32[ms]": st.times().map(lambda t: t.replace(microsecond=t.microsecond // 1000 * 1000)),
    "time64[ns]": st.times(),
    "timestamp[us, tz=UTC]": st.datetimes(timezones=st.just(datetime.UTC)),
    "duration[ns]": st.integers(-(10**15), 10**15),
    "decimal128(20, 3)": st.integers(-(10**15), 10**15).map(
        lambda n: decimal.Decimal(n).scaleb(-3)
    ),
    "float": st.floats(width=32, allow_nan=False),
    "double": st.floats(allow_nan=False),
    "null": st.none(),
}


def values_of(kind: pa.DataType) -> st.SearchStrategy[Any]:
    if pa.types.is_integer(kind):
        bits = kind.bit_width
        signed = pa.types.is_signed_integer(kind)
        low = -(1 << (bits - 1)) if signed else 0
        return st.integers(low, low + (1 << bits) - 1)
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        return st.lists(st.none() | values_of(kind.value_type), max_size=4)
    if pa.types.is_fixed_size_list(kind):
        size = kind.list_size
        return st.lists(values_of(kind.value_type), min_size=size, max_size=size)
    if pa.types.is_struct(kind):
        fields = {field.name: st.none() | values_of(field.type) for field in kind}
        return st.fixed_dictionaries(fields)
    if pa.types.is_dictionary(kind):
        return values_of(kind.value_type)
    return VALUES[str(kind)]


TYPES = st.recursive(
    st.sampled_from(SCALARS),
    lambda inner: st.one_of(
        inner.map(pa.list_),
        inner.map(pa.large_list),
        inner.map(lambda t: pa.list_(t, 3)),
        st.lists(inner, min_size=1, max_size=3).map(
            lambda ts: pa.struct([(f"f{i}", t) for i, t in enumerate(ts)])
        ),
    ),
    max_leaves=4,
)


@st.composite
def arrays(draw: st.DrawFn) -> pa.Array:
    kind = draw(TYPES)
    values = draw(st.lists(st.none() | values_of(kind), max_size=30))
    array = pa.array(values, kind)
    if draw(st.booleans()) and len(array):
        start = draw(st.integers(0, len(array)))
        array = array.slice(start, draw(st.integers(0, len(array) - start)))
    return array


@given(arrays())
def test_every_array_arrives_as_it_was_sent(array: pa.Array) -> None:
    received = round_trip(array)
    assert received.type == array.type
    assert received.equals(array)


@pytest.mark.parametrize(
    "array",
    [
        pa.array(["a", "b", "a", None]).dictionary_encode(),
        pa.ExtensionArray.from_storage(Celsius(), pa.array([1.5, None], pa.float32())),
        pa.array([{"pose": [1.0, 2.0], "label": "x"}, None]),
        pa.array([[{"x": 1}], []]),
        pa.array([{"a": 1, "b": 2}] * 5).slice(1, 3),
        pa.array([[("k", 1)]], pa.map_(pa.string(), pa.int32())),
        pa.RunEndEncodedArray.from_arrays([2, 5], ["x", "y"]),
        pa.array(np.arange(6, dtype=np.float16)),
        pa.nulls(4),
        pa.array([], pa.int64()),
        pa.array([], pa.string()),
        pa.array([True] * 9).slice(1),
        pa.array([1, None, 3] * 10).slice(3, 11),
        pa.array(["a", None, "ccc"] * 10).slice(8, 5),
    ],
    ids=lambda array: f"{array.type}[{len(array)}]",
)
def test_particular_arrays_arrive(array: pa.Array) -> None:
    pa.register_extension_type(Celsius())
    try:
        received = round_trip(array)
    finally:
        pa.unregister_extension_type("test.celsius")
    assert received.type == array.type
    assert received.equals(array)


def test_a_union_arrives() -> None:
    union = pa.UnionArray.from_sparse(
        pa.array([0, 1], pa.int8()), [pa.array([1, 2]), pa.array(["a", "b"])]
    )
    assert round_trip(union).to_pylist() == union.to_pylist()


def test_the_data_buffer_is_exactly_as_long_as_the_data() -> None:
    received = round_trip(pa.array(np.arange(10, dtype=np.uint8)).slice(2, 5))
    assert received.buffers()[1].size == 5


def test_bytes_arrive_as_uint8() -> None:
    received = round_trip(b"abc")
    assert received.type == pa.uint8()
    assert received.to_pylist() == [97, 98, 99]


def test_a_record_batch_arrives_as_a_struct_array() -> None:
    batch = pa.record_batch({"a": [1, 2], "b": ["x", "y"]})
    assert round_trip(batch).to_pylist() == [{"a": 1, "b": "x"}, {"a": 2, "b": "y"}]


@pytest.mark.parametrize(
    "data",
    [
        "text",
        [1, 2],
        bytearray(b"x"),
        memoryview(b"x"),
        np.zeros(3),
        pa.scalar(1),
        None,
        3,
        pa.chunked_array([[1]]),
        pa.table({"a": [1]}),
    ],
    ids=lambda data: type(data).__name__,
)
def test_other_data_is_refused_with_a_list_of_accepted_types(data: Any) -> None:
    with pytest.raises(RuntimeError, match=r"invalid data type.*Accepted are bytes, pyarrow"):
        arrow.encode(data)


def test_any_number_of_nulls_takes_no_memory() -> None:
    array = arrow.decode(layout.CODE_NULL, 1 << 60, 1 << 60, pa.py_buffer(b""))
    assert array.type == pa.null()
    assert len(array) == array.null_count == 1 << 60


def test_a_payload_that_is_not_a_stream_is_an_error() -> None:
    with pytest.raises(ValueError, match="cannot be read"):
        arrow.decode(layout.CODE_IPC, 1, 0, pa.py_buffer(b"garbage"))
    with pytest.raises(ValueError, match="unknown type code 77"):
        arrow.decode(77, 1, 0, pa.py_buffer(b""))


@pytest.mark.parametrize("codec", ["lz4", "zstd"])
@pytest.mark.parametrize(
    "array", [pa.array([["a"] * 100]), pa.array(["x"] * 100).dictionary_encode()]
)
def test_a_compressed_stream_is_refused_before_it_is_unpacked(array: pa.Array, codec: str) -> None:
    batch = pa.record_batch([array], names=["v"])
    sink = pa.BufferOutputStream()
    options = pa.ipc.IpcWriteOptions(compression=codec)
    with pa.ipc.new_stream(sink, batch.schema, options=options) as writer:
        writer.write_batch(batch)
    with pytest.raises(ValueError, match="compressed"):
        arrow.decode(layout.CODE_IPC, 1, 0, sink.getvalue())

"""Arrow arrays of every type that has a form, with nulls, slices and lengths that matter.

Needs pyarrow alone: nodes of tests import a copy of it.
"""

from __future__ import annotations

import datetime
import decimal
from collections.abc import Iterator

import pyarrow as pa


class Celsius(pa.ExtensionType):
    """An extension type with a parameter."""

    def __init__(self, scale: int) -> None:
        self.scale = scale
        super().__init__(pa.struct([("value", pa.float32())]), "test.zoo.celsius")

    def __arrow_ext_serialize__(self) -> bytes:
        return str(self.scale).encode()

    @classmethod
    def __arrow_ext_deserialize__(cls, storage: pa.DataType, serialized: bytes) -> Celsius:
        return cls(int(serialized))


pa.register_extension_type(Celsius(0))


def leaves() -> Iterator[pa.Array]:
    """Yield an array of five items with nulls for each type without children."""
    numbers = [1, None, 3, 0, 5]
    for kind in (
        *(pa.int8(), pa.int16(), pa.int32(), pa.int64(), pa.uint8(), pa.uint16(), pa.uint32()),
        *(pa.uint64(), pa.float32(), pa.float64(), pa.date32()),
        *(pa.time32("s"), pa.time32("ms"), pa.time64("us"), pa.time64("ns")),
        *(pa.timestamp("s"), pa.timestamp("ms", "UTC"), pa.timestamp("us", "Europe/Berlin")),
        *(pa.timestamp("ns"), pa.duration("s"), pa.duration("ms"), pa.duration("us")),
        pa.duration("ns"),
    ):
        yield pa.array(numbers, kind)
    yield pa.array([86_400_000, None, 0, 0, 0], pa.date64())
    yield pa.array(numbers, pa.float64()).cast(pa.float16())
    yield pa.array([True, None, False, True, True])
    yield pa.nulls(5)
    words = ["", None, "a", "häll 🤖" * 3, "z"]
    raw = [None if word is None else word.encode() for word in words]
    for kind in (pa.string(), pa.large_string()):
        yield pa.array(words, kind)
    for kind in (pa.binary(), pa.large_binary()):
        yield pa.array(raw, kind)
    for size in (0, 1, 3, 16):
        yield pa.array([b"x" * size, None, b"y" * size, b"z" * size, b"w" * size], pa.binary(size))
    for kind in (
        *(pa.decimal32(5, 2), pa.decimal64(12, -2), pa.decimal128(20, 3), pa.decimal256(40, 5)),
    ):
        exact = [decimal.Decimal(100), None, decimal.Decimal(-200), *[decimal.Decimal(0)] * 2]
        yield pa.array(exact, kind)
    interval = pa.MonthDayNano([1, -2, 3])
    yield pa.array([interval, None, interval, interval, None], pa.month_day_nano_interval())


def dictionaries() -> Iterator[pa.Array]:
    """Yield arrays with a dictionary, of each type of index."""
    words = ["a", None, "bb", "a", "ccc"]
    for index in (pa.int8(), pa.int16(), pa.int32(), pa.int64()):
        yield pa.array(words).dictionary_encode().cast(pa.dictionary(index, pa.string()))
    for index in (pa.uint8(), pa.uint16(), pa.uint32(), pa.uint64()):
        indices = pa.array([0, 1, None, 1, 0], index)
        yield pa.DictionaryArray.from_arrays(indices, pa.array([1.5, None]), ordered=True)
    records = pa.array([{"x": 1, "y": "a"}, None, {"x": None, "y": "b"}])
    indices = pa.array([2, 0, 1, None, 2], pa.int16())
    yield pa.DictionaryArray.from_arrays(indices, records)
    inner = pa.array(["p", "q", "p"]).dictionary_encode()
    yield pa.DictionaryArray.from_arrays(indices, inner)


def nested_of(items: pa.Array) -> Iterator[pa.Array]:
    """Yield lists and structs of an array of five items."""
    kind = items.type
    offsets = [0, 2, 2, None, 5]
    yield pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), items)
    yield pa.LargeListArray.from_arrays(pa.array([1, 3, 5], pa.int64()), items)
    yield pa.FixedSizeListArray.from_arrays(items[:4], 2)
    yield pa.FixedSizeListArray.from_arrays(items, 5, mask=pa.array([False]))
    field = pa.field("b", kind, metadata={"unit": "m", "": "ü"})
    columns = [items, items]
    yield pa.StructArray.from_arrays(columns, fields=[pa.field("a", kind), field])
    mask = pa.array([False, True, False, False, True])
    yield pa.StructArray.from_arrays([items], ["masked"], mask=mask)
    keys = pa.array(["k", "l", "m", "n", "k"])
    yield pa.MapArray.from_arrays(pa.array([0, 2, None, 2, 5], pa.int32()), keys, items)


def messages() -> Iterator[pa.Array]:
    """Yield arrays as robots send them, small and large."""
    vector = {"x": 1.0, "y": 2.0, "z": 3.0}
    yield pa.array([{"linear": vector, "angular": vector}])
    box = {"x": 1.0, "y": 2.0, "w": 3.0, "h": 4.0, "label": "person"}
    yield pa.array([[box] * 3, [], None, [box]])
    yield pa.array([box] * 1000)
    image = {"height": 2, "encoding": "rgb8", "data": list(range(250)) * 200}
    uint8 = pa.list_(pa.uint8())
    yield pa.array(
        [image], pa.struct([("height", pa.uint32()), ("encoding", pa.string()), ("data", uint8)])
    )
    yield pa.array([{"joints": ["a", None] * 900, "angles": [0.5] * 900}] * 3)
    yield pa.array([{}, {}, None], pa.struct([]))
    yield pa.array([[[[["deep"]], []], None]])
    yield pa.array([None] * 9, pa.list_(pa.struct([("a", pa.list_(pa.int8()))])))
    storage = pa.array([{"value": 1.5}, None], pa.struct([("value", pa.float32())]))
    yield pa.ExtensionArray.from_storage(Celsius(7), storage)
    wrapped = pa.ExtensionArray.from_storage(Celsius(8), storage)
    yield pa.StructArray.from_arrays([wrapped], ["t"])
    when = datetime.datetime(2024, 2, 29, 12, 30, tzinfo=datetime.UTC)
    yield pa.array([{"stamp": when, "frame_id": "map" * 40}] * 300)


def arrays() -> Iterator[pa.Array]:
    """Yield all of them: whole, without nulls where possible, sliced and empty."""
    small = [*leaves(), *dictionaries()]
    once = [each for items in small for each in nested_of(items)]
    twice = [each for items in once if len(items) == 5 for each in nested_of(items)][::7]
    for array in (*small, *once, *twice, *messages()):
        yield array
        yield array[1:]
        yield array[:1]
        yield array[:0]
        long = pa.concat_arrays([array] * 11)
        yield long[3:]
        yield long[8:-1]

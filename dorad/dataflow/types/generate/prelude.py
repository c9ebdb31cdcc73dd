"""The start of every generated module, below the cut; read as text, never imported.

Lines have at most 88 characters and long calls a trailing comma, so that formatters leave it
unchanged. The generated module uses all imports.
"""

# ruff: noqa: F401
# -- cut here --
from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, ClassVar, Self, TypeVar

import numpy as np
import pyarrow as pa
from numpy.typing import ArrayLike, NDArray

_T = TypeVar("_T")
_BytesLike = bytes | bytearray | memoryview | NDArray[Any]


def _lists(item: pa.DataType, depth: int) -> pa.DataType:
    return pa.large_list(_lists(item, depth - 1) if depth > 1 else item)


class Reader:
    """One value of a struct array: a read-only view without copies."""

    __slots__ = ("array", "index")
    URN: ClassVar[str] = ""
    TYPE: ClassVar[pa.DataType] = pa.struct([])
    array: pa.StructArray
    index: int

    def __init__(self, array: pa.StructArray, index: int = 0) -> None:
        """Raise TypeError for another type, IndexError for an index out of range."""
        kind = array.type
        if not pa.types.is_struct(kind):
            raise TypeError(f"not {self.URN}: {kind}")
        for field in self.TYPE if kind != self.TYPE else ():
            if kind.get_field_index(field.name) < 0:
                raise TypeError(f"not {self.URN}: there is no field {field.name!r}")
        if not 0 <= index < len(array):
            raise IndexError(f"{self.URN}: there is no value {index} in {len(array)}")
        object.__setattr__(self, "array", array)
        object.__setattr__(self, "index", index)

    def __setattr__(self, name: str, value: object) -> None:
        """Raise AttributeError: the value is read-only."""
        raise AttributeError(f"{self.URN} is read-only")

    def __repr__(self) -> str:
        """Return the type and the position of the value."""
        return f"<{self.URN}, {self.index + 1} of {len(self.array)}>"

    @classmethod
    def each(cls, array: pa.StructArray) -> list[Self]:
        """Return a reader for every value."""
        return [cls(array, index) for index in range(len(array))]

    def is_null(self, field: str) -> bool:
        """Return True if a field has no value; reading it raises ValueError."""
        return not self.array.field(field)[self.index].is_valid

    def _at(self, field: str) -> tuple[pa.Array, int]:
        return self.array.field(field), self.index


def _only(array: pa.Array, index: int) -> pa.Array:
    one = array.slice(index, 1)
    if one.null_count:
        raise ValueError("the value is null")
    return one


def _valid(array: pa.Array, index: int) -> Any:
    return _only(array, index)[0]


def _float(array: pa.Array, index: int) -> float:
    return float(_valid(array, index).as_py())


def _int(array: pa.Array, index: int) -> int:
    return int(_valid(array, index).as_py())


def _bool(array: pa.Array, index: int) -> bool:
    return bool(_valid(array, index).as_py())


def _text(array: pa.Array, index: int) -> str:
    return str(_valid(array, index).as_py())


def _any(array: pa.Array, index: int) -> Any:
    return _valid(array, index).as_py()


def _moment(array: pa.Array, index: int) -> np.datetime64:
    return np.datetime64(_only(array, index).to_numpy(zero_copy_only=False)[0])


def _span(array: pa.Array, index: int) -> np.timedelta64:
    return np.timedelta64(_only(array, index).to_numpy(zero_copy_only=False)[0])


def _bytes(array: pa.Array, index: int) -> NDArray[np.uint8]:
    one = _only(array, index)
    if pa.types.is_large_binary(one.type):
        offset: type[Any] = np.int64
    elif pa.types.is_binary(one.type):
        offset = np.int32
    else:
        return np.frombuffer(one[0].as_py(), np.uint8)
    _, offsets, data = one.buffers()
    start, end = np.frombuffer(offsets, offset)[one.offset : one.offset + 2]
    if start == end:
        return np.empty(0, np.uint8)
    return np.frombuffer(data, np.uint8, end - start, start)


def _numbers(array: pa.Array, kind: type[Any]) -> NDArray[Any]:
    if array.null_count:
        raise ValueError(f"{array.null_count} values are null")
    values: NDArray[Any] = array.to_numpy(zero_copy_only=False)
    return values.astype(kind, copy=False)


def _vector(array: pa.Array, index: int, kind: type[Any]) -> NDArray[Any]:
    return _numbers(_valid(array, index).values, kind)


def _items(
    array: pa.Array,
    index: int,
    read: Callable[[pa.Array, int], _T],
) -> list[_T]:
    values = _valid(array, index).values
    return [read(values, at) for at in range(len(values))]


def _nested(
    array: pa.Array,
    index: int,
    read: Callable[[pa.Array, int], Any],
    depth: int,
) -> list[Any]:
    if depth == 1:
        return _items(array, index, read)
    return _items(array, index, lambda inner, at: _nested(inner, at, read, depth - 1))


def _vector_of(kind: type[Any]) -> Callable[[pa.Array, int], NDArray[Any]]:
    return lambda array, index: _vector(array, index, kind)


def _whole_bytes(array: pa.Array) -> NDArray[np.uint8]:
    if pa.types.is_uint8(array.type):
        return _numbers(array, np.uint8)
    return _bytes(array, 0)


def _binary(data: _BytesLike) -> pa.LargeBinaryArray:
    if isinstance(data, np.ndarray):
        data = np.ascontiguousarray(data).reshape(-1).view(np.uint8)
    buffer = pa.py_buffer(data)
    offsets = pa.py_buffer(np.array([0, buffer.size], np.int64))
    return pa.Array.from_buffers(pa.large_binary(), 1, [None, offsets, buffer])


def _as(data: NDArray[np.uint8], kind: Any) -> NDArray[Any]:
    view: NDArray[Any] = data.view(kind)
    return view


_FLOATS = {"halffloat": "float16", "float": "float32", "double": "float64"}


def _array(kind: pa.DataType, values: Any) -> pa.Array:
    numbers = np.asarray(values, _FLOATS.get(str(kind), str(kind)))
    if numbers.ndim != 1:
        numbers = numbers.reshape(-1)
    return pa.array(np.ascontiguousarray(numbers), kind)


def _times(kind: pa.DataType, values: Any) -> pa.Array:
    letter = "m" if pa.types.is_duration(kind) else "M"
    unit = "D" if pa.types.is_date(kind) else kind.unit
    return pa.array(np.asarray(values, f"{letter}8[{unit}]")).cast(kind)


def _list(kind: pa.DataType, values: Iterable[Any]) -> pa.LargeListArray:
    item = kind.value_type
    if pa.types.is_integer(item) or pa.types.is_floating(item):
        array = _array(item, values)
    elif pa.types.is_nested(item) or pa.types.is_large_binary(item):
        parts = [_one(item, value) for value in values]
        array = pa.concat_arrays(parts) if parts else pa.array([], item)
    elif isinstance(values, str):
        raise TypeError("a list of texts is expected, not one text")
    elif pa.types.is_temporal(item):
        array = _times(item, list(values))
    else:
        array = pa.array(list(values), item)
    return pa.LargeListArray.from_arrays(pa.array([0, len(array)], pa.int64()), array)


def _one(kind: pa.DataType, value: Any) -> pa.Array:
    if isinstance(value, Reader):
        value = value.array.slice(value.index, 1)
    if pa.types.is_struct(kind) and not kind.num_fields:
        return value if isinstance(value, pa.StructArray) else pa.array([value])
    if isinstance(value, pa.StructArray):
        if value.type != kind or len(value) != 1:
            raise TypeError(f"one {kind} is expected, not {len(value)} of {value.type}")
        return value
    if pa.types.is_large_list(kind):
        return _list(kind, value)
    if pa.types.is_large_binary(kind):
        return _binary(value)
    if pa.types.is_temporal(kind):
        return _times(kind, [value])
    return pa.array([value], kind)


def _struct(kind: pa.StructType, *values: Any) -> pa.StructArray:
    pairs = zip(kind, values, strict=True)
    parts = [_one(field.type, value) for field, value in pairs]
    types = zip(kind, parts, strict=True)
    fields = [field.with_type(part.type) for field, part in types]
    return pa.StructArray.from_arrays(parts, fields=fields)


_ENCODINGS = {
    "mono8": ("uint8", 1),
    "mono16": ("uint16", 1),
    "rgb8": ("uint8", 3),
    "bgr8": ("uint8", 3),
    "rgba8": ("uint8", 4),
    "bgra8": ("uint8", 4),
    "yuv422": ("uint8", 2),
    "16UC1": ("uint16", 1),
    "32FC1": ("float32", 1),
    "32FC3": ("float32", 3),
}
_GUESSES = ("mono8", "rgb8", "rgba8", "mono16", "32FC1", "32FC3")


def _encoding(pixels: NDArray[Any], given: str | None) -> str:
    if pixels.ndim not in (2, 3):
        raise ValueError(f"a picture is height x width x channels, not {pixels.shape}")
    layout = (str(pixels.dtype), pixels.shape[2] if pixels.ndim == 3 else 1)
    if given is None:
        for encoding in _GUESSES:
            if _ENCODINGS[encoding] == layout:
                return encoding
        raise ValueError(f"give the encoding of {layout[1]} channels of {layout[0]}")
    if _ENCODINGS.get(given, layout) != layout:
        raise ValueError(f"{given} is not {layout[1]} channels of {layout[0]}")
    return given


def _pixels(
    data: NDArray[np.uint8],
    height: int,
    width: int,
    encoding: str,
) -> NDArray[Any]:
    kind, channels = _ENCODINGS.get(encoding, ("uint8", 0))
    if not channels:
        channels = data.size // (height * width) if height * width else 1
    return _as(data, kind).reshape(height, width, channels)


_SAMPLES = {
    "f32": "float32",
    "f64": "float64",
    "i16": "int16",
    "i32": "int32",
    "u8": "uint8",
}

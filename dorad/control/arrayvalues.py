"""The values of an array as Python objects, and their size, which may be far above its own bytes.

A few bytes can hold any number of values: nulls, and fixed-size lists of them, have no buffers;
runs, dictionaries, views and unions use the same bytes again and again.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa

_REFERENCE, _VALUE, _TEXT, _LIST, _DICT = 8, 40, 64, 72, 240
"""Bytes of a reference to an object that is there anyway, such as None or a small int, and of
objects of each kind with a reference."""


def python_size(array: pa.Array) -> int:
    """Return about how many bytes `to_pylist` takes for a valid array, without converting it.

    It is an upper bound for types that can use the same bytes several times.
    """
    import pyarrow as pa

    t, kind, length = pa.types, array.type, len(array)
    if isinstance(array, pa.ExtensionArray):
        return python_size(array.storage)
    if t.is_dictionary(kind):
        return length * _largest(array.dictionary)
    if t.is_run_end_encoded(kind):
        return length * _largest(array.values)
    if t.is_union(kind):
        fields = (array.field(at) for at in range(kind.num_fields))
        return length * max(map(_largest, fields), default=_REFERENCE)
    if t.is_struct(kind):
        return length * _DICT + sum(map(python_size, array.flatten()))
    if t.is_list_view(kind) or t.is_large_list_view(kind):
        return length * _LIST + _total(array.sizes.to_numpy()) * _largest(array.values)
    if t.is_fixed_size_list(kind):
        start, items = array.offset * kind.list_size, length * kind.list_size
        return length * _LIST + python_size(array.values.slice(start, items))
    if t.is_list(kind) or t.is_large_list(kind) or t.is_map(kind):
        start, stop = array.offsets[0].as_py(), array.offsets[length].as_py()
        return length * _LIST + python_size(array.values.slice(start, stop - start))
    if not _is_text(kind):
        return length * _width(kind)
    return length * _TEXT + _total(_text_lengths(array))


def to_python(array: pa.Array) -> list[Any]:
    """Return the values as Python objects.

    Times and durations that `datetime` cannot hold, such as those with single nanoseconds, make all
    times of the array integers in the units of its type.

    Raises:
        ValueError: such a time is in a type that cannot be converted, such as a union.
    """
    import pyarrow as pa

    try:
        values: list[Any] = array.to_pylist()
    except (ValueError, OverflowError):
        try:
            values = array.cast(_without_times(array.type)).to_pylist()
        except (OverflowError, pa.ArrowNotImplementedError) as error:
            raise ValueError(f"a time in {array.type} cannot be converted") from error
    return values


def to_python_within(array: pa.Array, limit: int) -> list[Any] | None:
    """Return `to_python`; None if that would take more than `limit` bytes, or is not possible."""
    if python_size(array) > limit:
        return None
    try:
        return to_python(array)
    except ValueError:
        return None


def _largest(array: pa.Array) -> int:
    """Return an upper bound for the size of one value."""
    import pyarrow as pa

    kind = array.type
    if pa.types.is_null(kind) or pa.types.is_primitive(kind):
        return _width(kind)
    if not _is_text(kind):
        return python_size(array)
    return _TEXT + int(_text_lengths(array).max(initial=0))


def _width(kind: pa.DataType) -> int:
    import pyarrow as pa

    if pa.types.is_null(kind) or kind.bit_width <= 8:
        return _REFERENCE
    return _VALUE + int(kind.bit_width) // 8


def _is_text(kind: pa.DataType) -> bool:
    return str(kind).removeprefix("large_").removesuffix("_view") in ("string", "binary")


def _text_lengths(array: pa.Array) -> np.ndarray[Any, Any]:
    """Return the length in bytes of each text; a null may have any."""
    import numpy as np

    start, stop = array.offset, array.offset + len(array)
    words = array.buffers()[1]
    if words is None:
        return np.zeros(0, np.int64)
    if str(array.type).endswith("_view"):
        return np.frombuffer(words, np.int32)[: 4 * stop].reshape(-1, 4)[start:, 0]
    kind = np.int64 if str(array.type).startswith("large_") else np.int32
    return np.diff(np.frombuffer(words, kind)[start : stop + 1])


def _total(lengths: np.ndarray[Any, Any]) -> int:
    return int(lengths.sum(dtype="int64"))


def _without_times(kind: pa.DataType) -> pa.DataType:
    """Return the type with integers in place of times."""
    import pyarrow as pa

    types = pa.types
    if types.is_date32(kind) or types.is_time32(kind):
        return pa.int32()
    if types.is_temporal(kind) and not types.is_interval(kind):
        return pa.int64()
    if types.is_dictionary(kind):
        return _without_times(kind.value_type)
    if types.is_struct(kind):
        return pa.struct([each.with_type(_without_times(each.type)) for each in kind.fields])
    if types.is_map(kind):
        return pa.map_(_without_times(kind.key_type), _without_times(kind.item_type))
    if types.is_fixed_size_list(kind):
        return pa.list_(_without_times(kind.value_type), kind.list_size)
    if types.is_large_list(kind):
        return pa.large_list(_without_times(kind.value_type))
    if types.is_list(kind):
        return pa.list_(_without_times(kind.value_type))
    return kind

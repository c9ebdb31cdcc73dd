"""Turn Arrow values into Python objects, whatever their type."""

from __future__ import annotations

from typing import Any

import pyarrow as pa


def to_python(array: pa.Array) -> list[Any]:
    """Return the values as Python objects.

    Times and durations that `datetime` cannot hold, such as those with single nanoseconds, make all
    times of the array integers in the units of its type. Raises ValueError for a time in a type
    that cannot be converted, such as a union.
    """
    try:
        values: list[Any] = array.to_pylist()
    except (ValueError, OverflowError):
        values = array.cast(_without_times(array.type)).to_pylist()
    return values


def _without_times(kind: pa.DataType) -> pa.DataType:
    """Return the type with integers in place of times."""
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

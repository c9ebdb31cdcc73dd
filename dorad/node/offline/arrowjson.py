"""Arrow arrays written as JSON and read back, in the form of dora 1.x's test files.

Binary data is hexadecimal text, a map is an object. Numbers that JSON lacks are "NaN", "Infinity"
and "-Infinity". Dates, times and durations are text. Null fields of a struct are omitted.
"""

from __future__ import annotations

import math
from decimal import Decimal
from typing import Any

import pyarrow as pa

from dorad.node.offline import arrowtimes
from dorad.node.offline.arrowtypes import type_from_json, type_to_json

types = pa.types


def to_json(array: pa.Array) -> dict[str, Any]:
    """Return an array as the keys `data` and `data_type` of a test file.

    Raises:
        ValueError: its type cannot be written in a JSON test file.
    """
    return {"data": _values(array), "data_type": type_to_json(array.type)}


def from_json(data: Any, description: Any = None) -> pa.Array:
    """Return the array that `data` describes; a value that is not a list becomes a list of one.

    Without a description the type is inferred: int64, float64, text, bool, lists and structs.

    Raises:
        ValueError: the data does not fit the type.
    """
    items = data if isinstance(data, list) else [data]
    kind = None if description is None else type_from_json(description)
    try:
        return pa.array(items) if kind is None else _array(items, kind)
    except (pa.ArrowException, TypeError, ValueError, ArithmeticError) as error:
        raise ValueError(f"the data does not fit the type: {error}") from error


def _values(array: pa.Array) -> list[Any]:
    kind = array.type
    if isinstance(kind, pa.BaseExtensionType):
        return _values(array.storage)
    if types.is_dictionary(kind):
        return _values(array.dictionary_decode())
    if types.is_run_end_encoded(kind):
        import pyarrow.compute as pc

        return _values(pc.run_end_decode(array))
    if types.is_struct(kind):
        return _structs(array)
    if types.is_map(kind):
        return [None if item.as_py() is None else _object(item.values) for item in array]
    if types.is_union(kind) or types.is_interval(kind):
        raise ValueError(f"an array of type {kind} cannot be written as JSON")
    if types.is_nested(kind):
        return [None if item.values is None else _values(item.values) for item in array]
    if types.is_floating(kind):
        return [None if value is None else _float(value) for value in array.to_pylist()]
    if types.is_temporal(kind):
        return _moments(array)
    values: list[Any] = array.to_pylist()
    if types.is_decimal(kind):
        return [None if value is None else _decimal(value) for value in values]
    if _is_binary(kind):
        return [None if value is None else value.hex() for value in values]
    return values


def _is_binary(kind: pa.DataType) -> bool:
    return bool(
        types.is_binary(kind)
        or types.is_large_binary(kind)
        or types.is_binary_view(kind)
        or types.is_fixed_size_binary(kind)
    )


def _structs(array: pa.StructArray) -> list[Any]:
    names = [field.name for field in array.type]
    columns = [_values(column) for column in array.flatten()]
    valid = array.is_valid().to_pylist()
    return [
        {
            name: column[row]
            for name, column in zip(names, columns, strict=True)
            if column[row] is not None
        }
        if valid[row]
        else None
        for row in range(len(array))
    ]


def _object(entries: pa.StructArray) -> dict[str, Any]:
    keys, items = (_values(column) for column in entries.flatten())
    for key in keys:
        if not isinstance(key, str):
            raise ValueError(
                f"a map with keys of type {entries.type[0].type} cannot be a JSON object"
            )
    return dict(zip(keys, items, strict=True))


def _float(value: float) -> float | str:
    if math.isfinite(value):
        return value
    return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"


def _decimal(value: Decimal) -> float | str:
    """Return a float if it has exactly this value, else text."""
    number = float(value)
    return number if Decimal(repr(number)) == value else str(value)


def _moments(array: pa.Array) -> list[Any]:
    kind = array.type
    wide = kind.bit_width == 64
    counts = array.view(pa.int64() if wide else pa.int32()).to_pylist()
    return [None if count is None else _moment(count, kind) for count in counts]


def _moment(count: int, kind: pa.DataType) -> str:
    if types.is_date32(kind):
        return arrowtimes.date_text(count)
    if types.is_date64(kind):
        return arrowtimes.stamp_text(count, "ms", None)
    if types.is_timestamp(kind):
        return arrowtimes.stamp_text(count, kind.unit, kind.tz)
    if types.is_duration(kind):
        return arrowtimes.duration_text(count, kind.unit)
    return arrowtimes.time_text(count, kind.unit)


def _array(items: list[Any], kind: pa.DataType) -> pa.Array:
    if types.is_run_end_encoded(kind):
        import pyarrow.compute as pc

        return pc.run_end_encode(_array(items, kind.value_type), run_end_type=kind.run_end_type)
    return pa.array([_value(item, kind) for item in items], type=kind)


def _value(item: Any, kind: pa.DataType) -> Any:
    """Return a JSON value in the form that pyarrow accepts for the type."""
    if item is None:
        return None
    if types.is_nested(kind):
        return _nested(item, kind)
    if types.is_dictionary(kind):
        return _value(item, kind.value_type)
    if types.is_floating(kind):
        return float(item)
    if types.is_integer(kind):
        return int(item) if isinstance(item, str) else item
    if types.is_decimal(kind):
        return Decimal(str(item))
    if types.is_temporal(kind) and isinstance(item, str):
        return _count(item, kind)
    if _is_binary(kind):
        if not isinstance(item, str):
            raise TypeError(f"expected hexadecimal text, got {item!r}")
        return bytes.fromhex(item)
    return item


def _nested(item: Any, kind: pa.DataType) -> Any:
    if types.is_struct(kind):
        if not isinstance(item, dict):
            raise TypeError(f"expected an object, got {item!r}")
        return {field.name: _value(item.get(field.name), field.type) for field in kind}
    if types.is_map(kind):
        if not isinstance(item, dict):
            raise TypeError(f"expected an object, got {item!r}")
        return [(_value(k, kind.key_type), _value(v, kind.item_type)) for k, v in item.items()]
    if not isinstance(item, list):
        raise TypeError(f"expected a list, got {item!r}")
    return [_value(part, kind.value_type) for part in item]


def _count(text: str, kind: pa.DataType) -> int:
    if types.is_date32(kind):
        return arrowtimes.date_days(text)
    if types.is_date64(kind):
        return arrowtimes.stamp_count(text, "ms", None)
    if types.is_timestamp(kind):
        return arrowtimes.stamp_count(text, kind.unit, kind.tz)
    if types.is_duration(kind):
        return arrowtimes.duration_count(text, kind.unit)
    return arrowtimes.time_count(text, kind.unit)

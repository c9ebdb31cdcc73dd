"""Arrow types written as JSON, in the form of dora 1.x's test files.

A type without parameters is its name: `"Int64"`. Other types are an object with one key:
`{"List": field}`.
"""

from __future__ import annotations

from typing import Any

import pyarrow as pa

_PLAIN: dict[str, pa.DataType] = {
    "Null": pa.null(),
    "Boolean": pa.bool_(),
    "Int8": pa.int8(),
    "Int16": pa.int16(),
    "Int32": pa.int32(),
    "Int64": pa.int64(),
    "UInt8": pa.uint8(),
    "UInt16": pa.uint16(),
    "UInt32": pa.uint32(),
    "UInt64": pa.uint64(),
    "Float16": pa.float16(),
    "Float32": pa.float32(),
    "Float64": pa.float64(),
    "Date32": pa.date32(),
    "Date64": pa.date64(),
    "Binary": pa.binary(),
    "LargeBinary": pa.large_binary(),
    "BinaryView": pa.binary_view(),
    "Utf8": pa.string(),
    "LargeUtf8": pa.large_string(),
    "Utf8View": pa.string_view(),
}
_PLAIN_NAMES = {arrow_type: name for name, arrow_type in _PLAIN.items()}
_UNITS = {"Second": "s", "Millisecond": "ms", "Microsecond": "us", "Nanosecond": "ns"}
_UNIT_NAMES = {unit: name for name, unit in _UNITS.items()}


def type_to_json(arrow_type: pa.DataType) -> Any:
    """Return the description of a type; an extension type is described as its storage type.

    Raises:
        ValueError: the type cannot be written in a JSON test file.
    """
    name = _PLAIN_NAMES.get(arrow_type)
    if name is not None:
        return name
    types = pa.types
    if isinstance(arrow_type, pa.BaseExtensionType):
        return type_to_json(arrow_type.storage_type)
    if types.is_timestamp(arrow_type):
        return {"Timestamp": [_UNIT_NAMES[arrow_type.unit], arrow_type.tz]}
    for is_kind, key in (
        (types.is_time32, "Time32"),
        (types.is_time64, "Time64"),
        (types.is_duration, "Duration"),
    ):
        if is_kind(arrow_type):
            return {key: _UNIT_NAMES[arrow_type.unit]}
    if types.is_decimal(arrow_type):
        return {f"Decimal{arrow_type.bit_width}": [arrow_type.precision, arrow_type.scale]}
    if types.is_fixed_size_binary(arrow_type):
        return {"FixedSizeBinary": arrow_type.byte_width}
    return _nested_to_json(arrow_type)


def _nested_to_json(arrow_type: pa.DataType) -> Any:
    types = pa.types
    for is_kind, key in (
        (types.is_list, "List"),
        (types.is_large_list, "LargeList"),
        (types.is_list_view, "ListView"),
        (types.is_large_list_view, "LargeListView"),
    ):
        if is_kind(arrow_type):
            return {key: _field_to_json(arrow_type.value_field)}
    if types.is_fixed_size_list(arrow_type):
        return {"FixedSizeList": [_field_to_json(arrow_type.value_field), arrow_type.list_size]}
    if types.is_struct(arrow_type):
        return {"Struct": [_field_to_json(field) for field in arrow_type]}
    if types.is_map(arrow_type):
        entries = pa.struct([arrow_type.key_field, arrow_type.item_field])
        field = pa.field("entries", entries, nullable=False)
        return {"Map": [_field_to_json(field), arrow_type.keys_sorted]}
    if types.is_dictionary(arrow_type):
        return {
            "Dictionary": [type_to_json(arrow_type.index_type), type_to_json(arrow_type.value_type)]
        }
    if types.is_run_end_encoded(arrow_type):
        ends = pa.field("run_ends", arrow_type.run_end_type, nullable=False)
        values = pa.field("values", arrow_type.value_type)
        return {"RunEndEncoded": [_field_to_json(ends), _field_to_json(values)]}
    raise ValueError(f"an array of type {arrow_type} cannot be written as JSON")


def _field_to_json(field: pa.Field) -> dict[str, Any]:
    metadata = field.metadata or {}
    return {
        "name": field.name,
        "data_type": type_to_json(field.type),
        "nullable": field.nullable,
        "dict_id": 0,
        "dict_is_ordered": False,
        "metadata": {key.decode(): value.decode() for key, value in metadata.items()},
    }


def type_from_json(description: Any) -> pa.DataType:
    """Return the type of a description.

    Raises:
        ValueError: the description is not that of a known type.
    """
    if isinstance(description, str):
        if description not in _PLAIN:
            raise ValueError(f"there is no Arrow type {description!r}; known are {_known()}")
        return _PLAIN[description]
    if isinstance(description, dict) and len(description) == 1:
        ((key, parameters),) = description.items()
        try:
            kind = _parametric(key, parameters)
        except (TypeError, KeyError, IndexError, pa.ArrowException) as error:
            raise ValueError(f"{key} cannot have the parameters {parameters!r}") from error
        if kind is not None:
            return kind
    raise ValueError(f"{description!r} is not the description of an Arrow type")


def _known() -> str:
    return ", ".join(_PLAIN)


def _parametric(key: str, parameters: Any) -> pa.DataType | None:
    match key, parameters:
        case "Timestamp", [unit, zone]:
            return pa.timestamp(_UNITS[unit], zone)
        case "Time32", unit:
            return pa.time32(_UNITS[unit])
        case "Time64", unit:
            return pa.time64(_UNITS[unit])
        case "Duration", unit:
            return pa.duration(_UNITS[unit])
        case "Decimal32", [precision, scale]:
            return pa.decimal32(precision, scale)
        case "Decimal64", [precision, scale]:
            return pa.decimal64(precision, scale)
        case "Decimal128", [precision, scale]:
            return pa.decimal128(precision, scale)
        case "Decimal256", [precision, scale]:
            return pa.decimal256(precision, scale)
        case "FixedSizeBinary", width:
            return pa.binary(width)
        case "List", field:
            return pa.list_(_field_from_json(field))
        case "LargeList", field:
            return pa.large_list(_field_from_json(field))
        case "ListView", field:
            return pa.list_view(_field_from_json(field))
        case "LargeListView", field:
            return pa.large_list_view(_field_from_json(field))
        case "FixedSizeList", [field, size]:
            return pa.list_(_field_from_json(field), size)
        case "Struct", fields:
            return pa.struct([_field_from_json(field) for field in fields])
        case "Map", [entries, keys_sorted]:
            item = _field_from_json(entries).type
            return pa.map_(item.field(0), item.field(1), keys_sorted=keys_sorted)
        case "Dictionary", [index, value]:
            return pa.dictionary(type_from_json(index), type_from_json(value))
        case "RunEndEncoded", [ends, values]:
            return pa.run_end_encoded(_field_from_json(ends).type, _field_from_json(values).type)
    return None


def _field_from_json(field: Any) -> pa.Field:
    return pa.field(
        field["name"],
        type_from_json(field["data_type"]),
        nullable=field.get("nullable", True),
        metadata=field.get("metadata") or None,
    )

"""The Arrow types of ROS 2 messages, and arrays brought to them."""

from __future__ import annotations

from functools import cache
from typing import Any

import pyarrow as pa

from dorad.ros2.definitions import Field, Item, Message, Number, Text

_NAMES = {"bool": "bool_"}


class ConversionError(Exception):
    """Data does not fit its ROS 2 type; the text names the field and the reason."""


@cache
def arrow_type(message: Message) -> Any:
    """Return the struct type of a message. Fields are nullable, as in dora; no value is null."""
    return pa.struct([pa.field(each.name, field_type(each)) for each in message.fields])


def field_type(field: Field) -> Any:
    """Return the Arrow type of a field: a list for arrays and sequences."""
    item = item_type(field.item)
    return item if field.many is None else pa.list_(item)


def item_type(item: Item) -> Any:
    """Return the Arrow type of a value, or of an item of a list."""
    match item:
        case Number(name):
            return getattr(pa, _NAMES.get(name, name))()
        case Text():
            return pa.string()
        case Message():
            return arrow_type(item)


def conform(array: Any, message: Message, path: str = "") -> Any:
    """Return a struct array with exactly the type of a message.

    Fields that are missing get the default of the definition, or zero. Numbers of another type are
    converted if none loses its value; lists may be large, of a fixed size, or binary.

    Raises:
        ConversionError: a field is unknown, null, or does not fit.
    """
    wanted = arrow_type(message)
    if array.type.equals(wanted):
        return array
    if not pa.types.is_struct(array.type):
        raise ConversionError(f"{path or message.name} must be a struct, not {array.type}")
    if array.null_count:
        raise ConversionError(f"{path or message.name} is null, which ROS 2 cannot represent")
    given = {each.name: index for index, each in enumerate(array.type)}
    known = {each.name for each in message.fields}
    if unknown := [name for name in given if name not in known]:
        raise ConversionError(f"{message.name} has no field `{unknown[0]}`")
    columns = []
    for field in message.fields:
        name = f"{path}.{field.name}" if path else field.name
        if field.name in given:
            columns.append(_column(array.field(given[field.name]), field, name))
        else:
            columns.append(pa.array([default_of(field)] * len(array), field_type(field)))
    if not columns:
        return pa.array([{}] * len(array), wanted)
    return pa.StructArray.from_arrays(columns, fields=list(wanted))


def _column(array: Any, field: Field, path: str) -> Any:
    if field.many is None:
        return _values(array, field.item, path)
    kind = array.type
    if pa.types.is_binary(kind) or pa.types.is_large_binary(kind):
        array = array.cast(pa.large_binary())
        offsets = pa.Array.from_buffers(pa.int64(), len(array) + 1, [None, array.buffers()[1]])
        offsets = offsets.slice(array.offset)
        data = array.buffers()[2]
        values = pa.Array.from_buffers(pa.uint8(), data.size if data else 0, [None, data])
        array = pa.LargeListArray.from_arrays(offsets, values)
    elif pa.types.is_fixed_size_list(kind):
        array = array.cast(pa.list_(kind.value_type))
    elif not (pa.types.is_list(kind) or pa.types.is_large_list(kind)):
        raise ConversionError(f"{path} must be a list, not {kind}")
    if array.null_count:
        raise ConversionError(f"{path} is null, which ROS 2 cannot represent")
    values = _values(array.flatten(), field.item, path)
    lengths = array.value_lengths().cast(pa.int64())
    offsets = pa.array([0, *lengths.to_pylist()], pa.int64()).to_numpy().cumsum()
    return pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), values)


def _values(array: Any, item: Item, path: str) -> Any:
    if isinstance(item, Message):
        return conform(array, item, path)
    wanted = item_type(item)
    if not array.type.equals(wanted) and not _is_similar(array.type, wanted):
        raise ConversionError(f"{path} must be {wanted}, not {array.type}")
    try:
        return array.cast(wanted)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise ConversionError(f"{path}: {error}") from error


def _is_similar(kind: Any, wanted: Any) -> bool:
    if pa.types.is_string(wanted):
        return bool(pa.types.is_large_string(kind) or pa.types.is_null(kind))
    numbers = pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_null(kind)
    return bool(numbers and not pa.types.is_boolean(wanted))


def default_of(field: Field) -> Any:
    """Return the Python value of a field that is not given."""
    if field.default is not None:
        return field.default
    if field.many is not None:
        return [_zero(field.item)] * field.many.size if field.many.fixed else []
    return _zero(field.item)


def _zero(item: Item) -> Any:
    match item:
        case Number("bool"):
            return False
        case Number():
            return 0
        case Text():
            return ""
        case Message():
            return {each.name: default_of(each) for each in item.fields}

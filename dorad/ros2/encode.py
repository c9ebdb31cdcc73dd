"""From Arrow to CDR, as ROS 2 expects it: one function for each type, made from its definition."""

from __future__ import annotations

import struct
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np

from dorad.ros2.arrowtypes import ConversionError, arrow_type, conform
from dorad.ros2.decode import HEADER, LITTLE_ENDIAN
from dorad.ros2.definitions import Field, Item, Message, Number, Text
from dorad.ros2.layout import SIZES, Layout, layout

_LENGTH = struct.Struct("<I").pack
_STAMP = struct.Struct("<iI").pack
_PADDING = bytes(8)
_BOOLS = (b"\x00", b"\x01")


class _Body:
    """The parts of a message so far."""

    __slots__ = ("parts", "size")

    def __init__(self) -> None:
        self.parts: list[Any] = [LITTLE_ENDIAN + b"\x00\x00"]
        self.size = 0

    def put(self, part: Any, size: int, align: int) -> None:
        padding = -self.size % align
        if padding:
            self.parts.append(_PADDING[:padding])
        self.parts.append(part)
        self.size += padding + size


_Write = Callable[[_Body, int], None]
"""Writes the value at an index of the array that it was made for."""
_Bind = Callable[[Any], _Write]


@cache
def encoder(message: Message) -> Callable[[Any], bytes]:
    """Return the function that makes a message, with its header, from an array of one struct.

    It raises ConversionError for data that does not fit.
    """
    bind = _struct(message)
    kind = arrow_type(message)

    def encode(array: Any) -> bytes:
        if len(array) != 1:
            raise ConversionError(f"{message.name} is one struct, not {len(array)}")
        if not array.type.equals(kind):
            array = conform(array, message)
        body = _Body()
        bind(array)(body, 0)
        return b"".join(body.parts)

    return encode


def with_stamp(cdr: bytes, kind: Any, stamp: Any) -> bytes:
    """Return a message that starts with a header with its stamp, in ns, set in the header.

    One whose array, of the type `kind`, has a stamp keeps that. Raises ConversionError.
    """
    at = kind.get_field_index("header")
    if at >= 0 and kind.field(at).type.get_field_index("stamp") >= 0:
        return cdr
    try:
        return cdr[:HEADER] + _STAMP(*divmod(stamp, 1_000_000_000)) + cdr[HEADER + 8 :]
    except (TypeError, struct.error) as error:
        raise ConversionError(f"the stamp {stamp!r} in its metadata does not fit") from error


@cache
def _struct(message: Message) -> _Bind:
    binds = [_field(each, f"{message.name}.{each.name}") for each in message.fields]

    def bind(array: Any) -> _Write:
        _refuse_nulls(array, message.name)
        if not binds:
            return lambda body, index: body.put(b"\x00", 1, 1)
        writes = [each(array.field(number)) for number, each in enumerate(binds)]

        def write(body: _Body, index: int) -> None:
            for each in writes:
                each(body, index)

        return write

    return bind


def _field(field: Field, path: str) -> _Bind:
    if field.many is None:
        return _single(field.item, path)
    many, items = field.many, _items(field.item, path)

    def bind(array: Any) -> _Write:
        _refuse_nulls(array, path)
        starts = np.frombuffer(array.buffers()[1], np.int32, len(array) + 1, array.offset * 4)
        write_items = items(array.values)

        def write(body: _Body, index: int) -> None:
            start, stop = int(starts[index]), int(starts[index + 1])
            if many.fixed:
                if stop - start != many.size:
                    raise ConversionError(f"{path} has {many.size} items, not {stop - start}")
            else:
                if stop - start > (many.size or stop):
                    raise ConversionError(
                        f"{path} has at most {many.size} items, not {stop - start}"
                    )
                body.put(_LENGTH(stop - start), 4, 4)
            if stop > start:
                write_items(body, start, stop)

        return write

    return bind


def _single(item: Item, path: str) -> _Bind:
    if isinstance(item, Message):
        return _struct(item)
    items = _items(item, path)

    def bind(array: Any) -> _Write:
        write_items = items(array)
        return lambda body, index: write_items(body, index, index + 1)

    return bind


def _items(item: Item, path: str) -> Callable[[Any], Callable[[_Body, int, int], None]]:
    """Return what writes the items from one index to another, of which there is at least one."""
    match item:
        case Number("bool"):

            def bind_bools(array: Any) -> Callable[[_Body, int, int], None]:
                _refuse_nulls(array, path)

                def write(body: _Body, start: int, stop: int) -> None:
                    values = array.slice(start, stop - start).to_numpy(zero_copy_only=False)
                    body.put(values.astype(np.uint8).tobytes(), stop - start, 1)

                return write

            return bind_bools
        case Number(name):
            size = SIZES[name]

            def bind_numbers(array: Any) -> Callable[[_Body, int, int], None]:
                _refuse_nulls(array, path)
                data = array.buffers()[1]
                view, offset = memoryview(data or b""), array.offset

                def write(body: _Body, start: int, stop: int) -> None:
                    part = view[(offset + start) * size : (offset + stop) * size]
                    body.put(part, (stop - start) * size, size)

                return write

            return bind_numbers
        case Text():

            def bind_texts(array: Any) -> Callable[[_Body, int, int], None]:
                _refuse_nulls(array, path)

                def write(body: _Body, start: int, stop: int) -> None:
                    for text in array.slice(start, stop - start).to_pylist():
                        _put_text(body, text, item, path)

                return write

            return bind_texts
        case Message():
            place, bind_struct = layout(item), _struct(item)

            def bind_structs(array: Any) -> Callable[[_Body, int, int], None]:
                write_one = bind_struct(array)

                def write(body: _Body, start: int, stop: int) -> None:
                    if place is not None and stop - start > 1:
                        _put_rows(body, array.slice(start, stop - start), item, place, path)
                        return
                    for index in range(start, stop):
                        write_one(body, index)

                return write

            return bind_structs


def _put_text(body: _Body, text: str, item: Text, path: str) -> None:
    data = text.encode("utf-16-le" if item.wide else "utf-8")
    length = len(data) // 2 if item.wide else len(data)
    if length > (item.limit or length):
        raise ConversionError(f"{path} has at most {item.limit} characters, not {length}")
    if item.wide:
        body.put(_LENGTH(length), 4, 4)
        body.put(np.frombuffer(data, np.uint16).astype(np.uint32).tobytes(), length * 4, 4)
    else:
        body.put(_LENGTH(length + 1), 4, 4)
        body.put(data + b"\x00", length + 1, 1)


def _put_rows(body: _Body, array: Any, message: Message, place: Layout, path: str) -> None:
    """Write a sequence of messages of a fixed size column by column."""
    size = place.stride * (len(array) - 1) + place.size
    block = bytearray(_PADDING[:1]) * size
    for leaf, column in zip(place.leaves, _leaves(array, message, path), strict=True):
        count = 1 if leaf.repeated is None else leaf.repeated
        kind = np.dtype(np.uint8 if leaf.name == "bool" else leaf.name)
        target: Any = np.ndarray(
            (len(array), count), kind, block, leaf.offset, (place.stride, kind.itemsize)
        )
        target[:] = column.to_numpy(zero_copy_only=False).reshape(-1, count)
    body.put(block, size, place.align)


def _leaves(array: Any, message: Message, path: str) -> list[Any]:
    leaves = []
    for number, field in enumerate(message.fields):
        column = array.field(number)
        _refuse_nulls(column, path)
        if isinstance(field.item, Message):
            leaves += _leaves(column, field.item, path)
        elif field.many is None:
            leaves.append(column)
        else:
            values = column.flatten()
            lengths = column.value_lengths().to_numpy()
            _refuse_nulls(values, path)
            if (lengths != field.many.size).any():
                raise ConversionError(f"{path}.{field.name} has {field.many.size} items each")
            leaves.append(values)
    return leaves


def _refuse_nulls(array: Any, path: str) -> None:
    if array.null_count:
        raise ConversionError(f"{path} is null, which ROS 2 cannot represent")

"""Columns of Arrow values as fields of protobuf: the bytes of each row, with the field's tag."""

from __future__ import annotations

import itertools
import json
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, TypeAlias

import numpy as np
import pyarrow as pa

from dorad.control.arrayvalues import to_python_within
from dorad.record.encoding import protobuf
from dorad.record.encoding.protobuf import number, prefix, varint

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

MAX_SHOWN = 1 << 20
"""Bytes that the shown values of one message may take as Python objects; the rest is left out."""

MANY = 16
"""Rows from which on numbers are encoded by columns."""

_PER_SECOND = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}

Pieces: TypeAlias = "list[bytes] | np.ndarray[Any, Any]"
"""The bytes of each row: one by one, or as a matrix if all have the same number."""


class NullsError(Exception):
    """A list has nulls, which its field cannot express."""


class Encoder(Protocol):
    """Encodes the values of one type as a field, with its tag."""

    def __call__(self, array: pa.Array, /, null: bytes = b"") -> Pieces:
        """Return the bytes of each row, `null` for a null."""


def values_of(array: pa.Array) -> pa.Array:
    """Return the values of an extension array or a dictionary."""
    while True:
        if isinstance(array, pa.ExtensionArray):
            array = array.storage
        elif isinstance(array, pa.DictionaryArray):
            array = array.dictionary.take(array.indices)
        else:
            return array


class NumberKind(NamedTuple):
    """How numbers are written: as a field of this kind, after a cast to this type."""

    kind: int
    cast: pa.DataType


def number_kind(kind: pa.DataType) -> NumberKind | None:
    """Return how numbers of a type are written; None if it is not one of numbers."""
    t = pa.types
    if t.is_boolean(kind):
        return NumberKind(protobuf.BOOL, pa.uint8())
    if t.is_int64(kind):
        return NumberKind(protobuf.SFIXED64, kind)
    if t.is_signed_integer(kind):
        return NumberKind(protobuf.SFIXED32, pa.int32())
    if t.is_uint64(kind):
        return NumberKind(protobuf.FIXED64, kind)
    if t.is_unsigned_integer(kind):
        return NumberKind(protobuf.FIXED32, pa.uint32())
    if t.is_float64(kind) or t.is_decimal(kind):
        return NumberKind(protobuf.DOUBLE, pa.float64())
    return NumberKind(protobuf.FLOAT, pa.float32()) if t.is_floating(kind) else None


_WIRE = {
    **dict.fromkeys((protobuf.SFIXED64, protobuf.FIXED64, protobuf.DOUBLE), 1),
    **dict.fromkeys((protobuf.SFIXED32, protobuf.FIXED32, protobuf.FLOAT), 5),
    protobuf.BOOL: 0,
}


def _numbers(array: pa.Array, kind: NumberKind, null: float) -> np.ndarray[Any, Any]:
    """Return numbers as they are written, `null` in place of nulls."""
    if array.null_count:
        array = array.cast(kind.cast).fill_null(null)
    elif array.type != kind.cast:
        array = array.cast(kind.cast)
    values: np.ndarray[Any, Any] = array.to_numpy()
    return values


def scalars(at: int, arrow: pa.DataType) -> Encoder:
    """Encode numbers, each as a field."""
    kind = number_kind(arrow)
    assert kind is not None
    tag = varint(at << 3 | _WIRE[kind.kind])
    width = kind.cast.bit_width // 8

    def encode(array: pa.Array, null: bytes = b"") -> Pieces:
        array = values_of(array)
        nulls = array.null_count
        values = _numbers(array, kind, 0)
        if len(array) >= MANY and not nulls:
            matrix = np.empty((len(array), len(tag) + width), np.uint8)
            matrix[:, : len(tag)] = np.frombuffer(tag, np.uint8)
            matrix[:, len(tag) :] = np.ascontiguousarray(values).view(np.uint8).reshape(-1, width)
            return matrix
        data = values.tobytes()
        pieces = [tag + data[n : n + width] for n in range(0, len(data), width)]
        return _with_nulls(pieces, array, null) if nulls else pieces

    return encode


def _with_nulls(pieces: list[bytes], array: pa.Array, null: bytes) -> list[bytes]:
    valid = array.is_valid().to_pylist()
    return [piece if ok else null for piece, ok in zip(pieces, valid, strict=True)]


def delimited_by(
    at: int, texts: Callable[[pa.Array], list[bytes]], *, nulls: bool = True
) -> Encoder:
    """Encode values whose bytes follow their length; without `nulls` those of nulls, too."""

    def encode(array: pa.Array, null: bytes = b"") -> Pieces:
        array = values_of(array)
        pieces = [prefix(at, len(text)) + text for text in texts(array)]
        return _with_nulls(pieces, array, null) if nulls and array.null_count else pieces

    return encode


def texts(array: pa.Array) -> list[bytes]:
    """Return each text as UTF-8 that readers accept."""
    return [_unicode(text) for text in binaries(array.cast(pa.large_binary()))]


def _unicode(text: bytes) -> bytes:
    """Return text that readers accept: nobody has checked what a node calls text."""
    return text if text.isascii() else text.decode("utf-8", "replace").encode()


def binaries(array: pa.Array) -> list[bytes]:
    """Return the bytes of each value, none of a null."""
    return [value or b"" for value in array.to_pylist()]


def as_json(array: pa.Array) -> list[bytes]:
    """Return each value as JSON; the name of the type if all would take too much memory."""
    values = to_python_within(array, MAX_SHOWN)
    if values is None:
        return [str(array.type).encode()] * len(array)
    return [json.dumps(value, default=str).encode() for value in values]


def times(array: pa.Array) -> list[bytes]:
    """Return the content of `Timestamp` or `Duration` for each value."""
    kind = array.type
    if pa.types.is_date32(kind):
        array, unit = array.cast(pa.int32()).cast(pa.int64()), 0
    else:
        unit = _PER_SECOND["ms" if pa.types.is_date64(kind) else kind.unit]
        if kind.bit_width == 32:
            array = array.cast(pa.int32())
        array = array.cast(pa.int64())
    signed = pa.types.is_duration(kind)
    return [_time(value, unit, signed=signed) for value in array.fill_null(0).to_pylist()]


def _time(value: int, unit: int, *, signed: bool) -> bytes:
    seconds, rest = divmod(value, unit) if unit else (value * 86_400, 0)
    if signed and seconds < 0 and rest:  # both parts of a Duration have the same sign
        seconds, rest = seconds + 1, rest - unit
    nanos = rest * (10**9 // unit) if unit else 0
    mask = (1 << 64) - 1
    return number(1, seconds & mask) + number(2, nanos & mask)


def value_alone(array: pa.Array) -> Sequence[pa.Array]:
    """Return the only column of a message that has one value."""
    return (array,)


def messages(
    at: int, members: Sequence[Encoder], values: Callable[[pa.Array], Sequence[pa.Array]]
) -> Encoder:
    """Encode each value as a message of these members."""
    tag = varint(at << 3 | 2)

    def encode(array: pa.Array, null: bytes = b"") -> Pieces:
        array = values_of(array)
        columns = [encode(column) for encode, column in zip(members, values(array), strict=True)]
        if len(array) >= MANY and not array.null_count:
            matrices = [column for column in columns if isinstance(column, np.ndarray)]
            if len(matrices) == len(columns):
                start = tag + varint(sum(matrix.shape[1] for matrix in matrices))
                head = np.broadcast_to(np.frombuffer(start, np.uint8), (len(array), len(start)))
                return np.hstack([head, *matrices])
        rows = map(b"".join, zip(*map(_as_rows, columns), strict=True))
        pieces = [tag + varint(len(row)) + row for row in rows]
        return _with_nulls(pieces, array, null) if array.null_count else pieces

    return encode


def _as_rows(pieces: Pieces) -> list[bytes]:
    if isinstance(pieces, list):
        return pieces
    data, width = pieces.tobytes(), pieces.shape[1]
    return [data[n : n + width] for n in range(0, len(data), width)]


def between(pieces: Pieces, start: int, stop: int) -> bytes:
    """Return the bytes of some rows."""
    part = pieces[start:stop]
    return b"".join(part) if isinstance(part, list) else part.tobytes()


def items_of(array: pa.Array) -> tuple[list[int], pa.Array]:
    """Return where the items of each list begin and end, and the items."""
    if pa.types.is_fixed_size_list(array.type):
        size = array.type.list_size
        bounds = list(range(0, size * (len(array) + 1), size)) if size else [0] * (len(array) + 1)
        return bounds, array.values.slice(array.offset * size, len(array) * size)
    if pa.types.is_map(array.type):
        values = pa.StructArray.from_arrays([array.keys, array.items], ["key", "value"])
    else:
        values = array.values
    bounds = array.offsets.to_pylist()
    first = bounds[0]
    items = values.slice(first, bounds[-1] - first)
    return [bound - first for bound in bounds] if first else bounds, items


def lists(encode_lists: Encoder) -> Encoder:
    """Encode lists that may lie in an extension array or a dictionary."""

    def encode(array: pa.Array, null: bytes = b"") -> Pieces:
        return encode_lists(values_of(array), null)

    return encode


def octets(at: int) -> Encoder:
    """Encode lists of UInt8 as bytes."""
    return _in_one_piece(at, NumberKind(protobuf.BYTES, pa.uint8()), 0)


def packed(at: int, arrow: pa.DataType) -> Encoder:
    """Encode lists of numbers, whose bytes are the field."""
    kind = number_kind(arrow)
    assert kind is not None
    floats = kind.kind in (protobuf.DOUBLE, protobuf.FLOAT)
    return _in_one_piece(at, kind, float("nan") if floats else None)


def _in_one_piece(at: int, kind: NumberKind, null_value: float | None) -> Encoder:
    width = kind.cast.bit_width // 8

    def encode(array: pa.Array, null: bytes = b"") -> Pieces:
        bounds, items = items_of(array)
        items = values_of(items)
        if items.null_count and (null_value is None or kind.kind == protobuf.BYTES):
            raise NullsError
        data = _numbers(items, kind, null_value or 0).tobytes()
        pieces = [
            prefix(at, size) + data[start * width : start * width + size]
            for start, size in ((a, (b - a) * width) for a, b in itertools.pairwise(bounds))
        ]
        return _with_nulls(pieces, array, null) if array.null_count else pieces

    return encode


def joined(encode_items: Encoder, null_item: bytes | None) -> Encoder:
    """Encode lists of values that are fields each; `null_item` is a null among them."""

    def encode(array: pa.Array, null: bytes = b"") -> Pieces:
        bounds, items = items_of(array)
        if null_item is None and values_of(items).null_count:
            raise NullsError
        fields = encode_items(items, null_item or b"")
        pieces = [between(fields, a, b) for a, b in itertools.pairwise(bounds)]
        return _with_nulls(pieces, array, null) if array.null_count else pieces

    return encode

"""Arrow arrays as bytes in shared memory, and back without a copy.

Arrays of one fixed-width or variable-width type travel as their bare buffers, which costs about a
tenth of an IPC stream. Everything else (nested, dictionary, extension, parametrised, view types,
and slices that would need bits or offsets shifted) travels as an IPC stream of one column, which
the receiver also reads in place; see `arrowstream.py`.

    fixed width:     [validity, if any null] [values]
    variable width:  [validity, if any null] [offsets] [values]

Each part starts at a multiple of 8 bytes. The last one ends where its data ends, because nodes
write `value.buffers()[1]` to files as it is.

A receiver does not trust its sender. Plain values may be anything. But a validity bitmap, offsets
and an IPC stream determine where Arrow reads, and the sender can still write to them. So the
receiver copies these parts first and checks the copy; only plain values are read in place.
"""

from __future__ import annotations

import functools
import struct
from typing import Any

import pyarrow as pa

from dorad.shm import native
from dorad.shm.arrowstream import decode_stream, encode_stream, private

CODE_NULL = 0
CODE_IPC = 255

_FIXED = (
    (pa.int8(), 8),
    (pa.int16(), 16),
    (pa.int32(), 32),
    (pa.int64(), 64),
    (pa.uint8(), 8),
    (pa.uint16(), 16),
    (pa.uint32(), 32),
    (pa.uint64(), 64),
    (pa.float16(), 16),
    (pa.float32(), 32),
    (pa.float64(), 64),
    (pa.date32(), 32),
    (pa.date64(), 64),
    (pa.bool_(), 1),
)
_VARIABLE = (
    (pa.string(), "i"),
    (pa.binary(), "i"),
    (pa.large_string(), "q"),
    (pa.large_binary(), "q"),
)

# Codes are positions in these two tables. Both ends run the same version of this file: the
# handshake with the daemon checks that.
_FIXED_BY_ID = {t.id: (code, bits) for code, (t, bits) in enumerate(_FIXED, start=1)}
_FIXED_BY_CODE = dict(enumerate(_FIXED, start=1))
BARE = _FIXED_BY_CODE
"""Types whose arrays are a single buffer if they have no nulls, with the bits of one item."""
_VARIABLE_BY_ID = {
    t.id: (code, struct.Struct(letter)) for code, (t, letter) in enumerate(_VARIABLE, start=100)
}
_VARIABLE_BY_CODE = {
    code: (t, struct.Struct(letter).size, pa.binary() if letter == "i" else pa.large_binary())
    for code, (t, letter) in enumerate(_VARIABLE, start=100)
}

UINT8_CODE = _FIXED_BY_ID[pa.uint8().id][0]

_Array = pa.Array
_from_buffers = pa.Array.from_buffers

if native.module is not None:
    native.module.use_arrow(pa.Array, BARE, UINT8_CODE, pa.nulls(0))

ACCEPTED = "invalid data type, must be PyBytes or arrow array"


Encoded = tuple[int, int, int, int, tuple[tuple[int, Any], ...]]
"""An array ready to be placed: type code, array length, null count, payload size in bytes, and the
parts of the payload as (offset, bytes-like). A plain tuple: one is made for each message."""


@functools.cache
def code_of(dtype: Any) -> int:
    """Return the type code of a native numpy integer or float dtype."""
    return _FIXED_BY_ID[pa.from_numpy_dtype(dtype).id][0]


def as_array(data: Any) -> pa.Array:
    """Return the data that a node passed to `send_output` as one Arrow array.

    `bytes` become a UInt8 array over the same memory, a RecordBatch a StructArray.

    Raises:
        RuntimeError: the data is neither, and does not export one Arrow array.
    """
    if isinstance(data, pa.Array):
        return data
    if isinstance(data, bytes):
        return _from_buffers(pa.uint8(), len(data), [None, pa.py_buffer(data)], 0)
    if isinstance(data, pa.RecordBatch):
        return data.to_struct_array()
    if hasattr(data, "__arrow_c_array__"):
        return pa.array(data)
    raise RuntimeError(
        f"{ACCEPTED}; got {type(data).__module__}.{type(data).__qualname__}{_instead(data)}. "
        "Accepted are bytes, pyarrow.Array, pyarrow.RecordBatch, objects that export one Arrow "
        "array, and arrays from node.empty()"
    )


def _instead(data: Any) -> str:
    """Return what to send in place of data that is no Arrow array; empty for unknown types."""
    if data is None:
        return ": for a message without data, send pa.nulls(0)"
    if isinstance(data, pa.Table):
        return ": send table.combine_chunks().to_batches()[0]"
    if isinstance(data, str | int | float | dict | pa.Scalar):
        return ": wrap it in an array of one item, pa.array([value])"
    if isinstance(data, list | tuple):
        return ": send pa.array(values)"
    if hasattr(data, "__array__"):
        return ": send pa.array(values.ravel()), and its shape in the metadata"
    return ""


def encode(data: Any) -> Encoded:
    """Return the parts of an array, or of data that `as_array` accepts; they share its memory."""
    array = data if isinstance(data, _Array) else as_array(data)
    type_id = array.type.id
    length = len(array)
    fixed = _FIXED_BY_ID.get(type_id)
    if fixed is not None:
        code, bits = fixed
        offset = array.offset
        nulls = array.null_count
        if offset & 7 == 0 or (bits != 1 and not nulls):
            validity, values = array.buffers()
            size = (length * bits + 7) >> 3
            start = offset * bits >> 3
            if values is None:
                values = b""
            elif start or values.size != size:
                values = values.slice(start, size)
            if not nulls:
                return (code, length, 0, size, ((0, values),))
            bitmap = (length + 7) >> 3
            at = (bitmap + 7) & ~7
            return (
                code,
                length,
                nulls,
                at + size,
                ((0, validity.slice(offset >> 3, bitmap)), (at, values)),
            )
    elif type_id in _VARIABLE_BY_ID:
        encoded = _encode_variable(array, *_VARIABLE_BY_ID[type_id])
        if encoded is not None:
            return encoded
    elif type_id == pa.null().id:
        return (CODE_NULL, length, length, 0, ())
    stream = encode_stream(array)
    return (CODE_IPC, length, 0, stream.size, ((0, stream),))


def _encode_variable(array: pa.Array, code: int, word: struct.Struct) -> Encoded | None:
    """Return the parts of a string or binary array, or None where its buffers would need moving."""
    length = len(array)
    nulls = array.null_count
    offset = array.offset
    validity, offsets, values = array.buffers()
    if length == 0 or offsets is None or (nulls and offset & 7):
        return None
    width = word.size
    if word.unpack_from(offsets, offset * width)[0] != 0:
        return None
    end = word.unpack_from(offsets, (offset + length) * width)[0]
    parts = []
    at = 0
    if nulls:
        bitmap = (length + 7) >> 3
        parts.append((0, validity.slice(offset >> 3, bitmap)))
        at = (bitmap + 7) & ~7
    table = (length + 1) * width
    parts.append((at, offsets.slice(offset * width, table)))
    at += (table + 7) & ~7
    if end:
        parts.append((at, values.slice(0, end)))
    return (code, length, nulls, at + end, tuple(parts))


def decode(
    code: int, length: int, nulls: int, payload: pa.Buffer, *, shared: bool = True
) -> pa.Array:
    """Return the array whose parts lie in `payload`; its values stay in that memory.

    `shared` is True if another process may write to the payload meanwhile.

    Raises:
        ValueError: the payload does not hold such an array; or an extension type refuses it.
        OverflowError: no array can be that long.
    """
    if code in _FIXED_BY_CODE:
        return _decode_fixed(code, length, nulls, payload, shared)
    if code in _VARIABLE_BY_CODE:
        return _decode_variable(code, length, nulls, payload, shared)
    if code == CODE_NULL:
        # `pa.nulls` clears memory for a bitmap first: as much as a hostile sender likes.
        return pa.Array.from_buffers(pa.null(), length, [None])
    if code == CODE_IPC:
        return decode_stream(payload, shared=shared)
    raise ValueError(f"it has the unknown type code {code}")


def _bitmap(length: int, payload: pa.Buffer, shared: bool) -> tuple[pa.Buffer, int]:
    """Return the validity bitmap at the start of a payload, and the offset of the next part."""
    size = (length + 7) >> 3
    if size > payload.size:
        raise ValueError(f"{payload.size} bytes are too few for a bitmap of {length} items")
    bitmap = payload.slice(0, size)
    return private(bitmap) if shared else bitmap, (size + 7) & ~7


def _decode_fixed(code: int, length: int, nulls: int, payload: pa.Buffer, shared: bool) -> pa.Array:
    kind, bits = _FIXED_BY_CODE[code]
    validity, at = _bitmap(length, payload, shared) if nulls else (None, 0)
    if at + ((length * bits + 7) >> 3) != payload.size:
        raise ValueError(f"{payload.size} bytes do not match {length} items of type {kind}")
    # -1: Arrow counts the nulls; the sender's count is not trusted.
    return _from_buffers(kind, length, [validity, payload.slice(at)], -1 if nulls else 0)


def _decode_variable(
    code: int, length: int, nulls: int, payload: pa.Buffer, shared: bool
) -> pa.Array:
    kind, width, binary = _VARIABLE_BY_CODE[code]
    validity, at = _bitmap(length, payload, shared) if nulls else (None, 0)
    table = (length + 1) * width
    values = at + ((table + 7) & ~7)
    if values > payload.size:
        raise ValueError(f"{payload.size} bytes do not match {length} items of type {kind}")
    offsets = payload.slice(at, table)
    if shared:
        offsets = private(offsets)
    buffers = [validity, offsets, payload.slice(values)]
    array = _from_buffers(binary, length, buffers, -1 if nulls else 0)
    # Validated as binary: that checks the offsets only, and costs 0.6 ns an item. Invalid UTF-8
    # raises later, when a str is made of it.
    array.validate(full=True)
    return array if kind is binary else array.view(kind)

"""Arrow arrays as bytes in shared memory, and back without a copy.

Arrays of one fixed-width or variable-width type travel as their bare buffers, which costs about a
tenth of an IPC stream. Everything else (nested, dictionary, extension, parametrised, view types,
and slices that would need bits or offsets shifted) travels as an IPC stream of one column, which
the receiver also reads in place.

    fixed width:     [validity, if any null] [values]
    variable width:  [validity, if any null] [offsets] [values]

Each part starts at a multiple of 8 bytes; the last one ends where its data ends, because nodes
write `value.buffers()[1]` to files as it is.
"""

from __future__ import annotations

import functools
import struct
from typing import Any

import pyarrow as pa

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

# Codes are positions in these two tables: both ends run the same version of this file, which the
# handshake with the daemon makes sure of.
_FIXED_BY_ID = {t.id: (code, bits) for code, (t, bits) in enumerate(_FIXED, start=1)}
_FIXED_BY_CODE = dict(enumerate(_FIXED, start=1))
BARE = {code: t for code, (t, _) in _FIXED_BY_CODE.items()}
"""The types of arrays that, without nulls, are one buffer."""
_VARIABLE_BY_ID = {
    t.id: (code, struct.Struct(letter)) for code, (t, letter) in enumerate(_VARIABLE, start=100)
}
_VARIABLE_BY_CODE = {
    code: (t, struct.Struct(letter).size) for code, (t, letter) in enumerate(_VARIABLE, start=100)
}

UINT8_CODE = _FIXED_BY_ID[pa.uint8().id][0]

_Array = pa.Array
_from_buffers = pa.Array.from_buffers

ACCEPTED = "invalid data type, must be PyBytes or arrow array"


Encoded = tuple[int, int, int, int, tuple[tuple[int, Any], ...]]
"""An array ready to be placed: type code, array length, null count, payload size in bytes, and the
parts of the payload as (offset, bytes-like). A plain tuple: one is made for each message."""


@functools.cache
def code_of(dtype: Any) -> int:
    """Return the type code of a native numpy integer or float dtype."""
    return _FIXED_BY_ID[pa.from_numpy_dtype(dtype).id][0]


def as_array(data: Any) -> pa.Array:
    """Return what a node handed to `send_output` as one Arrow array.

    `bytes` become a UInt8 array over the same memory, a RecordBatch a StructArray.

    Raises:
        RuntimeError: it is none of these and does not export one Arrow array.
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
        f"{ACCEPTED}; got {type(data).__module__}.{type(data).__qualname__}. "
        "Accepted are bytes, pyarrow.Array, pyarrow.RecordBatch, whatever exports one Arrow array, "
        "and arrays from node.empty()"
    )


def encode(data: Any) -> Encoded:
    """Return the parts of an array, or of anything `as_array` accepts; they share its memory."""
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
    return _encode_stream(array)


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


def _encode_stream(array: pa.Array) -> Encoded:
    batch = pa.record_batch([array], names=["v"])
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, batch.schema) as writer:
        writer.write_batch(batch)
    stream = sink.getvalue()
    return (CODE_IPC, len(array), 0, stream.size, ((0, stream),))


def decode(code: int, length: int, nulls: int, payload: pa.Buffer) -> pa.Array:
    """Return the array whose parts lie in `payload`, over the same memory.

    Raises:
        ValueError: the code is unknown, or the payload is no stream.
    """
    fixed = _FIXED_BY_CODE.get(code)
    if fixed is not None:
        if not nulls:
            return _from_buffers(fixed[0], length, [None, payload], 0)
        at = (((length + 7) >> 3) + 7) & ~7
        return _from_buffers(fixed[0], length, [payload, payload.slice(at)], nulls)
    variable = _VARIABLE_BY_CODE.get(code)
    if variable is not None:
        arrow_type, width = variable
        validity = None
        at = 0
        if nulls:
            validity = payload
            at = (((length + 7) >> 3) + 7) & ~7
        table = (length + 1) * width
        values = at + ((table + 7) & ~7)
        return _from_buffers(
            arrow_type, length, [validity, payload.slice(at, table), payload.slice(values)], nulls
        )
    if code == CODE_NULL:
        return pa.nulls(length)
    if code == CODE_IPC:
        try:
            return pa.ipc.open_stream(payload).read_next_batch().column(0)
        except (pa.ArrowException, StopIteration) as error:
            raise ValueError(f"a message's Arrow stream cannot be read: {error}") from error
    raise ValueError(f"a message has the unknown type code {code}")

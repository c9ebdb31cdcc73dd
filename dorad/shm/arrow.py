"""Arrow arrays as bytes in shared memory, and back without a copy.

Arrays of one fixed-width or variable-width type travel as their bare buffers; slices whose bits or
offsets would not begin with the first item are copied first. Nested, dictionary, extension and
parametrised types travel as the buffers of all their nodes, behind a description of the type; see
`nested.py`. Unions, views and run-end encoding travel as an IPC stream of one column, which costs
ten times as much; see `arrowstream.py`.

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
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from dorad.shm import layout, native, nested
from dorad.shm.arrowstream import decode_stream, encode_stream, private
from dorad.shm.typedescription import read_type

if TYPE_CHECKING:
    from dorad.shm.nested import Encoded

# Both ends have the same codes: the handshake with the daemon checks that.
_FIXED_BY_CODE = {
    layout.CODE_INT8: (pa.int8(), 8),
    layout.CODE_INT16: (pa.int16(), 16),
    layout.CODE_INT32: (pa.int32(), 32),
    layout.CODE_INT64: (pa.int64(), 64),
    layout.CODE_UINT8: (pa.uint8(), 8),
    layout.CODE_UINT16: (pa.uint16(), 16),
    layout.CODE_UINT32: (pa.uint32(), 32),
    layout.CODE_UINT64: (pa.uint64(), 64),
    layout.CODE_FLOAT16: (pa.float16(), 16),
    layout.CODE_FLOAT32: (pa.float32(), 32),
    layout.CODE_FLOAT64: (pa.float64(), 64),
    layout.CODE_DATE32: (pa.date32(), 32),
    layout.CODE_DATE64: (pa.date64(), 64),
    layout.CODE_BOOL: (pa.bool_(), 1),
}
_VARIABLE = {
    layout.CODE_STRING: (pa.string(), "i"),
    layout.CODE_BINARY: (pa.binary(), "i"),
    layout.CODE_LARGE_STRING: (pa.large_string(), "q"),
    layout.CODE_LARGE_BINARY: (pa.large_binary(), "q"),
}
_FIXED_BY_ID = {t.id: (code, bits) for code, (t, bits) in _FIXED_BY_CODE.items()}
BARE = _FIXED_BY_CODE
"""Types whose arrays are a single buffer if they have no nulls, with the bits of one item."""
_VARIABLE_BY_ID = {t.id: code for code, (t, _) in _VARIABLE.items()}
_VARIABLE_BY_CODE = {
    code: (t, struct.Struct(letter).size, pa.binary() if letter == "i" else pa.large_binary())
    for code, (t, letter) in _VARIABLE.items()
}

UINT8_CODE = layout.CODE_UINT8

_Array = pa.Array
_from_buffers = pa.Array.from_buffers

if native.module is not None:
    variable = tuple(_VARIABLE_BY_CODE[code][0] for code in sorted(_VARIABLE_BY_CODE))
    native.module.use_arrow(pa.Array, BARE, UINT8_CODE, pa.nulls(0), variable, read_type)

ACCEPTED = "invalid data type, must be PyBytes or arrow array"


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
        if not array.null_count and (bits != 1 or offset & 7 == 0):
            _, values = array.buffers()
            size = (length * bits + 7) >> 3
            start = offset * bits >> 3
            if values is None:
                values = b""
            elif start or values.size != size:
                values = values.slice(start, size)
            return (code, length, 0, size, ((0, values),))
        return nested.encode_bare(code, array)
    if type_id in _VARIABLE_BY_ID:
        return nested.encode_bare(_VARIABLE_BY_ID[type_id], array)
    if type_id == pa.null().id:
        return (layout.CODE_NULL, length, length, 0, ())
    described = nested.encode(array)
    if described is not None:
        return described
    stream = encode_stream(array)
    return (layout.CODE_IPC, length, 0, stream.size, ((0, stream),))


def decode(
    code: int, length: int, nulls: int, payload: pa.Buffer, *, shared: bool = True
) -> pa.Array:
    """Return the array whose parts lie in `payload`; its values stay in that memory.

    `shared` is True if another process may write to the payload meanwhile.

    Raises:
        ValueError: the payload does not hold such an array; or an extension type refuses it.
        OverflowError: no array can be that long.
    """
    if shared and payload.size <= layout.SMALL_PAYLOAD and (nulls or code in _VARIABLE_BY_CODE):
        payload, shared = private(payload), False
    if code in _FIXED_BY_CODE:
        return _decode_fixed(code, length, nulls, payload, shared)
    if code in _VARIABLE_BY_CODE:
        return _decode_variable(code, length, nulls, payload, shared)
    if code == layout.CODE_NULL:
        # `pa.nulls` clears memory for a bitmap first: as much as a hostile sender likes.
        return pa.Array.from_buffers(pa.null(), length, [None])
    if code == layout.CODE_NESTED:
        return nested.decode(length, payload, shared=shared)
    if code == layout.CODE_IPC:
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

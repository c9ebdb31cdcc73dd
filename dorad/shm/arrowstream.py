"""Arrow IPC streams of one column, for the types without a form; see `typedescription.py`.

The sender can still write to a stream that a receiver reads. So the receiver copies it first, and
checks the copy.
"""

from __future__ import annotations

import struct

import pyarrow as pa

from dorad.shm.layout import MAX_TYPE_DEPTH

_U16 = struct.Struct("<H").unpack_from
_I32 = struct.Struct("<i").unpack_from
_HEADER_TYPE, _HEADER, _DATA, _COMPRESSION = 6, 8, 6, 10
"""Positions in a table's list of fields: `Message.header_type` and `.header`,
`DictionaryBatch.data`, `RecordBatch.compression`; see Message.fbs of Arrow."""
_DICTIONARY, _BATCH = 2, 3

_NAMED = 200
"""Characters of a type in an error."""

_NO_MAP = "a map cannot be beside or around unions, views, run-end encoding or 1,000 fields"


def encode_stream(array: pa.Array) -> pa.Buffer:
    """Return an array as an IPC stream of one column.

    Raises:
        RuntimeError: no receiver would accept it, or Arrow cannot write it.
    """
    sink = pa.BufferOutputStream()
    try:
        if _has_map(array.type):
            raise ValueError(_NO_MAP)
        batch = pa.record_batch([array], names=["v"])
        with pa.ipc.new_stream(sink, batch.schema) as writer:
            writer.write_batch(batch)
    except (ValueError, pa.ArrowException) as error:
        kind = str(array.type)
        name = kind if len(kind) <= _NAMED else f"{kind[:_NAMED]}..."
        raise RuntimeError(f"an array of {name} cannot be sent: {error}") from error
    return sink.getvalue()


def decode_stream(payload: pa.Buffer, *, shared: bool) -> pa.Array:
    """Return the array of a stream.

    `shared` is True if another process may write to the payload meanwhile.

    Raises:
        ValueError: the stream is malformed or compressed, or has a map.
    """
    stream = private(payload) if shared else payload
    try:
        check_uncompressed(stream)
        reader = pa.ipc.open_stream(stream)
        if any(map(_has_map, reader.schema.types)):
            # Arrow would end this process over a key that is null.
            raise ValueError(f"its Arrow stream cannot be read: {_NO_MAP}")
        array = reader.read_next_batch().column(0)
        array.validate(full=True)
    except (pa.ArrowException, StopIteration, IndexError, struct.error) as error:
        raise ValueError(f"its Arrow stream cannot be read: {error}") from error
    return array


def check_uncompressed(stream: pa.Buffer) -> None:
    """Check that no message of a stream is compressed: it could decompress to any size.

    Raises:
        ValueError: one is, or the stream is malformed.
    """
    try:
        for message in pa.ipc.MessageReader.open_stream(stream):
            if _is_compressed(message.metadata.to_pybytes()):
                raise ValueError("its Arrow stream is compressed")
    except (pa.ArrowException, StopIteration, IndexError, struct.error) as error:
        raise ValueError(f"its Arrow stream cannot be read: {error}") from error


def private(buffer: pa.Buffer) -> pa.Buffer:
    """Return a copy that no sender can write to."""
    return pa.py_buffer(buffer.to_pybytes())


def _is_compressed(metadata: bytes) -> bool:
    """Return True if a message of a stream is compressed."""

    def field(table: int, at: int) -> int:
        """Return the position of a table's field, 0 if the table does not have it."""
        fields = table - _I32(metadata, table)[0]
        offset = _U16(metadata, fields + at)[0] if at < _U16(metadata, fields)[0] else 0
        return table + offset if offset else 0

    def follow(at: int) -> int:
        return at + int(_I32(metadata, at)[0])

    message = follow(0)
    at = field(message, _HEADER_TYPE)
    kind = metadata[at] if at else 0
    if kind not in (_DICTIONARY, _BATCH):
        return False
    batch = follow(field(message, _HEADER))
    if kind == _DICTIONARY:
        batch = follow(field(batch, _DATA))
    return bool(field(batch, _COMPRESSION))


def _has_map(kind: pa.DataType, depth: int = 0) -> bool:
    """Return True if a type is a map or contains one.

    Raises:
        ValueError: it is nested too deeply; Arrow would write no stream of it, either.
    """
    t = pa.types
    if depth >= MAX_TYPE_DEPTH:
        raise ValueError(f"it is nested more than {MAX_TYPE_DEPTH} levels deep")
    if isinstance(kind, pa.BaseExtensionType):
        return _has_map(kind.storage_type, depth)
    if t.is_dictionary(kind) or t.is_run_end_encoded(kind):
        return _has_map(kind.value_type, depth + 1)
    below = (kind.field(n).type for n in range(kind.num_fields))
    return t.is_map(kind) or any(_has_map(each, depth + 1) for each in below)

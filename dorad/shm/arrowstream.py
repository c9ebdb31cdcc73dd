"""Arrow IPC streams of one column in shared memory, read in place.

The sender can still write to a stream that a receiver reads. So the receiver copies all that
determines where Arrow reads, and checks the copy; only plain values are read in place.
"""

from __future__ import annotations

import struct

import pyarrow as pa

_U16 = struct.Struct("<H").unpack_from
_I32 = struct.Struct("<i").unpack_from
_HEADER_TYPE, _HEADER, _DATA, _COMPRESSION = 6, 8, 6, 10
"""Positions in a table's list of fields: `Message.header_type` and `.header`,
`DictionaryBatch.data`, `RecordBatch.compression`; see Message.fbs of Arrow."""
_DICTIONARY, _BATCH = 2, 3
_CONTINUATION = -1

SMALL_STREAM = 4096
"""Streams up to this many bytes are copied completely: faster than separating their parts."""


def encode_stream(array: pa.Array) -> pa.Buffer:
    """Return an array as an IPC stream of one column."""
    batch = pa.record_batch([array], names=["v"])
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, batch.schema) as writer:
        writer.write_batch(batch)
    return sink.getvalue()


def decode_stream(payload: pa.Buffer, *, shared: bool) -> pa.Array:
    """Return the array of a stream; its plain values stay in the payload's memory.

    `shared` is True if another process may write to the payload meanwhile.

    Raises:
        ValueError: the stream is malformed or compressed.
    """
    try:
        if shared and payload.size > SMALL_STREAM:
            reader = pa.ipc.open_stream(pa.PythonFile(_Stream(payload), mode="r"))
            if _is_ordinary(reader.schema.field(0).type):
                array = reader.read_next_batch().column(0)
                # Check lengths and sizes before reading the children; the rest once it is copied.
                array.validate()
                array = _with_private_structure(array)
                array.validate(full=True)
                return array
        stream = private(payload) if shared else payload
        check_uncompressed(stream)
        array = pa.ipc.open_stream(stream).read_next_batch().column(0)
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


class _Stream:
    """An IPC stream in shared memory as a file. Copies out everything but the message bodies.

    It follows the order in which Arrow reads: a continuation mark, the length of the metadata, the
    metadata, a body.
    """

    closed = False

    def __init__(self, payload: pa.Buffer) -> None:
        self._payload = payload
        self._at = 0
        self._due = 0  # bytes of metadata that come next
        self._body_next = False

    def read(self, size: int) -> pa.Buffer | bytes:
        part = self._payload.slice(self._at, max(0, min(size, self._payload.size - self._at)))
        self._at += part.size
        if self._body_next and size > 8:
            self._body_next = False
            return part
        self._body_next = False
        copied: bytes = part.to_pybytes()
        if self._due:
            if size != self._due:
                raise ValueError("its Arrow stream is malformed")
            if _is_compressed(copied):
                raise ValueError("its Arrow stream is compressed")
            self._due, self._body_next = 0, True
        elif len(copied) == 4:
            (number,) = _I32(copied)
            self._due = max(0, number) if number != _CONTINUATION else 0
        return copied

    def close(self) -> None:
        """Do nothing: there is nothing to close."""


def _is_plain(kind: pa.DataType) -> bool:
    """Return True if arrays of a type consist of a bitmap and values of one width."""
    t = pa.types
    return bool(t.is_primitive(kind) or t.is_fixed_size_binary(kind) or t.is_decimal(kind))


def _is_variable(kind: pa.DataType) -> bool:
    """Return True if arrays of a type consist of a bitmap, offsets and bytes."""
    t = pa.types
    binary = t.is_binary(kind) or t.is_large_binary(kind)
    return bool(binary or t.is_string(kind) or t.is_large_string(kind))


def _is_ordinary(kind: pa.DataType) -> bool:
    """Return True if `_with_private_structure` handles a type and all its nested types.

    It does not handle views, unions, run-end encoding and the like: they hold positions to read.
    """
    t = pa.types
    if isinstance(kind, pa.BaseExtensionType):
        return _is_ordinary(kind.storage_type)
    if t.is_dictionary(kind):
        return _is_ordinary(kind.value_type)
    if t.is_struct(kind):
        return all(_is_ordinary(kind.field(n).type) for n in range(kind.num_fields))
    if t.is_map(kind):
        return _is_ordinary(kind.key_type) and _is_ordinary(kind.item_type)
    if t.is_list(kind) or t.is_large_list(kind) or t.is_fixed_size_list(kind):
        return _is_ordinary(kind.value_type)
    return _is_plain(kind) or _is_variable(kind)


def _with_private_structure(array: pa.Array) -> pa.Array:
    """Return an array of an ordinary type that has only its plain values in shared memory."""
    kind, t = array.type, pa.types
    if array.offset:
        raise ValueError("its Arrow stream is malformed")
    if isinstance(array, pa.ExtensionArray):
        return pa.ExtensionArray.from_storage(kind, _with_private_structure(array.storage))
    if isinstance(array, pa.DictionaryArray):
        indices = _rebuilt(array.indices, 2)
        return pa.DictionaryArray.from_arrays(
            indices, _with_private_structure(array.dictionary), ordered=kind.ordered
        )
    if t.is_struct(kind):
        fields = [_with_private_structure(array.field(n)) for n in range(kind.num_fields)]
        return _rebuilt(array, 1, fields)
    if t.is_fixed_size_list(kind):
        return _rebuilt(array, 1, [_with_private_structure(array.values)])
    if t.is_list(kind) or t.is_large_list(kind) or t.is_map(kind):
        return _rebuilt(array, 2, [_with_private_structure(array.values)])
    return _rebuilt(array, 1 if _is_plain(kind) else 2)


def _rebuilt(array: pa.Array, structural: int, children: list[pa.Array] | None = None) -> pa.Array:
    """Return the array with its first `structural` buffers copied and its nulls recounted."""
    buffers = array.buffers()
    if children is not None:
        buffers = buffers[:structural]
    copied = [
        private(each) if each is not None and n < structural else each
        for n, each in enumerate(buffers)
    ]
    return pa.Array.from_buffers(array.type, len(array), copied, -1, children=children)

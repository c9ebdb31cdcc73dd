"""How a message of dora becomes a message of an MCAP channel, and back, without any loss.

| data | encoding of the channel |
|---|---|
| numbers of 4 or 8 bytes and UInt8, without nulls | `protobuf`: the buffer behind a prefix |
| UInt8 with `width`, `height`, `encoding` in its metadata | `protobuf`: `foxglove.RawImage` |
| UInt8 with `encoding` jpeg, png, webp or avif | `protobuf`: `foxglove.CompressedImage` |
| dictionaries, extension types, unions, views, run-end encoding | `arrow-ipc`: a whole stream |
| everything else | `arrow`: the schema record has the schema, a message one record batch |

The metadata of dora travel in field 100 of a protobuf message as JSON, else as `dora.metadata` in
the custom metadata of the record batch. The channel's metadata name the exact Arrow type.
"""

from __future__ import annotations

import base64
import functools
from typing import TYPE_CHECKING, Any, NamedTuple

import pyarrow as pa

from dorad.node import metadata as metadata_codec
from dorad.record import images, protobuf
from dorad.shm.arrow import BARE, CODE_IPC, UINT8_CODE, decode
from dorad.shm.arrowstream import check_uncompressed

if TYPE_CHECKING:
    from collections.abc import Mapping

ARROW_TYPE = "dora.arrow_schema"
"""Key in a channel's metadata: the Arrow schema of one column, serialized, in base64."""

TYPE_TEXT = "dora.type"
"""Key in a channel's metadata: the Arrow type as text, for people."""

METADATA_KEY = b"dora.metadata"
_COLUMN = "data"
_EOS = 8
"""Bytes of the mark at the end of an Arrow stream."""

MAX_EMPTY = 1 << 24
"""Items of an array that takes fewer bits than it has items, such as one of nulls."""

_EXTENSION_NAME = b"ARROW:extension:name"

NUMBERS = {
    pa.int32(): ("Int32Array", protobuf.SFIXED32),
    pa.int64(): ("Int64Array", protobuf.SFIXED64),
    pa.uint32(): ("UInt32Array", protobuf.FIXED32),
    pa.uint64(): ("UInt64Array", protobuf.FIXED64),
    pa.float32(): ("Float32Array", protobuf.FLOAT),
    pa.float64(): ("Float64Array", protobuf.DOUBLE),
}
"""The message of protobuf, and the type of its field, for an array of numbers."""

_PROTOBUF = {
    **NUMBERS,
    pa.uint8(): ("Bytes", protobuf.BYTES),
    pa.date32(): ("Int32Array", protobuf.SFIXED32),
    pa.date64(): ("Int64Array", protobuf.SFIXED64),
}


class Kind(NamedTuple):
    """The properties of a channel that all its messages share."""

    encoding: str
    schema_name: str
    schema_encoding: str
    schema: bytes
    arrow_schema: bytes
    type_text: str

    @property
    def channel_metadata(self) -> dict[str, str]:
        """What the channel's metadata say of the type."""
        if not self.arrow_schema:
            return {}
        return {
            ARROW_TYPE: base64.b64encode(self.arrow_schema).decode(),
            TYPE_TEXT: self.type_text,
        }


class Encoded(NamedTuple):
    """The content of a message record in three parts; only `body` may be large."""

    kind: Kind
    head: bytes
    body: bytes | memoryview
    tail: bytes

    @property
    def size(self) -> int:
        """The number of bytes of all parts."""
        return len(self.head) + len(self.body) + len(self.tail)


class Decoded(NamedTuple):
    """A message as its receiver got it; `field` has the exact type, even of an extension."""

    array: pa.Array
    metadata: dict[str, Any]
    field: pa.Field


def encode_raw(
    code: int, length: int, nulls: int, payload: bytes, meta: bytes, stamp: int
) -> Encoded:
    """Encode a message as it lay in a ring, see `dorad.shm.arrow`; `meta` is its JSON.

    Raises:
        ValueError: the payload or the metadata are malformed, or Arrow cannot write the array.
    """
    direct = None if nulls else direct_kinds().get(code)
    if direct is not None:
        width, kind = direct
        size = len(payload)
        if length * width != size:
            raise ValueError(f"{size} bytes do not match {length} items of {kind.type_text}")
        tail = b""
        if meta:
            if is_picture(code, meta):
                image = images.encode_image(payload, metadata_codec.decode(meta), stamp)
                if image is not None:
                    kind = _image_kind(image.name, _BYTES_SCHEMA, str(pa.uint8()))
                    return Encoded(kind, image.head, payload, _tail(meta))
            tail = _tail(meta)
        return Encoded(kind, protobuf.prefix(1, size), payload, tail)
    buffer = pa.py_buffer(payload)
    array = decode(code, length, nulls, buffer, shared=False)
    field = pa.field(_COLUMN, array.type)
    if code == CODE_IPC:
        stored = pa.ipc.read_schema(buffer).field(0)
        if stored.metadata and not isinstance(array.type, pa.BaseExtensionType):
            # An extension type that this process does not know: keep its name.
            field = field.with_metadata(stored.metadata)
    picture = images.encode_struct(array, stamp)
    if picture is not None:
        schema = pa.schema([field]).serialize().to_pybytes()
        kind = _image_kind(images.RAW_IMAGE, schema, str(array.type))
        return Encoded(kind, picture.head, picture.pixels, _tail(meta))
    return encode_array(array, field, meta)


def encode_array(array: pa.Array, field: pa.Field, meta: bytes) -> Encoded:
    """Encode an array as a record batch; `field` has its exact type.

    Raises:
        ValueError: Arrow cannot write it, such as one of 2^31 values and more.
    """
    schema = pa.schema([field])
    batch = pa.record_batch([array], schema=schema)
    kind, prefix = _batch_kind(schema)
    custom = pa.KeyValueMetadata({METADATA_KEY: meta}) if meta else None
    sink = pa.BufferOutputStream()
    try:
        with pa.ipc.new_stream(sink, schema) as writer:
            writer.write_batch(batch, custom_metadata=custom)
    except pa.ArrowException as error:
        raise ValueError(f"{len(array)} values of {array.type}: {error}") from error
    stream = memoryview(sink.getvalue())
    body = stream if kind.encoding == "arrow-ipc" else stream[prefix:-_EOS]
    return Encoded(kind, b"", body, b"")


def decode_message(
    encoding: str, schema_name: str, schema: bytes, metadata: Mapping[str, str], data: memoryview
) -> Decoded:
    """Return the array and the metadata of a message of a recording.

    Raises:
        ValueError: the channel was not written by dora, or the message is malformed.
    """
    try:
        if encoding == "arrow":
            return _decode_stream(pa.py_buffer(schema + bytes(data)))
        if encoding == "arrow-ipc":
            return _decode_stream(pa.py_buffer(data))
        if encoding == "protobuf" and ARROW_TYPE in metadata:
            return _decode_protobuf(schema_name, metadata[ARROW_TYPE], data)
    except (
        *(pa.ArrowException, OSError, StopIteration),
        *(OverflowError, TypeError, LookupError),
    ) as error:
        raise ValueError(f"a message cannot be decoded: {error}") from error
    raise ValueError(f"the encoding {encoding!r} of schema {schema_name!r} is not one of dora")


def _decode_stream(stream: pa.Buffer) -> Decoded:
    batch, custom = read_batch(stream)
    meta = custom.get(METADATA_KEY, b"") if custom is not None else b""
    return Decoded(batch.column(0), _metadata(meta), batch.schema.field(0))


def read_batch(stream: pa.Buffer) -> tuple[pa.RecordBatch, pa.KeyValueMetadata | None]:
    """Return the checked record batch of a stream from a file, and its custom metadata.

    Raises:
        ValueError: it is malformed, compressed, or claims more items than its bytes can hold.
        pa.ArrowException, OSError, StopIteration: it is malformed.
    """
    check_uncompressed(stream)
    reader = pa.ipc.open_stream(stream)
    batch, custom = reader.read_next_batch_with_custom_metadata()
    if batch.num_columns != 1:
        raise ValueError(f"a record batch with {batch.num_columns} columns")
    batch.validate(full=True)
    if batch.num_rows > max(MAX_EMPTY, 8 * stream.size):
        raise ValueError(f"an array of {batch.num_rows} items in {stream.size} bytes")
    return batch, custom


def _decode_protobuf(name: str, arrow_type: str, data: memoryview) -> Decoded:
    field = _field(arrow_type)
    members = protobuf.fields(data)
    meta = members.get(protobuf.METADATA_FIELD, b"")
    if isinstance(meta, int):
        raise ValueError("the metadata of the message have the wrong kind")
    if pa.types.is_struct(field.type):
        return Decoded(images.decode_struct(field.type, members), _metadata(bytes(meta)), field)
    values = members.get(images.DATA_FIELDS.get(name, 1), b"")
    if isinstance(values, int):
        raise ValueError("a field of the message has the wrong kind")
    # Of another type Arrow would read more than the one buffer.
    if field.type not in _PROTOBUF:
        raise ValueError(f"an array of {field.type} is in no message of this kind")
    size = len(values)
    width = field.type.bit_width
    if size * 8 % width:
        raise ValueError(f"{size} bytes are not a number of items of {field.type}")
    array = pa.Array.from_buffers(field.type, size * 8 // width, [None, pa.py_buffer(values)], 0)
    return Decoded(array, _metadata(bytes(meta)), field)


def _metadata(meta: bytes) -> dict[str, Any]:
    try:
        return metadata_codec.decode(meta) if meta else {}
    except ValueError as error:
        raise ValueError(f"its metadata are malformed: {error}") from error


def _tail(meta: bytes) -> bytes:
    return protobuf.delimited(protobuf.METADATA_FIELD, meta) if meta else b""


@functools.lru_cache(maxsize=1024)
def _field(arrow_type: str) -> pa.Field:
    try:
        data = base64.b64decode(arrow_type, validate=True)
        return pa.ipc.read_schema(pa.py_buffer(data)).field(0)
    except (ValueError, pa.ArrowException, IndexError, OSError) as error:
        raise ValueError(f"the channel has no valid Arrow type: {error}") from error


def is_picture(code: int, meta: bytes) -> bool:
    """Return True if the metadata of a message may say that it is a picture."""
    return code == UINT8_CODE and b'"encoding"' in meta


@functools.cache
def direct_kinds() -> dict[int, tuple[int, Kind]]:
    """Return the kind of each type code whose buffer becomes a message, and its bytes an item."""
    return {
        code: (bits >> 3, _number_kind(kind))
        for code, (kind, bits) in BARE.items()
        if kind in _PROTOBUF
    }


def _number_kind(kind: pa.DataType) -> Kind:
    name, field_kind = _PROTOBUF[kind]
    schema = protobuf.array_schema(name, field_kind)
    arrow = pa.schema([pa.field(_COLUMN, kind)]).serialize().to_pybytes()
    return Kind("protobuf", f"dora.{name}", "protobuf", schema, arrow, str(kind))


_BYTES_SCHEMA = pa.schema([pa.field(_COLUMN, pa.uint8())]).serialize().to_pybytes()


@functools.lru_cache(maxsize=1024)
def _image_kind(name: str, arrow: bytes, type_text: str) -> Kind:
    return Kind("protobuf", name, "protobuf", images.SCHEMAS[name], arrow, type_text)


_batch_kinds: dict[bytes, tuple[Kind, int]] = {}
_MAX_KINDS = 4096


def _batch_kind(schema: pa.Schema) -> tuple[Kind, int]:
    """Return the kind for a schema, and the bytes of the schema at the start of a stream."""
    data = schema.serialize().to_pybytes()
    found = _batch_kinds.get(data)
    if found is None:
        field = schema.field(0)
        whole = needs_stream(field.type) or bool(
            field.metadata and _EXTENSION_NAME in field.metadata
        )
        name = f"dora.{field.type}"[:200]
        kind = (
            Kind("arrow-ipc", name, "", b"", data, str(field.type))
            if whole
            else Kind("arrow", name, "arrow", data, data, str(field.type))
        )
        if len(_batch_kinds) >= _MAX_KINDS:
            _batch_kinds.clear()
        found = _batch_kinds[data] = (kind, len(data))
    return found


def needs_stream(kind: pa.DataType) -> bool:
    """Return True for types that one record batch message cannot carry, or not all readers know."""
    t = pa.types
    if isinstance(kind, pa.BaseExtensionType) or t.is_dictionary(kind) or t.is_union(kind):
        return True
    if t.is_run_end_encoded(kind) or t.is_string_view(kind) or t.is_binary_view(kind):
        return True
    return any(needs_stream(kind.field(n).type) for n in range(kind.num_fields))

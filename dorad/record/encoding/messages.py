"""How a message of dora becomes a message of an MCAP channel, and back, without any loss.

| data | message |
|---|---|
| numbers of 4 or 8 bytes and UInt8, without nulls | the buffer behind a prefix |
| pixels with `width`, `height`, `encoding` in the metadata | `foxglove.RawImage` |
| UInt8 with `encoding` jpeg, png, webp or avif | `foxglove.CompressedImage` |
| everything else | a record batch in field 99, which no schema names, and values for viewers |

All are messages of protobuf. Types that one record batch cannot carry have a whole Arrow stream in
field 98. The metadata of dora travel in field 100 as JSON; the channel's metadata name the exact
Arrow type. Older recordings have the encodings `arrow`, a record batch alone, and `arrow-ipc`, a
stream, with the metadata of dora as `dora.metadata` in the custom metadata of the batch.

Recordings of ROS 2 have the encoding `cdr`. They are read by the definition in their schema, and
become what the bridge to ROS 2 makes of such messages.
"""

from __future__ import annotations

import base64
import functools
from typing import TYPE_CHECKING, Any, NamedTuple

import pyarrow as pa

from dorad.node import metadata as metadata_codec
from dorad.record.encoding import images, protobuf, shapes
from dorad.shm import nested
from dorad.shm.arrow import BARE, decode, encode
from dorad.shm.arrowstream import check_uncompressed
from dorad.shm.layout import CODE_IPC, CODE_NESTED
from dorad.shm.typedescription import read_description

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

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

STREAM_FIELD, BATCH_FIELD = 98, 99
"""The field with the exact array: a whole stream, or a record batch. It is the first one."""

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
    others: tuple[tuple[str, str], ...] = ()
    """What other programs say in the channel's metadata."""

    @property
    def channel_metadata(self) -> dict[str, str]:
        """What the channel's metadata say of the type."""
        if not self.arrow_schema:
            return dict(self.others)
        return {
            **dict(self.others),
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
    code: int, length: int, nulls: int, payload: bytes | memoryview, meta: bytes, stamp: int
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
            if b'"encoding"' in meta:
                image = images.encode_image(
                    payload, metadata_codec.decode(meta), stamp, width=width
                )
                if image is not None:
                    kind = _image_kind(image.name, kind.arrow_schema, kind.type_text)
                    return Encoded(kind, image.head, payload, _tail(meta))
            tail = _tail(meta)
        return Encoded(kind, protobuf.prefix(1, size), payload, tail)
    buffer = pa.py_buffer(payload)
    array = decode(code, length, nulls, buffer, shared=False)
    field = pa.field(_COLUMN, array.type)
    if code in (CODE_IPC, CODE_NESTED) and not isinstance(array.type, pa.BaseExtensionType):
        # Of an extension type that this process does not know: its name.
        metadata = (
            pa.ipc.read_schema(buffer).field(0).metadata
            if code == CODE_IPC
            else read_description(nested.description_of(buffer)).metadata
        )
        field = field.with_metadata(metadata or {})
    picture = images.encode_struct(array, stamp)
    if picture is None and array.type == pa.uint16() and not nulls and b'"encoding"' in meta:
        pixels = memoryview(payload)[: 2 * length]
        image = images.encode_image(pixels, metadata_codec.decode(meta), stamp, width=2)
        picture = image and images.Picture(image.head, pixels)
    if picture is not None:
        schema = pa.schema([field]).serialize().to_pybytes()
        kind = _image_kind(images.RAW_IMAGE, schema, str(array.type))
        return Encoded(kind, picture.head, picture.pixels, _tail(meta))
    return encode_array(array, field, meta)


def encode_value(array: pa.Array, field: pa.Field | None, meta: bytes, stamp: int) -> Encoded:
    """Encode an array as `encode_raw` does; `field` has its type if it is an extension type.

    Raises:
        ValueError: Arrow cannot write the array.
    """
    if field is not None and field.metadata:
        return encode_array(array, field, meta)
    code, length, nulls, size, parts = encode(array)
    payload = bytearray(size)
    for at, data in parts:
        view = memoryview(data)
        if view.nbytes:
            payload[at : at + view.nbytes] = view.cast("B")
    return encode_raw(code, length, nulls, bytes(payload), meta, stamp)


def encode_array(array: pa.Array, field: pa.Field, meta: bytes) -> Encoded:
    """Encode an array as a record batch beside its values; `field` has its exact type.

    Raises:
        ValueError: Arrow cannot write it, such as one of 2^31 values and more, or not read it back.
    """
    if _has_dictionary_of_dictionary(field.type):
        raise ValueError(f"Arrow cannot read {field.type} back: its dictionary has a dictionary")
    schema = pa.schema([field])
    batch = pa.record_batch([array], schema=schema)
    sink = pa.BufferOutputStream()
    try:
        with pa.ipc.new_stream(sink, schema) as writer:
            writer.write_batch(batch)
    except pa.ArrowException as error:
        raise ValueError(f"{len(array)} values of {array.type}: {error}") from error
    stream = memoryview(sink.getvalue())
    known = _shapes(schema)
    body = stream if known.whole else stream[len(known.arrow) : -_EOS]
    shape, values = shapes.shown(array, known.shape)
    head = protobuf.prefix(STREAM_FIELD if known.whole else BATCH_FIELD, len(body))
    return Encoded(known.kind(shape), head, body, _tail(meta) + values)


def decode_message(
    encoding: str,
    schema_name: str,
    schema: bytes,
    metadata: Mapping[str, str],
    data: memoryview,
    schema_encoding: str = "",
) -> Decoded:
    """Return the array and the metadata of a message of a recording.

    Raises:
        ValueError: neither dora nor ROS 2 has written the channel, or the message is malformed.
    """
    try:
        if encoding == "cdr" and schema_encoding == "ros2msg":
            return _cdr_decoder(schema_name, schema)(bytes(data))
        if encoding == "arrow":
            return _decode_stream(pa.py_buffer(b"".join((schema, data))))
        if encoding == "arrow-ipc":
            return _decode_stream(pa.py_buffer(data))
        if encoding == "protobuf" and ARROW_TYPE in metadata:
            return _decode_protobuf(schema_name, metadata[ARROW_TYPE], data)
    except (
        *(pa.ArrowException, OSError, StopIteration),
        *(OverflowError, TypeError, LookupError),
    ) as error:
        raise ValueError(f"a message cannot be decoded: {error}") from error
    if schema_encoding == "ros2idl":
        raise ValueError(f"the schema of {schema_name} is {schema_encoding!r}, not ros2msg")
    raise ValueError(f"the encoding {encoding!r} of schema {schema_name!r} is not one of dora")


@functools.lru_cache(maxsize=1024)
def _cdr_decoder(name: str, schema: bytes) -> Callable[[bytes], Decoded]:
    """Return what decodes messages of a type of ROS 2. Raises ValueError, as that does."""
    # Only readers of recordings of ROS 2 need them.
    from dorad.ros2.arrowtypes import arrow_type
    from dorad.ros2.decode import STAMP, CdrError, decoder, stamp_reader
    from dorad.ros2.definitions import DefinitionError
    from dorad.ros2.messagetext import parse_definition

    try:
        message = parse_definition(name, schema.decode())
    except (DefinitionError, UnicodeDecodeError) as error:
        raise ValueError(f"the schema of {name} cannot be used: {error}") from error
    decode_array, read_stamp = decoder(message), stamp_reader(message)
    field = pa.field(_COLUMN, arrow_type(message))

    def read(cdr: bytes) -> Decoded:
        try:
            array = decode_array(cdr)
        except CdrError as error:
            raise ValueError(f"the message {error}") from error
        return Decoded(array, {} if read_stamp is None else {STAMP: read_stamp(cdr)}, field)

    return read


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
    members: dict[int, memoryview | int] = {}
    for number, value in protobuf.each_field(data):
        exact = BATCH_FIELD in members or STREAM_FIELD in members
        if exact and number != protobuf.METADATA_FIELD:
            break  # the values for viewers
        members[number] = value
    batch, stream = members.get(BATCH_FIELD), members.get(STREAM_FIELD)
    if isinstance(batch, int) or isinstance(stream, int):
        raise ValueError("the array of the message has the wrong kind")
    if batch is not None:
        stream = memoryview(_arrow_schema(arrow_type) + bytes(batch))
    if stream is not None:
        decoded = _decode_stream(pa.py_buffer(stream))
        return decoded._replace(metadata=_metadata_in(members))
    field = _field(arrow_type)
    meta = _metadata_in(members)
    if pa.types.is_struct(field.type):
        return Decoded(images.decode_struct(field.type, members), meta, field)
    values = members.get(images.DATA_FIELDS.get(name, 1), b"")
    if isinstance(values, int):
        raise ValueError("a field of the message has the wrong kind")
    # Of another type Arrow would read more than the one buffer.
    if field.type not in _PROTOBUF and not (
        name in images.DATA_FIELDS and field.type == pa.uint16()
    ):
        raise ValueError(f"an array of {field.type} is in no message of this kind")
    size = len(values)
    width = field.type.bit_width
    if size * 8 % width:
        raise ValueError(f"{size} bytes are not a number of items of {field.type}")
    array = pa.Array.from_buffers(field.type, size * 8 // width, [None, pa.py_buffer(values)], 0)
    return Decoded(array, meta, field)


def _metadata_in(members: Mapping[int, memoryview | int]) -> dict[str, Any]:
    meta = members.get(protobuf.METADATA_FIELD, b"")
    if isinstance(meta, int):
        raise ValueError("the metadata of the message have the wrong kind")
    return _metadata(bytes(meta))


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
        return pa.ipc.read_schema(pa.py_buffer(_arrow_schema(arrow_type))).field(0)
    except (ValueError, pa.ArrowException, IndexError, OSError) as error:
        raise ValueError(f"the channel has no valid Arrow type: {error}") from error


@functools.lru_cache(maxsize=1024)
def _arrow_schema(arrow_type: str) -> bytes:
    return base64.b64decode(arrow_type, validate=True)


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


@functools.lru_cache(maxsize=1024)
def _image_kind(name: str, arrow: bytes, type_text: str) -> Kind:
    return Kind("protobuf", name, "protobuf", images.SCHEMAS[name], arrow, type_text)


class _Shapes:
    """How arrays of one type are written."""

    def __init__(self, schema: pa.Schema, arrow: bytes) -> None:
        field = schema.field(0)
        self.arrow = arrow
        self.whole = needs_stream(field.type) or bool(
            field.metadata and _EXTENSION_NAME in field.metadata
        )
        """Whether a message has a whole stream."""
        self._type = field.type
        self._known: dict[bool, shapes.Shape] = {}
        self._kinds: dict[str, Kind] = {}

    def shape(self, nulls: bool) -> shapes.Shape:
        """Return what viewers see, see `rows.shown`."""
        known = self._known.get(nulls)
        if known is None:
            known = self._known[nulls] = shapes.shape_of(self._type, self.arrow, nulls=nulls)
        return known

    def kind(self, shape: shapes.Shape) -> Kind:
        """Return the kind of messages of a shape, always the same object."""
        kind = self._kinds.get(shape.name)
        if kind is None:
            kind = self._kinds[shape.name] = Kind(
                "protobuf", shape.name, "protobuf", shape.schema, self.arrow, str(self._type)
            )
        return kind


_known_shapes: dict[bytes, _Shapes] = {}
_MAX_SHAPES = 4096


def _shapes(schema: pa.Schema) -> _Shapes:
    arrow = schema.serialize().to_pybytes()
    known = _known_shapes.get(arrow)
    if known is None:
        if len(_known_shapes) >= _MAX_SHAPES:
            _known_shapes.clear()
        known = _known_shapes[arrow] = _Shapes(schema, arrow)
    return known


def _has_dictionary_of_dictionary(kind: pa.DataType) -> bool:
    t = pa.types
    if isinstance(kind, pa.BaseExtensionType):
        return _has_dictionary_of_dictionary(kind.storage_type)
    if t.is_dictionary(kind):
        values = kind.value_type
        return t.is_dictionary(values) or _has_dictionary_of_dictionary(values)
    below = (kind.field(n).type for n in range(kind.num_fields))
    return any(map(_has_dictionary_of_dictionary, below))


def needs_stream(kind: pa.DataType) -> bool:
    """Return True for types that one record batch message cannot carry, or not all readers know."""
    t = pa.types
    if isinstance(kind, pa.BaseExtensionType) or t.is_dictionary(kind) or t.is_union(kind):
        return True
    if t.is_run_end_encoded(kind) or t.is_string_view(kind) or t.is_binary_view(kind):
        return True
    return any(needs_stream(kind.field(n).type) for n in range(kind.num_fields))

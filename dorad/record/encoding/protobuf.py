"""Protobuf bytes that turn an Arrow buffer into a protobuf message without copying it.

A message of one repeated number, packed, is the tag of its field, the length in bytes and the
numbers in little-endian order, which is exactly the buffer of an Arrow array. So a prefix in front
of the buffer is enough. Schemas are `FileDescriptorSet`s; see `google/protobuf/descriptor.proto`.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

METADATA_FIELD = 100
"""The field of each message that holds the metadata of dora, as JSON."""

# FieldDescriptorProto.Type
DOUBLE, FLOAT, FIXED64, FIXED32, BOOL, STRING, MESSAGE, BYTES = 1, 2, 6, 7, 8, 9, 11, 12
SFIXED32, SFIXED64 = 15, 16

_OPTIONAL, _REPEATED = 1, 3
_VARINT, _I64, _LEN, _I32 = 0, 1, 2, 5


class Field(NamedTuple):
    """A field of a message type."""

    name: str
    number: int
    kind: int
    repeated: bool = False
    type_name: str = ""
    optional: bool = False
    """Whether an absent number or text differs from 0 or an empty one."""


class Message(NamedTuple):
    """A message type, with those that it contains."""

    name: str
    fields: tuple[Field, ...]
    nested: tuple[Message, ...] = ()


def varint(value: int) -> bytes:
    """Return a number of 0 or more as a varint."""
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def read_varint(data: memoryview, at: int) -> tuple[int, int]:
    """Return the varint at byte `at`, and where it ends.

    Raises:
        ValueError: the bytes end first, or it is longer than 64 bits.
    """
    value = shift = 0
    while at < len(data) and shift < 64:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7
    raise ValueError("a varint does not end")


def delimited(field: int, data: bytes) -> bytes:
    """Return a field of bytes, text or a message."""
    return prefix(field, len(data)) + data


@functools.lru_cache(maxsize=4096)
def prefix(field: int, size: int) -> bytes:
    """Return the tag and the length of a field whose `size` bytes follow."""
    return varint(field << 3 | _LEN) + varint(size)


def number(field: int, value: int) -> bytes:
    """Return a field that is a varint."""
    return varint(field << 3 | _VARINT) + varint(value)


def fixed32(field: int, value: int) -> bytes:
    """Return a field that is a fixed32."""
    return varint(field << 3 | _I32) + value.to_bytes(4, "little")


def fixed64(field: int, value: int) -> bytes:
    """Return a field that is a fixed64."""
    return varint(field << 3 | _I64) + value.to_bytes(8, "little")


def each_field(data: memoryview) -> Iterator[tuple[int, memoryview | int]]:
    """Yield number and value of each field of a message: bytes, or a number.

    Raises:
        ValueError: the bytes are not a message.
    """
    at = 0
    sizes = {1: 8, 5: 4}
    while at < len(data):
        tag, at = read_varint(data, at)
        kind = tag & 7
        if kind == _VARINT:
            value, at = read_varint(data, at)
            yield tag >> 3, value
            continue
        if kind == _LEN:
            size, at = read_varint(data, at)
        elif kind in sizes:
            size = sizes[kind]
        else:
            raise ValueError(f"a protobuf field of the unknown kind {kind}")
        if at + size > len(data):
            raise ValueError("a protobuf field is longer than its message")
        part = data[at : at + size]
        yield tag >> 3, part if kind == _LEN else int.from_bytes(part, "little")
        at += size


@functools.cache
def array_schema(name: str, kind: int) -> bytes:
    """Return the schema of `dora.<name>`: the values in field 1, the metadata in field 100."""
    data = Field("data", 1, kind, repeated=kind != BYTES)
    return schema_of("dora", Message(name, (data, Field("metadata", METADATA_FIELD, STRING))))


@functools.cache
def foxglove_schema(name: str, members: tuple[Field, ...]) -> bytes:
    """Return the schema of `foxglove.<name>`, whose field 1 is a timestamp."""
    stamp = Field("timestamp", 1, MESSAGE, type_name=".google.protobuf.Timestamp")
    return schema_of("foxglove", Message(name, (stamp, *members)), ("Timestamp",))


def schema_of(package: str, message: Message, times: Iterable[str] = ()) -> bytes:
    """Return the `FileDescriptorSet` of a message; `times` are the well-known types it uses."""
    needs = {}
    for name in sorted(times):
        # int64 and int32 are the types 3 and 5.
        parts = Message(name, (Field("seconds", 1, 3), Field("nanos", 2, 5)))
        path = f"google/protobuf/{name.lower()}.proto"
        needs[path] = _file(path, "google.protobuf", parts)
    own = _file(f"{package}/{message.name}.proto", package, message, needs)
    return b"".join(delimited(1, each) for each in (*needs.values(), own))


def timestamp_field(field: int, time_ns: int) -> bytes:
    """Return a field with a `google.protobuf.Timestamp`."""
    seconds, nanos = divmod(time_ns, 10**9)
    return delimited(field, number(1, seconds) + number(2, nanos))


def _file(path: str, package: str, message: Message, needs: Iterable[str] = ()) -> bytes:
    """Return a FileDescriptorProto with one message type."""
    out = delimited(1, path.encode()) + delimited(2, package.encode())
    out += b"".join(delimited(3, need.encode()) for need in needs)
    return out + delimited(4, _descriptor(message)) + delimited(12, b"proto3")


def _descriptor(message: Message) -> bytes:
    out = delimited(1, message.name.encode())
    optional = [field.name for field in message.fields if field.optional]
    for field in message.fields:
        choice = optional.index(field.name) if field.optional else None
        out += delimited(2, _field_descriptor(field, choice))
    out += b"".join(delimited(3, _descriptor(nested)) for nested in message.nested)
    # Presence is a choice of one member.
    return out + b"".join(delimited(8, delimited(1, f"_{name}".encode())) for name in optional)


def _field_descriptor(field: Field, choice: int | None) -> bytes:
    label = _REPEATED if field.repeated else _OPTIONAL
    out = delimited(1, field.name.encode()) + number(3, field.number) + number(4, label)
    out += number(5, field.kind)
    if choice is not None:
        out += number(9, choice) + number(17, 1)
    return out + delimited(6, field.type_name.encode()) if field.type_name else out

"""Descriptions of nested types: bytes that both ends of an edge understand, and the type again.

A description is a type as Arrow's C data interface has it, node by node:

    flags | size of the format | size of the name | format | [children] | name | [metadata]

The C part has the same form: dorad/shm/core/types.c. Unions, views, run-end encoding, and types
beyond `MAX_TYPE_NODES` have no description: they travel as a stream; see `arrowstream.py`.
"""

from __future__ import annotations

import ctypes
import functools
import struct
from typing import Any, Literal, NamedTuple

import pyarrow as pa

from dorad.shm.layout import (
    DESCRIBED_DICTIONARY,
    DESCRIBED_METADATA,
    MAX_TYPE_DEPTH,
    MAX_TYPE_NODES,
    MAX_TYPE_SIZE,
)

_ARROW_FLAGS = 7
_KNOWN = 16
"""How many types that were sent last are compared with that of a message."""

_U16, _U32 = struct.Struct("=H"), struct.Struct("=I")
_I32 = struct.Struct("=i")


class _Schema(ctypes.Structure):
    """`ArrowSchema` of Arrow's C data interface."""


_Release = ctypes.CFUNCTYPE(None, ctypes.POINTER(_Schema))
_Schema._fields_ = [
    ("format", ctypes.c_char_p),
    ("name", ctypes.c_char_p),
    ("metadata", ctypes.c_void_p),
    ("flags", ctypes.c_int64),
    ("n_children", ctypes.c_int64),
    ("children", ctypes.POINTER(ctypes.POINTER(_Schema))),
    ("dictionary", ctypes.POINTER(_Schema)),
    ("release", _Release),
    ("private_data", ctypes.c_void_p),
]


def _mark_released(schema: Any) -> None:
    schema.contents.release = _Release()


_released = _Release(_mark_released)
"""Called by Arrow when it has copied a type of this module, which Python frees."""


def describe(kind: pa.DataType) -> bytes | None:
    """Return the description of a type, None if its arrays travel as a stream."""
    for known, description in _described:
        if known.equals(kind, check_metadata=True):
            return description
    schema = _Schema()
    kind._export_to_c(ctypes.addressof(schema))  # noqa: SLF001 - Arrow's C data interface
    try:
        described = bytearray()
        nodes = _describe_node(schema, described, 0)
        description = bytes(described)
        if nodes > MAX_TYPE_NODES or len(description) > MAX_TYPE_SIZE:
            raise ValueError("it is too large")
        read_type(description)
    except ValueError:
        description = None
    finally:
        schema.release(ctypes.byref(schema))
    _described.insert(0, (kind, description))
    del _described[_KNOWN:]
    return description


_described: list[tuple[pa.DataType, bytes | None]] = []


def _describe_node(schema: _Schema, into: bytearray, depth: int) -> int:
    """Append the description of a node and all below it; return how many nodes that are.

    Raises:
        ValueError: it has none.
    """
    text, name = schema.format, schema.name or b""
    if depth >= MAX_TYPE_DEPTH or len(text) > 255 or len(name) > 255:
        raise ValueError("it is too large")
    flags = schema.flags & _ARROW_FLAGS
    flags |= DESCRIBED_DICTIONARY if schema.dictionary else 0
    flags |= DESCRIBED_METADATA if schema.metadata else 0
    into += bytes((flags, len(text), len(name))) + text
    if text.startswith(b"+"):
        if schema.n_children > MAX_TYPE_NODES:
            raise ValueError("it is too large")
        into += _U16.pack(schema.n_children)
    into += name
    if schema.metadata:
        metadata = _metadata_at(schema.metadata)
        into += _U32.pack(len(metadata)) + metadata
    nodes = 1
    for at in range(schema.n_children):
        nodes += _describe_node(schema.children[at].contents, into, depth + 1)
    if schema.dictionary:
        nodes += _describe_node(schema.dictionary.contents, into, depth + 1)
    return nodes


def _metadata_at(address: int) -> bytes:
    """Return the metadata of a type that this process has made."""
    (pairs,) = _I32.unpack(ctypes.string_at(address, 4))
    size = 4
    for _ in range(2 * pairs):
        size += 4 + _I32.unpack(ctypes.string_at(address + size, 4))[0]
    return ctypes.string_at(address, size)


class Node(NamedTuple):
    """A node of a type: `kind` is that of its storage, `nodes` how many are at and below it."""

    kind: pa.DataType
    children: tuple[Node, ...]
    dictionary: Node | None
    nodes: int


class Described(NamedTuple):
    """What a description says: the type, and its nodes.

    `metadata` names an extension type that this process does not know.
    """

    kind: pa.DataType
    root: Node
    metadata: dict[bytes, bytes] | None


@functools.lru_cache(maxsize=256)
def read_description(description: bytes) -> Described:
    """Return the type of a description and its nodes.

    Raises:
        ValueError: it is malformed, or a type that travels as a stream.
    """
    if len(description) > MAX_TYPE_SIZE:
        raise ValueError(f"the description of its type has {len(description)} bytes")
    reader = _TypeReader(description)
    schema = reader.read(0)
    if reader.at != len(description):
        raise ValueError("the description of its type goes on behind its end")
    try:
        field = pa.Field._import_from_c(ctypes.addressof(schema))  # noqa: SLF001 - as above
    except (pa.ArrowException, LookupError, TypeError, UnicodeDecodeError) as error:
        raise ValueError(f"its type cannot be read: {error}") from error
    return Described(field.type, _node(field.type), field.metadata)


def read_type(description: bytes) -> pa.DataType:
    """Return the type of a description.

    Raises:
        ValueError: see `read_description`.
    """
    return read_description(description).kind


class _TypeReader:
    """Reads a description into types of Arrow's C data interface, which it keeps alive."""

    def __init__(self, description: bytes) -> None:
        self._data = description
        self._kept: list[Any] = []
        self._nodes = 0
        self.at = 0

    def _take(self, size: int) -> bytes:
        if size > len(self._data) - self.at:
            raise ValueError("the description of its type is cut off")
        self.at += size
        return self._data[self.at - size : self.at]

    def read(self, depth: int) -> _Schema:
        """Return the next node with all below it."""
        self._nodes += 1
        if depth >= MAX_TYPE_DEPTH or self._nodes > MAX_TYPE_NODES:
            raise ValueError("its type is nested too deeply, or has too many fields")
        flags, text_size, name_size = self._take(3)
        if flags & ~(_ARROW_FLAGS | DESCRIBED_DICTIONARY | DESCRIBED_METADATA):
            raise ValueError("its type has unknown flags")
        text = self._take(text_size)
        if b"\0" in text:
            raise ValueError("its type has no valid format")
        children = _U16.unpack(self._take(2))[0] if text.startswith(b"+") else 0
        name = self._take(name_size)
        if b"\0" in name:
            raise ValueError("a field of its type has no valid name")
        schema = _Schema(format=text, name=name, flags=flags & _ARROW_FLAGS, release=_released)
        self._kept.append(schema)
        if flags & DESCRIBED_METADATA:
            metadata = self._take(_U32.unpack(self._take(4))[0])
            _check_metadata(metadata)
            buffer = ctypes.create_string_buffer(metadata, len(metadata))
            self._kept.append(buffer)
            schema.metadata = ctypes.addressof(buffer)
        if children:
            pointers = (ctypes.POINTER(_Schema) * children)(
                *(ctypes.pointer(self.read(depth + 1)) for _ in range(children))
            )
            self._kept.append(pointers)
            schema.n_children, schema.children = children, pointers
        if flags & DESCRIBED_DICTIONARY:
            schema.dictionary = ctypes.pointer(self.read(depth + 1))
        return schema


def _check_metadata(metadata: bytes) -> None:
    at = 4
    try:
        (pairs,) = _I32.unpack_from(metadata)
        if pairs < 0:
            raise ValueError("its type has malformed metadata")
        for _ in range(2 * pairs):
            (size,) = _I32.unpack_from(metadata, at)
            if size < 0:
                raise ValueError("its type has malformed metadata")
            at += 4 + size
    except struct.error:
        at = -1
    if at != len(metadata):
        raise ValueError("its type has malformed metadata")


def _node(kind: pa.DataType) -> Node:
    """Return the nodes of a type.

    Raises:
        ValueError: it travels as a stream.
    """
    t = pa.types
    if isinstance(kind, pa.BaseExtensionType):
        return _node(kind.storage_type)
    if t.is_dictionary(kind):
        dictionary = _node(kind.value_type)
        return Node(kind, (), dictionary, 1 + dictionary.nodes)
    if t.is_struct(kind) or is_list(kind) or t.is_fixed_size_list(kind):
        children = tuple(_node(kind.field(n).type) for n in range(kind.num_fields))
        if t.is_map(kind) and t.is_null(children[0].children[0].kind):
            raise ValueError("the keys of a map are nulls")
        return Node(kind, children, None, 1 + sum(child.nodes for child in children))
    if not (t.is_null(kind) or _is_fixed(kind) or is_variable(kind)):
        raise ValueError(f"{kind} has no form")
    return Node(kind, (), None, 1)


def _is_fixed(kind: pa.DataType) -> bool:
    t = pa.types
    return bool(t.is_primitive(kind) or t.is_fixed_size_binary(kind) or t.is_decimal(kind))


def is_variable(kind: pa.DataType) -> bool:
    """Return True for texts and bytes of any length."""
    t = pa.types
    large = t.is_large_binary(kind) or t.is_large_string(kind)
    return bool(large or t.is_binary(kind) or t.is_string(kind))


def offset_format(kind: pa.DataType) -> Literal["i", "q"]:
    """Return the format of the offsets of a type."""
    t = pa.types
    large = t.is_large_binary(kind) or t.is_large_string(kind) or t.is_large_list(kind)
    return "q" if large else "i"


def is_list(kind: pa.DataType) -> bool:
    """Return True for lists of any length, and maps."""
    t = pa.types
    return bool(t.is_list(kind) or t.is_large_list(kind) or t.is_map(kind))


def item_bits(kind: pa.DataType) -> int:
    """Return the bits of an item of a type of a fixed width."""
    if pa.types.is_dictionary(kind):
        return int(kind.index_type.bit_width)
    if pa.types.is_fixed_size_binary(kind):
        return int(kind.byte_width) * 8
    return int(kind.bit_width)

"""Arrays of nested types as parts of a payload, and back without a copy of their values.

A payload begins with a description of its type, so every receiver can read every message: one that
comes late, a recorder, another machine. Both ends compare it with those seen last, which takes a
hundredth of the time of making a type.

    size of the description (4 bytes) | description | one byte a node: whether it has a bitmap
    of each node:  bitmap | offsets | values or bytes | length of the dictionary

Each part starts at a multiple of 8 bytes; the last one ends where its data ends. Lengths are not
sent: a child of a struct is as long as that, one of a list as its last offset says. The C part has
the same forms: dorad/shm/core/types.c and parts.h.

A receiver does not trust its sender: it copies bitmaps, offsets and the indices of dictionaries,
and checks the copies.
"""

from __future__ import annotations

import struct
from typing import Any, Literal

import pyarrow as pa

from dorad.shm.layout import (
    CODE_NESTED,
    MAX_ITEMS,
    SMALL_PAYLOAD,
)
from dorad.shm.typedescription import (
    Node,
    describe,
    is_list,
    is_variable,
    item_bits,
    offset_format,
    read_description,
)

_U32, _U64 = struct.Struct("=I"), struct.Struct("=Q")


class _Writer:
    def __init__(self, size: int, nodes: int) -> None:
        self.parts: list[tuple[int, Any]] = []
        self.marks = bytearray(nodes)
        self.size = size
        self._node = 0

    def add(self, data: Any, size: int) -> None:
        at = (self.size + 7) & ~7
        self.parts.append((at, data))
        self.size = at + size

    def _add_bits(self, bits: pa.Buffer, offset: int, length: int) -> None:
        size = (length + 7) >> 3
        if offset & 7 == 0:
            self.add(bits.slice(offset >> 3, size), size)
            return
        part = bits.slice(offset >> 3, (offset + length + 7 >> 3) - (offset >> 3)).to_pybytes()
        number = int.from_bytes(part, "little") >> (offset & 7) & (1 << length) - 1
        self.add(number.to_bytes(size, "little"), size)

    def _add_offsets(
        self, offsets: pa.Buffer | None, offset: int, length: int, letter: Literal["i", "q"]
    ) -> tuple[int, int]:
        """Add offsets that begin with 0; return where what they enclose begins, and its size."""
        width = struct.calcsize(letter)
        if not length:
            self.add(bytes(width), width)
            return 0, 0
        assert offsets is not None
        table = offsets.slice(offset * width, (length + 1) * width)
        words = memoryview(table).cast(letter)
        first, end = words[0], words[length]
        if first:
            table = struct.pack(f"={length + 1}{letter}", *[word - first for word in words])
        self.add(table, (length + 1) * width)
        return first, end - first

    def write(self, array: pa.Array, node: Node) -> None:
        """Add the parts of an array."""
        at = self._node
        self._node += 1
        if isinstance(array, pa.ExtensionArray):
            array = array.storage
        kind, length, offset = node.kind, len(array), array.offset
        t = pa.types
        if t.is_null(kind):
            return
        if array.null_count:
            self.marks[at] = 1
            self._add_bits(array.buffers()[0], offset, length)
        if t.is_struct(kind):
            for n, child in enumerate(node.children):
                self.write(array.field(n), child)
        elif t.is_fixed_size_list(kind):
            size = kind.list_size
            self.write(array.values.slice(offset * size, length * size), node.children[0])
        elif is_list(kind):
            offsets = array.buffers()[1]
            first, size = self._add_offsets(offsets, offset, length, offset_format(kind))
            self.write(array.values.slice(first, size), node.children[0])
        elif is_variable(kind):
            _, offsets, values = array.buffers()
            first, size = self._add_offsets(offsets, offset, length, offset_format(kind))
            self.add(values.slice(first, size) if size else b"", size)
        else:
            self._write_fixed(array, node)

    def _write_fixed(self, array: pa.Array, node: Node) -> None:
        bits, length, offset = item_bits(node.kind), len(array), array.offset
        source = array.indices if node.dictionary else array
        values = source.buffers()[1]
        size = (length * bits + 7) >> 3
        if bits == 1 and size:
            self._add_bits(values, offset, length)
        else:
            self.add(values.slice(offset * bits >> 3, size) if size else b"", size)
        if node.dictionary:
            self.add(_U64.pack(len(array.dictionary)), 8)
            self.write(array.dictionary, node.dictionary)


Encoded = tuple[int, int, int, int, tuple[tuple[int, Any], ...]]
"""An array ready to be placed: type code, array length, null count, payload size in bytes, and the
parts of the payload as (offset, bytes-like). A plain tuple: one is made for each message."""


def encode_bare(code: int, array: pa.Array) -> Encoded:
    """Return an array of a type without children, whose code says all of it."""
    writer = _Writer(0, 1)
    writer.write(array, Node(array.type, (), None, 1))
    return (code, len(array), array.null_count, writer.size, tuple(writer.parts))


def encode(array: pa.Array) -> Encoded | None:
    """Return an array with the description of its type; None if it has no form."""
    description = describe(array.type)
    if description is None:
        return None
    root = read_description(description).root
    head = _U32.pack(len(description)) + description
    writer = _Writer(len(head) + root.nodes, root.nodes)
    writer.write(array, root)
    nulls = len(array) if pa.types.is_null(root.kind) else array.null_count
    parts = ((0, head + writer.marks), *writer.parts)
    return (CODE_NESTED, len(array), nulls, writer.size, parts)


# -- on arrival


def description_of(payload: pa.Buffer) -> bytes:
    """Return the description that a payload begins with.

    Raises:
        ValueError: it is cut off.
    """
    head = payload.slice(0, min(4, payload.size)).to_pybytes()
    size = _U32.unpack(head)[0] if len(head) == 4 else 0
    if len(head) < 4 or size > payload.size - 4:
        raise ValueError("its bytes are too few for its type")
    description: bytes = payload.slice(4, size).to_pybytes()
    return description


def decode(length: int, payload: pa.Buffer, *, shared: bool) -> pa.Array:
    """Return the array of a payload with a description; its values stay in that memory.

    `shared` is True if another process may write to the payload meanwhile.

    Raises:
        ValueError: the payload does not hold such an array; or an extension type refuses it.
    """
    if shared and payload.size <= SMALL_PAYLOAD:
        payload, shared = pa.py_buffer(payload.to_pybytes()), False
    description = description_of(payload)
    kind, root, _ = read_description(description)
    reader = _Reader(payload, shared, 4 + len(description), root.nodes)
    try:
        array = reader.read(root, kind, length)
    except pa.ArrowException as error:
        raise ValueError(f"its array cannot be read: {error}") from error
    if reader.at != payload.size:
        raise ValueError("it has more bytes than items")
    return array


class _Reader:
    def __init__(self, payload: pa.Buffer, shared: bool, at: int, nodes: int) -> None:
        self._payload = payload
        self._shared = shared
        self._marks = payload.slice(at, min(nodes, payload.size - at)).to_pybytes()
        if len(self._marks) < nodes:
            raise ValueError("its bytes are too few for its type")
        self.at = at + nodes
        self._node = 0

    def _take(self, size: int, *, checked: bool) -> pa.Buffer:
        """Return the next part; one that is `checked` is memory of its own."""
        at = (self.at + 7) & ~7
        if at + size > self._payload.size:
            raise ValueError("its bytes are too few for its items")
        self.at = at + size
        part = self._payload.slice(at, size)
        return pa.py_buffer(part.to_pybytes()) if checked and self._shared else part

    def _take_offsets(self, length: int, letter: Literal["i", "q"]) -> tuple[pa.Buffer, int]:
        """Return checked offsets, and the last."""
        offsets = self._take((length + 1) * struct.calcsize(letter), checked=True)
        words = memoryview(offsets).cast(letter)
        end: int = words[length]
        if words[0] != 0 or end < 0:
            raise ValueError("its offsets do not begin with 0, or go backwards")
        # A list of nulls: Arrow checks the offsets of that without any values.
        kind = pa.list_(pa.null()) if letter == "i" else pa.large_list(pa.null())
        items = pa.Array.from_buffers(pa.null(), end, [None])
        try:
            pa.Array.from_buffers(kind, length, [None, offsets], 0, children=[items]).validate(
                full=True
            )
        except pa.ArrowException as error:
            raise ValueError("its offsets do not begin with 0, or go backwards") from error
        return offsets, end

    def read(self, node: Node, kind: pa.DataType, length: int) -> pa.Array:
        """Return the array of a node, whose type is `kind`.

        Raises:
            ValueError, pa.ArrowException: its parts are not right.
        """
        if length > MAX_ITEMS:
            raise ValueError("it is too long")
        if isinstance(kind, pa.BaseExtensionType):
            storage = self.read(node, kind.storage_type, length)
            return pa.ExtensionArray.from_storage(kind, storage)
        mark = self._marks[self._node]
        self._node += 1
        validity, nulls = None, 0
        if mark:
            if mark != 1 or pa.types.is_null(node.kind):
                raise ValueError("it has no such bitmap")
            validity = self._take((length + 7) >> 3, checked=True)
            nulls = pa.Array.from_buffers(pa.bool_(), length, [None, validity], 0).false_count
            if not nulls:
                raise ValueError("a bitmap has no nulls")
        return self._read_values(node, kind, length, validity, nulls)

    def _read_values(
        self, node: Node, kind: pa.DataType, length: int, validity: pa.Buffer | None, nulls: int
    ) -> pa.Array:
        t = pa.types
        make = pa.Array.from_buffers
        if t.is_null(kind):
            return make(kind, length, [None])
        if t.is_struct(kind):
            fields = [
                self.read(child, kind.field(n).type, length)
                for n, child in enumerate(node.children)
            ]
            return make(kind, length, [validity], nulls, children=fields)
        if t.is_fixed_size_list(kind):
            items = self.read(node.children[0], kind.value_type, length * kind.list_size)
            return make(kind, length, [validity], nulls, children=[items])
        if is_list(kind):
            offsets, end = self._take_offsets(length, offset_format(kind))
            items = self.read(node.children[0], kind.field(0).type, end)
            if t.is_map(kind) and (items.null_count or items.field(0).null_count):
                # Arrow would end this process.
                raise ValueError("a key of a map is null")
            return make(kind, length, [validity, offsets], nulls, children=[items])
        if is_variable(kind):
            offsets, end = self._take_offsets(length, offset_format(kind))
            values = self._take(end, checked=False)
            return make(kind, length, [validity, offsets, values], nulls)
        size = (length * item_bits(kind) + 7) >> 3
        values = self._take(size, checked=node.dictionary is not None)
        if node.dictionary is None:
            return make(kind, length, [validity, values], nulls)
        indices = make(kind.index_type, length, [validity, values], nulls)
        return self._read_dictionary(node.dictionary, kind, indices)

    def _read_dictionary(self, node: Node, kind: pa.DataType, indices: pa.Array) -> pa.Array:
        (size,) = _U64.unpack(self._take(8, checked=False).to_pybytes())
        if size > MAX_ITEMS:
            raise ValueError("it is too long")
        # A dictionary of nulls: Arrow checks the indices without any values.
        empty = pa.Array.from_buffers(pa.null(), size, [None])
        pa.DictionaryArray.from_arrays(indices, empty, safe=False).validate(full=True)
        values = self.read(node, kind.value_type, size)
        return pa.DictionaryArray.from_arrays(indices, values, ordered=kind.ordered, safe=False)

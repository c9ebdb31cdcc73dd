"""From CDR, as ROS 2 sends it, to Arrow: one function for each type, made from its definition.

Numbers stay where they are: arrays are slices of the message. Every length is checked against the
bytes that are there before anything is allocated for it.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from functools import cache, lru_cache
from typing import Any

import numpy as np
import pyarrow as pa

from dorad.ros2.arrowtypes import arrow_type, field_type, item_type
from dorad.ros2.definitions import Field, Item, Many, Message, Number, Text
from dorad.ros2.layout import SIZES, Layout, layout, smallest

HEADER = 4
LITTLE_ENDIAN = b"\x00\x01"
_COPIED = 1 << 16
"""Up to this size a message is copied, so that its numbers are aligned in memory, too."""

_PART = 1024
"""Items of a sequence that are read at once, if each is an object first."""

_LENGTH = struct.Struct("<I").unpack_from
_STAMP = struct.Struct("<iI").unpack_from
_array = pa.Array.from_buffers


class CdrError(ValueError):
    """Bytes are not a message of the type."""


class _Wire:
    """The body of a message, and how far it has been read."""

    __slots__ = ("address", "buffer", "end", "pos", "view")

    def __init__(self, cdr: bytes) -> None:
        if len(cdr) <= _COPIED:
            self.buffer = pa.py_buffer(cdr[HEADER:])
        else:
            self.buffer = pa.py_buffer(cdr).slice(HEADER)
        self.view = memoryview(self.buffer)
        self.address = self.buffer.address
        self.end = len(self.view)
        self.pos = 0

    def take(self, size: int, align: int) -> int:
        """Return where the next `size` bytes start, and step over them. Raises CdrError."""
        start = -(-self.pos // align) * align
        self.pos = start + size
        if self.pos > self.end:
            raise CdrError(f"ends after {self.end} bytes, within a value of {size}")
        return start

    def slice(self, start: int, size: int, align: int) -> Any:
        """Return these bytes, at an address that is a multiple of `align`."""
        if (self.address + start) % align:
            return pa.py_buffer(bytes(self.view[start : start + size]))
        return self.buffer.slice(start, size)

    def length(self) -> int:
        length: int = _LENGTH(self.view, self.take(4, 4))[0]
        return length


_Read = Callable[[_Wire], Any]
"""Makes an array of one value."""


@cache
def decoder(message: Message) -> Callable[[bytes], Any]:
    """Return the function that makes an array of one struct from a message, with its header.

    It raises CdrError for anything but a message of this type in little-endian plain CDR. Bytes
    may follow: rmw_fastrtps serializes into as many as it has estimated.
    """
    read = _struct(message)

    def decode(cdr: bytes) -> Any:
        if cdr[:2] != LITTLE_ENDIAN or len(cdr) < HEADER:
            raise CdrError(f"is not little-endian plain CDR: it starts with {cdr[:2].hex()!r}")
        return read(_Wire(cdr))

    return decode


STAMP = "stamp_ns"
"""Key in the metadata of a message whose header has a stamp: ns since the start of its clock."""


@cache
def stamp_reader(message: Message) -> Callable[[bytes], int] | None:
    """Return what reads the stamp of a message that was decoded, in ns; None if it has no header.

    A header is the first field, as in all messages of ROS 2 that have one.
    """
    first = message.fields[0].item if message.fields else None
    if not isinstance(first, Message) or first.name != "std_msgs/msg/Header":
        return None
    stamp = first.fields[0].item if first.fields else None
    if not isinstance(stamp, Message) or _types_of(stamp) != ["int32", "uint32"]:
        return None

    def read(cdr: bytes) -> int:
        seconds, nanoseconds = _STAMP(cdr, HEADER)
        return int(seconds) * 1_000_000_000 + int(nanoseconds)

    return read


def _types_of(message: Message) -> list[object]:
    return [getattr(each.item, "name", None) for each in message.fields if each.many is None]


@cache
def _struct(message: Message) -> _Read:
    kind = arrow_type(message)
    reads = [_field(each) for each in message.fields]
    if not reads:
        empty = pa.array([{}], kind)

        def read_empty(wire: _Wire) -> Any:
            wire.take(1, 1)
            return empty

        return read_empty

    def read_struct(wire: _Wire) -> Any:
        return _array(kind, 1, [None], children=[read(wire) for read in reads])

    return read_struct


def _field(field: Field) -> _Read:
    if field.many is None:
        return _single(field.item)
    kind = field_type(field)
    items = _items(field.item)
    count = _count(field.many, smallest(field.item))

    def read_list(wire: _Wire) -> Any:
        number = count(wire)
        return _array(kind, 1, [None, _offsets(number)], children=[items(wire, number)])

    return read_list


def _single(item: Item) -> _Read:
    match item:
        case Number("bool"):
            false, true = pa.array([False]), pa.array([True])

            def read_bool(wire: _Wire) -> Any:
                value = wire.view[wire.take(1, 1)]
                if value > 1:
                    raise CdrError(f"has a bool of {value}")
                return true if value else false

            return read_bool
        case Number(name):
            size, kind = SIZES[name], item_type(item)

            def read_number(wire: _Wire) -> Any:
                return _array(kind, 1, [None, wire.slice(wire.take(size, size), size, size)])

            return read_number
        case Text(True):

            def read_wide(wire: _Wire) -> Any:
                return pa.array([_wide(wire, item.limit)], pa.string())

            return read_wide
        case Text():
            text = pa.string()

            def read_text(wire: _Wire) -> Any:
                start, size = _text(wire, item.limit)
                return _array(text, 1, [None, _offsets(size), wire.buffer.slice(start, size)])

            return read_text
        case Message():
            return _struct(item)


def _count(many: Many, least: int) -> _Read:
    """Return what reads, or knows, the number of items, each of at least `least` bytes."""
    if many.fixed:
        return lambda wire: many.size

    def read_count(wire: _Wire) -> int:
        number = wire.length()
        if number > (many.size or number):
            raise CdrError(f"has {number} items where at most {many.size} are allowed")
        if number * least > wire.end - wire.pos:
            raise CdrError(f"ends within a sequence of {number} items")
        return number

    return read_count


def _items(item: Item) -> Callable[[_Wire, int], Any]:
    match item:
        case Number(name):
            return lambda wire, number: _numbers(wire, name, number)
        case Text(wide):

            def read_texts(wire: _Wire, number: int) -> Any:
                if wide:
                    return pa.array([_wide(wire, item.limit) for _ in range(number)], pa.string())
                places = [_text(wire, item.limit) for _ in range(number)]
                return pa.array(
                    [str(wire.view[at : at + size], "utf-8") for at, size in places], pa.string()
                )

            return _in_parts(read_texts)
        case Message():
            kind, place, read = arrow_type(item), layout(item), _struct(item)

            def read_structs(wire: _Wire, number: int) -> Any:
                if number == 0:
                    return pa.array([], kind)
                return pa.concat_arrays([read(wire) for _ in range(number)])

            if place is None:
                return _in_parts(read_structs)
            return lambda wire, number: (
                _rows(wire, item, place, number) if number else pa.array([], kind)
            )


def _in_parts(read: Callable[[_Wire, int], Any]) -> Callable[[_Wire, int], Any]:
    """Return `read` for any number of items: those it makes first take far more memory than the
    array of all.
    """

    def read_all(wire: _Wire, number: int) -> Any:
        if number <= _PART:
            return read(wire, number)
        sizes = (min(_PART, number - at) for at in range(0, number, _PART))
        return pa.concat_arrays([read(wire, size) for size in sizes])

    return read_all


def _numbers(wire: _Wire, name: str, number: int) -> Any:
    size, kind = SIZES[name], item_type(Number(name))
    start = wire.take(number * size, size if number else 1)
    if name == "bool":
        return _bools(np.frombuffer(wire.view, np.uint8, number, start))
    return _array(kind, number, [None, wire.slice(start, number * size, size)])


def _bools(values: Any) -> Any:
    if values.size and values.max() > 1:
        raise CdrError(f"has a bool of {values.max()}")
    return pa.array(values.astype(np.bool_))


def _rows(wire: _Wire, message: Message, place: Layout, number: int) -> Any:
    """Read a sequence of messages of a fixed size column by column."""
    start = wire.take(place.stride * (number - 1) + place.size, place.align)
    columns = []
    for leaf in place.leaves:
        count = 1 if leaf.repeated is None else leaf.repeated
        kind = np.dtype(np.uint8 if leaf.name == "bool" else leaf.name)
        array: Any = np.ndarray(
            (number, count), kind, wire.view, start + leaf.offset, (place.stride, kind.itemsize)
        )
        flat = np.ascontiguousarray(array).reshape(-1)
        columns.append(_bools(flat) if leaf.name == "bool" else pa.array(flat))
    return _assemble(message, iter(columns), number)


def _assemble(message: Message, columns: Any, number: int) -> Any:
    children = []
    for field in message.fields:
        if isinstance(field.item, Message):
            children.append(_assemble(field.item, columns, number))
        elif field.many is None:
            children.append(next(columns))
        else:
            offsets = pa.array(np.arange(number + 1, dtype=np.int32) * field.many.size)
            children.append(pa.ListArray.from_arrays(offsets, next(columns)))
    return _array(arrow_type(message), number, [None], children=children)


def _text(wire: _Wire, limit: int) -> tuple[int, int]:
    """Return start and size of a valid string, without its terminating zero."""
    size = wire.length()
    if size == 0:
        return wire.pos, 0  # not as ROS 2 writes it, but as some others do
    start = wire.take(size, 1)
    if wire.view[start + size - 1]:
        raise CdrError("has a string that does not end with a zero")
    if size - 1 > (limit or size):
        raise CdrError(f"has a string of {size - 1} bytes where {limit} are allowed")
    try:
        str(wire.view[start : start + size - 1], "utf-8")
    except UnicodeDecodeError as error:
        raise CdrError(f"has a string that is not UTF-8: {error.reason}") from error
    return start, size - 1


def _wide(wire: _Wire, limit: int) -> str:
    """Return a string of 16-bit characters; ROS 2 writes each in 32 bits."""
    size = wire.length()
    if size > (limit or size):
        raise CdrError(f"has a string of {size} characters where {limit} are allowed")
    start = wire.take(size * 4, 4)
    units = np.frombuffer(wire.view, np.uint32, size, start)
    if size and units.max() > 0xFFFF:
        raise CdrError("has a string with a character above 16 bits")
    try:
        return str(units.astype(np.uint16).tobytes(), "utf-16-le")
    except UnicodeDecodeError as error:
        raise CdrError(f"has a string that is not UTF-16: {error.reason}") from error


@lru_cache(maxsize=1024)
def _offsets(end: int) -> Any:
    """Return the offsets of the only item of a list or string column."""
    if end > 0x7FFF_FFFF:
        raise CdrError(f"has a sequence of {end} items")
    return pa.py_buffer(struct.pack("<ii", 0, end))

"""The places of numbers in messages of a fixed size, for sequences that are read at once."""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

from dorad.ros2.definitions import Field, Item, Message, Number, Text

SIZES = {"bool": 1, "int8": 1, "uint8": 1, "int16": 2, "uint16": 2, "int32": 4, "uint32": 4}
SIZES |= {"int64": 8, "uint64": 8, "float32": 4, "float64": 8}


class Leaf(NamedTuple):
    """A number, or `repeated` of them in a row, at an offset in its message."""

    offset: int
    name: str
    repeated: int | None


class Layout(NamedTuple):
    """Where a message has its numbers, if it starts at a multiple of `align`."""

    leaves: tuple[Leaf, ...]
    """In the order of the fields, depth first."""
    align: int
    size: int
    stride: int
    """From one message of a sequence to the next one."""


@cache
def layout(message: Message) -> Layout | None:
    """Return the layout of a message, None if it differs from message to message."""
    leaves: list[Leaf] = []
    size = _place(message, leaves, 0)
    if size is None or not leaves:
        return None
    align = max(SIZES[leaf.name] for leaf in leaves)
    if SIZES[leaves[0].name] != align:
        return None  # the first of a sequence may lie otherwise than the others
    return Layout(tuple(leaves), align, size, -(-size // align) * align)


def _place(message: Message, leaves: list[Leaf], offset: int) -> int | None:
    for field in message.fields:
        if isinstance(field.item, Message) and field.many is None:
            after = _place(field.item, leaves, offset)
            if after is None:
                return None
            offset = after
        elif not isinstance(field.item, Number) or (field.many and not field.many.fixed):
            return None
        else:
            count = None if field.many is None else field.many.size
            size = SIZES[field.item.name]
            offset = -(-offset // size) * size
            leaves.append(Leaf(offset, field.item.name, count))
            offset += size * (1 if count is None else count)
    # A message without fields has a byte that is in no field.
    return offset if message.fields else None


def smallest(item: Item) -> int:
    """Return the least number of bytes that a value takes, without padding; never 0."""
    match item:
        case Number(name):
            return SIZES[name]
        case Text():
            return 4
        case Message():
            return max(1, sum(map(_smallest_field, item.fields)))


def _smallest_field(field: Field) -> int:
    if field.many is None:
        return smallest(field.item)
    return field.many.size * smallest(field.item) if field.many.fixed else 4

"""Append small messages to a chunk: the hot path of a recorder, which has thousands a second.

`pack_small` is that of the extension, `dorad/shm/native/records.c`, if there is one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from dorad.record import mcap, protobuf
from dorad.record.mcap import INDEX_ENTRY, MESSAGE_HEAD, Op
from dorad.shm import native

if TYPE_CHECKING:
    from collections.abc import Callable

    from dorad.record.encoding import Kind
    from dorad.record.items import Item

SMALL = 16 << 10
"""Bytes up to which a message counts as small. Only chunks of small messages are compressed:
pictures and point clouds lose a few percent and take as long as the disk."""

PICTURE = b'"encoding"'
"""In the metadata of a message that may be a picture."""

SmallChannel = tuple["int | Kind", int, int, bytearray]
"""A channel whose messages are packed here: the type code of its numbers, or the kind of its
encoded messages; the bytes of a number, else 0; its id; its index in the chunk."""

_MESSAGE = int(Op.MESSAGE)
_HEAD_SIZE = MESSAGE_HEAD.size - mcap.HEAD.size
_pack_head = MESSAGE_HEAD.pack
_pack_entry = INDEX_ENTRY.pack


def pack_small_pure(
    into: bytearray,
    before: int,
    items: list[Item],
    at: int,
    known: dict[str, SmallChannel],
    room: int,
) -> int:
    """Append the records of messages from `items[at]` on, while `into` has less than `room` bytes.

    Stop at the first message that is large, not of its topic's channel in `known`, or that needs
    more than copying; return its index. `into` begins at byte `before` of the chunk.
    """
    count = len(items)
    while at < count and len(into) < room:
        stamp, topic, sequence, content = items[at]
        channel = known.get(topic)
        if channel is None:
            break
        first, width, channel_id, index = channel
        if len(content) == 5:
            code, length, nulls, payload, meta = content
            size = len(payload)
            if code != first or nulls or length * width != size or PICTURE in meta:
                break
            if size > SMALL or len(meta) > SMALL:
                break
            head = protobuf.prefix(1, size)
            body: bytes | memoryview = payload
            tail = protobuf.delimited(protobuf.METADATA_FIELD, meta) if meta else b""
        else:
            kind, head, body, tail = content
            if kind is not first or len(head) + len(body) + len(tail) > SMALL:
                break
        size = len(head) + len(body) + len(tail)
        index += _pack_entry(stamp, before + len(into))
        into += _pack_head(
            _MESSAGE, _HEAD_SIZE + size, channel_id, sequence & 0xFFFFFFFF, stamp, stamp
        )
        into += head
        into += body
        into += tail
        at += 1
    return at


pack_small: Callable[[bytearray, int, list[Item], int, dict[str, SmallChannel], int], int] = (
    pack_small_pure if native.module is None else native.module.pack_small
)

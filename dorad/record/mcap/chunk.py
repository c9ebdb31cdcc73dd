"""Build one self-contained chunk: the schemas and channels it uses, its messages, their index."""

from __future__ import annotations

import struct
import zlib
from typing import TYPE_CHECKING, NamedTuple

import pyarrow as pa

from dorad.record.encoding import protobuf
from dorad.record.mcap import layout
from dorad.record.mcap.layout import INDEX_ENTRY, MESSAGE_HEAD, Op
from dorad.shm import native

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from dorad.record.encoding.messages import Encoded, Kind
    from dorad.record.mcap.items import Item

CHUNK_BYTES = 1 << 20
"""Bytes from which on a chunk is written."""

SMALL = 16 << 10
"""Bytes up to which a message counts as small. Only chunks of small messages are compressed:
pictures and point clouds lose a few percent and take as long as the disk."""

PICTURE = b'"encoding"'
"""In the metadata of a message that may be a picture."""

SmallChannel = tuple["int | Kind", int, int, bytearray]
"""A channel whose messages are packed here: the type code of its numbers, or the kind of its
encoded messages; the bytes of a number, else 0; its id; its index in the chunk."""

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


_COPIED = 64 << 10
"""Bodies up to this size are copied together; larger ones are written from where they are."""

_MESSAGE = int(Op.MESSAGE)
_pack_head = MESSAGE_HEAD.pack
_HEAD_SIZE = MESSAGE_HEAD.size - layout.HEAD.size


class Chunk(NamedTuple):
    """A chunk as it is written: its record in parts, then the records of its index."""

    parts: tuple[bytes | memoryview, ...]
    length: int
    """Bytes of the chunk record."""
    indexes: bytes
    index_offsets: dict[int, int]
    """Where the index of each channel begins, from the end of the chunk record."""
    start: int
    end: int
    compression: str
    stored: int
    size: int
    counts: dict[int, int]


class ChunkBuilder:
    """Collects the messages of one chunk. Small ones are what costs: there are thousands."""

    def __init__(self, compression: str) -> None:
        """`compression` is `none`, `zstd`, `lz4` or `auto`, which compresses chunks of small
        messages only.
        """
        self._compression = compression
        self._last = bytearray()
        """Where small records are added."""
        self._parts: list[bytearray | bytes | memoryview] = [self._last]
        self._before = 0
        """Bytes of the parts before the last."""
        self._index: dict[int, bytearray] = {}
        """The index entries of each channel: time and offset of its messages."""
        self._small: dict[str, SmallChannel] = {}
        """The channel of a topic whose small messages `add_small` takes."""
        self._all_small = True

    def __bool__(self) -> bool:
        return bool(self._index)

    @property
    def size(self) -> int:
        """The bytes of the records so far."""
        return self._before + len(self._last)

    @property
    def counts(self) -> dict[int, int]:
        """The number of messages of each channel."""
        size = INDEX_ENTRY.size
        return {channel_id: len(entries) // size for channel_id, entries in self._index.items()}

    def has(self, channel_id: int) -> bool:
        """Return True if the chunk has the records of a channel."""
        return channel_id in self._index

    def declare(self, channel_id: int, records: bytes) -> None:
        """Add the schema and the channel record of a channel, once in each chunk."""
        self._index[channel_id] = bytearray()
        self._last += records

    def expect_small(self, topic: str, first: int | Kind, width: int, channel_id: int) -> None:
        """Let `add_small` take further messages of a topic; see `SmallChannel`."""
        self._small[topic] = (first, width, channel_id, self._index[channel_id])

    def add_small(self, items: list[Item], at: int, limit: int) -> int:
        """Add small messages of expected topics, from `items[at]` to the first one that is not.

        Return its index. Stop also when the chunk has `limit` bytes.
        """
        room = limit - self._before
        return pack_small(self._last, self._before, items, at, self._small, room)

    def add(self, channel_id: int, sequence: int, stamp: int, message: Encoded) -> None:
        """Add a message of a channel that was declared; `stamp` in ns since 1970."""
        _, begin, body, tail = message
        size = len(begin) + len(body) + len(tail)
        if size > SMALL:
            self._all_small = False
        self._index[channel_id] += INDEX_ENTRY.pack(stamp, self.size)
        self._last += _pack_head(
            _MESSAGE, _HEAD_SIZE + size, channel_id, sequence & 0xFFFFFFFF, stamp, stamp
        )
        self._last += begin
        if len(body) > _COPIED:
            self._before += len(self._last) + len(body)
            self._last = bytearray()
            self._parts += (body, self._last)
        else:
            self._last += body
        self._last += tail

    def finish(self) -> Chunk:
        """Return the chunk. It must have a message."""
        size = self.size
        stamps = [_stamps(entries) for entries in self._index.values()]
        start, end = min(map(min, stamps)), max(map(max, stamps))
        crc = 0
        for part in self._parts:
            crc = zlib.crc32(part, crc)
        compression, parts = self._compressed()
        stored = sum(map(len, parts))
        head = layout.chunk_head(start, end, size, crc, compression, stored)
        indexes, offsets = b"", {}
        for channel_id, entries in self._index.items():
            offsets[channel_id] = len(indexes)
            indexes += layout.packed_index(channel_id, bytes(entries))
        return Chunk(
            (head, *parts),
            len(head) + stored,
            indexes,
            offsets,
            start,
            end,
            compression,
            stored,
            size,
            self.counts,
        )

    def _compressed(self) -> tuple[str, tuple[bytes | memoryview, ...]]:
        """Return the name of the compression, and the records as they are stored."""
        wanted = self._compression
        if wanted == "auto":
            wanted = "zstd" if self._all_small else "none"
        plain = tuple(memoryview(part) for part in self._parts if part)
        if wanted == "none" or self.size > MAX_UNPACKED:
            return "", plain
        data = compress(wanted, plain)
        return (wanted, (data,)) if len(data) < self.size else ("", plain)


def _stamps(entries: bytearray) -> tuple[int, ...]:
    """Return the times in the index of a channel, of which there is at least one."""
    return struct.unpack(f"<{len(entries) // 8}Q", entries)[::2]


def compress(name: str, parts: Sequence[memoryview]) -> bytes:
    """Return the parts compressed with `zstd` or `lz4`."""
    codec = pa.Codec("zstd", compression_level=1) if name == "zstd" else pa.Codec(name)
    packed: bytes = codec.compress(b"".join(parts), asbytes=True)
    return packed


def decompress(name: str, data: memoryview, size: int) -> bytes:
    """Return `size` bytes of records that were compressed with `name`, `""` for none.

    Raises:
        layout.McapError: the data do not decompress to that size, or the compression is unknown.
    """
    if not name:
        if len(data) != size:
            raise layout.McapError(f"a chunk of {len(data)} bytes declares {size}")
        return bytes(data)
    if name not in ("zstd", "lz4"):
        raise layout.McapError(f"the compression {name!r} is unknown")
    if size > max(MAX_RATIO * len(data), MAX_UNPACKED):
        raise layout.McapError(f"a chunk of {len(data)} bytes claims to hold {size}")
    try:
        if name == "lz4":
            # The codec fills a short result up with whatever the memory held before.
            with pa.CompressedInputStream(pa.BufferReader(data), name) as stream:
                out: bytes = stream.read(size + 1)
        else:
            out = pa.Codec(name).decompress(data, decompressed_size=size, asbytes=True)
    except (pa.ArrowException, OSError) as error:
        raise layout.McapError(f"a chunk cannot be decompressed: {error}") from error
    if len(out) != size:
        raise layout.McapError(f"a chunk decompresses to {len(out)} bytes instead of {size}")
    return out


MAX_UNPACKED = 256 << 20
"""Bytes up to which a chunk may shrink by any factor. Larger ones are written as they are."""

MAX_RATIO = 1000
"""No larger chunk shrinks by more: a small file must not need much memory."""

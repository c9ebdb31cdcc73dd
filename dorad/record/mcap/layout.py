"""The records of an MCAP file, and their bytes; see the specification at https://mcap.dev/spec.

Pure functions: nothing here opens a file. `mcapread` is the way back.
"""

from __future__ import annotations

import struct
import zlib
from enum import IntEnum
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

MAGIC = b"\x89MCAP0\r\n"
HEAD = struct.Struct("<BQ")
"""Opcode and length of the content of a record."""

PROFILE = "dora"
"""The profile of our recordings, in the header."""
ROS2 = "ros2"
"""The profile of recordings of ROS 2."""

MAX_ID = 0xFFFF
MESSAGE_HEAD = struct.Struct("<BQHIQQ")
"""The start of a message record: opcode, length, channel, sequence, log time, publish time."""

MESSAGE = struct.Struct("<HIQQ")
CHUNK = struct.Struct("<QQQI")
FOOTER = struct.Struct("<QQI")
CHUNK_INDEX = struct.Struct("<QQQQ")
STATISTICS = struct.Struct("<QHIIIIQQ")
"""Messages, schemas, channels, attachments, metadata records, chunks, first and last time."""

_ATTACHMENT_INDEX = struct.Struct("<QQQQQ")
_U16 = struct.Struct("<H")
_U32 = struct.Struct("<I")
_U64 = struct.Struct("<Q")
INDEX_ENTRY = struct.Struct("<QQ")
OFFSET_ENTRY = struct.Struct("<HQ")

FOOTER_SIZE = HEAD.size + FOOTER.size
END_SIZE = FOOTER_SIZE + len(MAGIC)
"""Bytes of the footer and the closing magic."""


class Op(IntEnum):
    """Opcodes of records."""

    HEADER = 0x01
    FOOTER = 0x02
    SCHEMA = 0x03
    CHANNEL = 0x04
    MESSAGE = 0x05
    CHUNK = 0x06
    MESSAGE_INDEX = 0x07
    CHUNK_INDEX = 0x08
    ATTACHMENT = 0x09
    ATTACHMENT_INDEX = 0x0A
    STATISTICS = 0x0B
    METADATA = 0x0C
    METADATA_INDEX = 0x0D
    SUMMARY_OFFSET = 0x0E
    DATA_END = 0x0F


class McapError(ValueError):
    """The bytes are not the record that they should be."""


class Schema(NamedTuple):
    """A schema record; id 0 means none."""

    id: int
    name: str
    encoding: str
    data: bytes


class Channel(NamedTuple):
    """A channel record."""

    id: int
    schema: int
    topic: str
    encoding: str
    metadata: Mapping[str, str]


class Message(NamedTuple):
    """A message record; times in ns since 1970."""

    channel: int
    sequence: int
    log_time: int
    publish_time: int
    data: memoryview


class ChunkHead(NamedTuple):
    """The fields of a chunk record before its records; times in ns since 1970."""

    start: int
    end: int
    size: int
    """Bytes of the records when uncompressed."""
    crc: int
    compression: str
    begin: int
    """Where the records begin in the content of the chunk record."""
    stored: int
    """Bytes of the records as they are stored."""


class ChunkIndex(NamedTuple):
    """A chunk index record; offsets from the start of the file."""

    start: int
    end: int
    offset: int
    length: int
    index_offsets: Mapping[int, int]
    index_length: int
    compression: str
    stored: int
    size: int


class Attachment(NamedTuple):
    """An attachment record."""

    log_time: int
    name: str
    media_type: str
    data: bytes


class Statistics(NamedTuple):
    """The numbers of records in a file, of a statistics record."""

    messages: int
    schemas: int
    channels: int
    attachments: int
    metadata: int
    chunks: int


class Footer(NamedTuple):
    """The footer record."""

    summary_start: int
    summary_offset_start: int
    crc: int


def record(op: Op, content: bytes) -> bytes:
    """Return a record."""
    return HEAD.pack(op, len(content)) + content


def text(value: str) -> bytes:
    """Return a text with its length."""
    data = value.encode("utf-8", "replace")
    return _U32.pack(len(data)) + data


def text_map(values: Mapping[str, str]) -> bytes:
    """Return a mapping of texts with its length in bytes."""
    data = b"".join(text(key) + text(value) for key, value in values.items())
    return _U32.pack(len(data)) + data


def header(profile: str, library: str) -> bytes:
    """Return the header record."""
    return record(Op.HEADER, text(profile) + text(library))


def schema(item: Schema) -> bytes:
    """Return a schema record."""
    data = _U32.pack(len(item.data)) + item.data
    return record(Op.SCHEMA, _U16.pack(item.id) + text(item.name) + text(item.encoding) + data)


def channel(item: Channel) -> bytes:
    """Return a channel record."""
    head = _U16.pack(item.id) + _U16.pack(item.schema)
    return record(
        Op.CHANNEL, head + text(item.topic) + text(item.encoding) + text_map(item.metadata)
    )


def chunk_head(start: int, end: int, size: int, crc: int, compression: str, stored: int) -> bytes:
    """Return the start of a chunk record; `stored` bytes of records follow."""
    content = CHUNK.pack(start, end, size, crc) + text(compression) + _U64.pack(stored)
    return HEAD.pack(Op.CHUNK, len(content) + stored) + content


def message_index(channel_id: int, entries: Sequence[tuple[int, int]]) -> bytes:
    """Return the index of one channel in one chunk: pairs of log time and offset in the chunk."""
    return packed_index(channel_id, b"".join(INDEX_ENTRY.pack(*entry) for entry in entries))


def packed_index(channel_id: int, entries: bytes) -> bytes:
    """Return the index of one channel in one chunk, whose entries are packed already."""
    return record(Op.MESSAGE_INDEX, _U16.pack(channel_id) + _U32.pack(len(entries)) + entries)


def chunk_index(item: ChunkIndex) -> bytes:
    """Return a chunk index record."""
    offsets = b"".join(OFFSET_ENTRY.pack(*pair) for pair in item.index_offsets.items())
    return record(
        Op.CHUNK_INDEX,
        CHUNK_INDEX.pack(item.start, item.end, item.offset, item.length)
        + _U32.pack(len(offsets))
        + offsets
        + _U64.pack(item.index_length)
        + text(item.compression)
        + _U64.pack(item.stored)
        + _U64.pack(item.size),
    )


def attachment(item: Attachment) -> bytes:
    """Return an attachment record."""
    content = (
        INDEX_ENTRY.pack(item.log_time, item.log_time)
        + text(item.name)
        + text(item.media_type)
        + _U64.pack(len(item.data))
        + item.data
    )
    return record(Op.ATTACHMENT, content + _U32.pack(zlib.crc32(content)))


def attachment_index(offset: int, length: int, item: Attachment) -> bytes:
    """Return the index record of an attachment at `offset`, whose record has `length` bytes."""
    fields = _ATTACHMENT_INDEX.pack(offset, length, item.log_time, item.log_time, len(item.data))
    return record(Op.ATTACHMENT_INDEX, fields + text(item.name) + text(item.media_type))


def metadata(name: str, values: Mapping[str, str]) -> bytes:
    """Return a metadata record."""
    return record(Op.METADATA, text(name) + text_map(values))


def metadata_index(offset: int, length: int, name: str) -> bytes:
    """Return the index record of a metadata record at `offset`."""
    return record(Op.METADATA_INDEX, INDEX_ENTRY.pack(offset, length) + text(name))


def statistics(
    counts: Mapping[int, int],
    *,
    schemas: int,
    channels: int,
    attachments: int,
    metadata_records: int,
    chunks: int,
    start: int,
    end: int,
) -> bytes:
    """Return the statistics record; `counts` are the messages of each channel."""
    by_channel = b"".join(OFFSET_ENTRY.pack(*pair) for pair in counts.items())
    fields = STATISTICS.pack(
        sum(counts.values()), schemas, channels, attachments, metadata_records, chunks, start, end
    )
    return record(Op.STATISTICS, fields + _U32.pack(len(by_channel)) + by_channel)


def data_end() -> bytes:
    """Return the record that ends the data section."""
    return record(Op.DATA_END, bytes(4))


def summary(groups: Iterable[tuple[Op, bytes]], start: int) -> bytes:
    """Return the summary section at byte `start`, with its offsets, the footer and the magic."""
    data, offsets = b"", b""
    for op, records in groups:
        if records:
            offsets += record(
                Op.SUMMARY_OFFSET,
                bytes((op,)) + INDEX_ENTRY.pack(start + len(data), len(records)),
            )
            data += records
    offset_start = start + len(data) if offsets else 0
    data += offsets + HEAD.pack(Op.FOOTER, FOOTER.size)
    data += INDEX_ENTRY.pack(start, offset_start)
    return data + _U32.pack(zlib.crc32(data)) + MAGIC

"""The records of an MCAP file as bytes, and back; see the specification at https://mcap.dev/spec.

Pure functions: nothing here opens a file. Readers check every length against the bytes that are
there, because a file may be damaged or hostile.
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

MAX_ID = 0xFFFF
MESSAGE_HEAD = struct.Struct("<BQHIQQ")
"""The start of a message record: opcode, length, channel, sequence, log time, publish time."""

_MESSAGE = struct.Struct("<HIQQ")
_CHUNK = struct.Struct("<QQQI")
_FOOTER = struct.Struct("<QQI")
_CHUNK_INDEX = struct.Struct("<QQQQ")
_STATISTICS = struct.Struct("<QHIIIIQQ")
"""Messages, schemas, channels, attachments, metadata records, chunks, first and last time."""

_ATTACHMENT_INDEX = struct.Struct("<QQQQQ")
_U16 = struct.Struct("<H")
_U32 = struct.Struct("<I")
_U64 = struct.Struct("<Q")
INDEX_ENTRY = struct.Struct("<QQ")
_OFFSET_ENTRY = struct.Struct("<HQ")

FOOTER_SIZE = HEAD.size + _FOOTER.size
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


class Footer(NamedTuple):
    """The footer record."""

    summary_start: int
    summary_offset_start: int
    crc: int


# -- Building records


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
    content = _CHUNK.pack(start, end, size, crc) + text(compression) + _U64.pack(stored)
    return HEAD.pack(Op.CHUNK, len(content) + stored) + content


def message_index(channel_id: int, entries: Sequence[tuple[int, int]]) -> bytes:
    """Return the index of one channel in one chunk: pairs of log time and offset in the chunk."""
    return packed_index(channel_id, b"".join(INDEX_ENTRY.pack(*entry) for entry in entries))


def packed_index(channel_id: int, entries: bytes) -> bytes:
    """Return the index of one channel in one chunk, whose entries are packed already."""
    return record(Op.MESSAGE_INDEX, _U16.pack(channel_id) + _U32.pack(len(entries)) + entries)


def chunk_index(item: ChunkIndex) -> bytes:
    """Return a chunk index record."""
    offsets = b"".join(_OFFSET_ENTRY.pack(*pair) for pair in item.index_offsets.items())
    return record(
        Op.CHUNK_INDEX,
        _CHUNK_INDEX.pack(item.start, item.end, item.offset, item.length)
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
    by_channel = b"".join(_OFFSET_ENTRY.pack(*pair) for pair in counts.items())
    fields = _STATISTICS.pack(
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
    data += offsets + HEAD.pack(Op.FOOTER, _FOOTER.size)
    data += INDEX_ENTRY.pack(start, offset_start)
    return data + _U32.pack(zlib.crc32(data)) + MAGIC


# -- Reading records


class Cursor:
    """Reads fields of a record in order. Raises McapError where they do not fit."""

    def __init__(self, data: memoryview) -> None:
        self.data = data
        self.at = 0

    def bytes(self, size: int) -> memoryview:
        """Return the next `size` bytes."""
        end = self.at + size
        if end > len(self.data):
            raise McapError(f"{size} bytes at byte {self.at} of a record of {len(self.data)}")
        part = self.data[self.at : end]
        self.at = end
        return part

    def number(self, fmt: struct.Struct) -> int:
        """Return the next number."""
        value: int = fmt.unpack(self.bytes(fmt.size))[0]
        return value

    def u16(self) -> int:
        """Return the next 2 bytes as a number."""
        return self.number(_U16)

    def u32(self) -> int:
        """Return the next 4 bytes as a number."""
        return self.number(_U32)

    def u64(self) -> int:
        """Return the next 8 bytes as a number."""
        return self.number(_U64)

    def text(self) -> str:
        """Return the next text; bytes that are not UTF-8 are replaced."""
        return bytes(self.bytes(self.u32())).decode("utf-8", "replace")

    def text_map(self) -> dict[str, str]:
        """Return the next mapping of texts."""
        part = Cursor(self.bytes(self.u32()))
        values = {}
        while part.at < len(part.data):
            key = part.text()
            values[key] = part.text()
        return values


def read_schema(content: memoryview) -> Schema:
    """Return the schema of a record's content. Raises McapError."""
    cursor = Cursor(content)
    schema_id = cursor.u16()
    name, encoding = cursor.text(), cursor.text()
    return Schema(schema_id, name, encoding, bytes(cursor.bytes(cursor.u32())))


def read_channel(content: memoryview) -> Channel:
    """Return the channel of a record's content. Raises McapError."""
    cursor = Cursor(content)
    channel_id, schema_id = cursor.u16(), cursor.u16()
    topic, encoding = cursor.text(), cursor.text()
    return Channel(channel_id, schema_id, topic, encoding, cursor.text_map())


def read_message(content: memoryview) -> Message:
    """Return the message of a record's content. Raises McapError."""
    if len(content) < _MESSAGE.size:
        raise McapError(f"a message record of {len(content)} bytes")
    channel_id, sequence, log_time, publish_time = _MESSAGE.unpack_from(content)
    return Message(channel_id, sequence, log_time, publish_time, content[_MESSAGE.size :])


def read_chunk_head(content: memoryview) -> ChunkHead:
    """Return the fields of a chunk record before its records. Raises McapError.

    `content` may end after these fields.
    """
    cursor = Cursor(content)
    start, end, size, crc = _CHUNK.unpack(cursor.bytes(_CHUNK.size))
    compression = cursor.text()
    stored = cursor.u64()
    return ChunkHead(start, end, size, crc, compression, cursor.at, stored)


def read_message_index(content: memoryview) -> tuple[int, list[tuple[int, int]]]:
    """Return the channel and the entries of a message index record. Raises McapError."""
    cursor = Cursor(content)
    channel_id = cursor.u16()
    data = cursor.bytes(cursor.u32())
    if len(data) % INDEX_ENTRY.size:
        raise McapError(f"a message index of {len(data)} bytes")
    return channel_id, list(INDEX_ENTRY.iter_unpack(data))


def read_chunk_index(content: memoryview) -> ChunkIndex:
    """Return the chunk index of a record's content. Raises McapError."""
    cursor = Cursor(content)
    start, end, offset, length = _CHUNK_INDEX.unpack(cursor.bytes(_CHUNK_INDEX.size))
    data = cursor.bytes(cursor.u32())
    if len(data) % _OFFSET_ENTRY.size:
        raise McapError(f"a chunk index with {len(data)} bytes of offsets")
    offsets = dict(_OFFSET_ENTRY.iter_unpack(data))
    index_length = cursor.u64()
    compression = cursor.text()
    return ChunkIndex(
        start, end, offset, length, offsets, index_length, compression, cursor.u64(), cursor.u64()
    )


def read_statistics(content: memoryview) -> dict[int, int]:
    """Return the number of messages of each channel of a statistics record. Raises McapError."""
    cursor = Cursor(content)
    cursor.bytes(_STATISTICS.size)
    data = cursor.bytes(cursor.u32())
    if len(data) % _OFFSET_ENTRY.size:
        raise McapError(f"statistics with {len(data)} bytes of counts")
    return dict(_OFFSET_ENTRY.iter_unpack(data))


def read_attachment(content: memoryview) -> Attachment:
    """Return the attachment of a record's content. Raises McapError if its CRC is wrong."""
    cursor = Cursor(content)
    log_time, _ = cursor.u64(), cursor.u64()
    name, media_type = cursor.text(), cursor.text()
    data = bytes(cursor.bytes(cursor.u64()))
    covered = content[: cursor.at]
    crc = cursor.u32()
    if crc and crc != zlib.crc32(covered):
        raise McapError(f"the attachment {name!r} has a wrong checksum")
    return Attachment(log_time, name, media_type, data)


def read_metadata(content: memoryview) -> tuple[str, dict[str, str]]:
    """Return the name and the values of a metadata record. Raises McapError."""
    cursor = Cursor(content)
    return cursor.text(), cursor.text_map()


def read_footer(end: bytes) -> Footer:
    """Return the footer in the last `END_SIZE` bytes of a file. Raises McapError."""
    if len(end) != END_SIZE or not end.endswith(MAGIC):
        raise McapError("the file does not end as an MCAP file does")
    op, length = HEAD.unpack_from(end)
    if op != Op.FOOTER or length != _FOOTER.size:
        raise McapError("the file has no footer")
    return Footer(*_FOOTER.unpack_from(end, HEAD.size))

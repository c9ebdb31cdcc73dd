"""The records of an MCAP file, read from their bytes.

Every length is checked against the bytes that are there: a file may be damaged or hostile.
"""

from __future__ import annotations

import struct
import zlib

from dorad.record.mcap import layout
from dorad.record.mcap.layout import (
    Attachment,
    Channel,
    ChunkHead,
    ChunkIndex,
    Footer,
    McapError,
    Message,
    Op,
    Schema,
    Statistics,
)

_U16 = struct.Struct("<H")
_U32 = struct.Struct("<I")
_U64 = struct.Struct("<Q")

_MAKERS = {"ros1": "ROS 1", "ros2": "ROS 2", "px4": "PX4", "": "another program"}
"""Names of the profiles of other programs."""


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


def read_header(header: memoryview) -> tuple[str, str]:
    """Return the profile of a file, and the program that made it; that is empty if it was dora.

    Raises McapError.
    """
    cursor = Cursor(header)
    profile, library = cursor.text(), cursor.text()
    if profile == layout.PROFILE:
        return profile, ""
    return profile, f"{_MAKERS.get(profile, profile)}{f' ({library})' if library else ''}"


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
    if len(content) < layout.MESSAGE.size:
        raise McapError(f"a message record of {len(content)} bytes")
    channel_id, sequence, log_time, publish_time = layout.MESSAGE.unpack_from(content)
    return Message(channel_id, sequence, log_time, publish_time, content[layout.MESSAGE.size :])


def read_chunk_head(content: memoryview) -> ChunkHead:
    """Return the fields of a chunk record before its records. Raises McapError.

    `content` may end after these fields.
    """
    cursor = Cursor(content)
    start, end, size, crc = layout.CHUNK.unpack(cursor.bytes(layout.CHUNK.size))
    compression = cursor.text()
    stored = cursor.u64()
    return ChunkHead(start, end, size, crc, compression, cursor.at, stored)


def read_message_index(content: memoryview) -> tuple[int, list[tuple[int, int]]]:
    """Return the channel and the entries of a message index record. Raises McapError."""
    cursor = Cursor(content)
    channel_id = cursor.u16()
    data = cursor.bytes(cursor.u32())
    if len(data) % layout.INDEX_ENTRY.size:
        raise McapError(f"a message index of {len(data)} bytes")
    return channel_id, list(layout.INDEX_ENTRY.iter_unpack(data))


def read_chunk_index(content: memoryview) -> ChunkIndex:
    """Return the chunk index of a record's content. Raises McapError."""
    cursor = Cursor(content)
    start, end, offset, length = layout.CHUNK_INDEX.unpack(cursor.bytes(layout.CHUNK_INDEX.size))
    data = cursor.bytes(cursor.u32())
    if len(data) % layout.OFFSET_ENTRY.size:
        raise McapError(f"a chunk index with {len(data)} bytes of offsets")
    offsets = dict(layout.OFFSET_ENTRY.iter_unpack(data))
    index_length = cursor.u64()
    compression = cursor.text()
    return ChunkIndex(
        start, end, offset, length, offsets, index_length, compression, cursor.u64(), cursor.u64()
    )


def read_statistics(content: memoryview) -> tuple[Statistics, dict[int, int]]:
    """Return a statistics record, and its number of messages of each channel. Raises McapError."""
    cursor = Cursor(content)
    numbers = layout.STATISTICS.unpack(cursor.bytes(layout.STATISTICS.size))
    data = cursor.bytes(cursor.u32())
    if len(data) % layout.OFFSET_ENTRY.size:
        raise McapError(f"statistics with {len(data)} bytes of counts")
    return Statistics(*numbers[:6]), dict(layout.OFFSET_ENTRY.iter_unpack(data))


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
    """Return the footer in the last `mcap.END_SIZE` bytes of a file. Raises McapError."""
    if len(end) != layout.END_SIZE or not end.endswith(layout.MAGIC):
        raise McapError("the file does not end as an MCAP file does")
    op, length = layout.HEAD.unpack_from(end)
    if op != Op.FOOTER or length != layout.FOOTER.size:
        raise McapError("the file has no footer")
    return Footer(*layout.FOOTER.unpack_from(end, layout.HEAD.size))

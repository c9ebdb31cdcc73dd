"""Walk through the records of an MCAP file that may be damaged, and check every chunk."""

from __future__ import annotations

import os
import stat
import zlib
from typing import TYPE_CHECKING, NamedTuple

from dorad.record import mcapread
from dorad.record.chunk import decompress
from dorad.record.mcap import HEAD, MAGIC, ChunkHead, McapError, Op

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

MAX_RECORD = 1 << 32
"""Bytes of the largest record that is read into memory."""

_KNOWN = frozenset(Op)
PRIVATE = 0x80
"""Opcodes from here on are private; all readers skip such records."""


class Record(NamedTuple):
    """One record of a file: where it begins, and how long it is with its head."""

    op: int
    offset: int
    length: int

    @property
    def end(self) -> int:
        """Return where the next record begins."""
        return self.offset + self.length


class ChunkContent(NamedTuple):
    """The checked content of a chunk record."""

    head: ChunkHead
    records: memoryview


def open_file(path: Path) -> int:
    """Open a file for reading, and return its descriptor.

    Raises:
        McapError: it is not a regular file; opening a pipe could block.
        OSError: it cannot be opened.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    if stat.S_ISREG(os.fstat(descriptor).st_mode):
        return descriptor
    os.close(descriptor)
    raise McapError("it is not a file")


def read_at(descriptor: int, offset: int, size: int) -> bytes:
    """Return `size` bytes at `offset`. Raises McapError if the file ends before."""
    parts = []
    while size > 0:
        part = os.pread(descriptor, min(size, 1 << 26), offset)
        if not part:
            raise McapError(f"the file ends at byte {offset}")
        parts.append(part)
        offset += len(part)
        size -= len(part)
    return parts[0] if len(parts) == 1 else b"".join(parts)


def check_start(descriptor: int) -> Record:
    """Return the header record of an MCAP file. Raises McapError if it is none."""
    size = os.fstat(descriptor).st_size
    try:
        start = read_at(descriptor, 0, min(size, len(MAGIC) + HEAD.size))
    except McapError:
        start = b""
    if start[: len(MAGIC)] != MAGIC:
        raise McapError("it is not an MCAP file" if size else "the file is empty")
    found = record_at(descriptor, len(MAGIC), size)
    if found is None or found.op != Op.HEADER:
        raise McapError("the file ends before its first record")
    return found


def record_at(descriptor: int, offset: int, size: int) -> Record | None:
    """Return the record at `offset` of a file of `size` bytes; None if there is no whole record."""
    if offset + HEAD.size > size:
        return None
    try:
        op, length = HEAD.unpack(read_at(descriptor, offset, HEAD.size))
    except McapError:
        return None
    if op not in _KNOWN and op < PRIVATE:
        return None
    if length > size - offset - HEAD.size:
        return None
    return Record(op, offset, HEAD.size + length)


def content_of(descriptor: int, found: Record) -> memoryview:
    """Return the content of a record. Raises McapError."""
    size = found.length - HEAD.size
    if size > MAX_RECORD:
        raise McapError(f"a record of {size} bytes at byte {found.offset}")
    return memoryview(read_at(descriptor, found.offset + HEAD.size, size))


def open_chunk(content: memoryview) -> ChunkContent:
    """Return the records of a chunk. Raises McapError if they are damaged."""
    head = mcapread.read_chunk_head(content)
    data = content[head.begin :]
    if len(data) != head.stored:
        raise McapError(f"a chunk of {len(data)} bytes says that it has {head.stored}")
    if not head.compression:
        records = data
        if len(records) != head.size:
            raise McapError(f"a chunk of {len(records)} bytes says that it has {head.size}")
    else:
        records = memoryview(decompress(head.compression, data, head.size))
    if head.crc and zlib.crc32(records) != head.crc:
        raise McapError("a chunk has a wrong checksum")
    return ChunkContent(head, records)


def records_in(records: memoryview) -> Iterator[tuple[int, int, memoryview]]:
    """Yield opcode, offset and content of the records of a chunk. Raises McapError."""
    at = 0
    while at < len(records):
        if at + HEAD.size > len(records):
            raise McapError("a record in a chunk is not complete")
        op, length = HEAD.unpack_from(records, at)
        begin = at + HEAD.size
        if length > len(records) - begin:
            raise McapError("a record in a chunk is not complete")
        yield op, at, records[begin : begin + length]
        at = begin + length

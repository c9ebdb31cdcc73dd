"""Walk through the records of an MCAP file that may be damaged, and check every chunk."""

from __future__ import annotations

import bisect
import itertools
import os
import stat
import zlib
from typing import TYPE_CHECKING, NamedTuple

from dorad.record.mcap import layout, parser
from dorad.record.mcap.chunk import decompress
from dorad.record.mcap.layout import HEAD, MAGIC, ChunkHead, McapError, Op

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

MAX_RECORD = 1 << 32
"""Bytes of the largest record that is read into memory."""

_ONE_READ = 1 << 30
"""Bytes that the kernel reads in one call."""

_LOOK = 4096
"""Bytes of a record in which the lengths of its content are looked for."""

_KNOWN = frozenset(Op)
PRIVATE = 0x80
"""Opcodes from here on are private; all readers skip such records."""


class RawRecord(NamedTuple):
    """One record of a file: where it begins, and how long it is with its head."""

    op: int
    offset: int
    length: int

    @property
    def end(self) -> int:
        """Where the next record begins."""
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
    data = os.pread(descriptor, max(0, size), offset)
    if len(data) < size:
        raise McapError(f"the file ends at byte {offset + len(data)}")
    return data


def _read_large(descriptor: int, offset: int, size: int) -> memoryview:
    """Return more bytes than the kernel reads in one call: joining parts would take them twice."""
    view, at = memoryview(bytearray(size)), 0
    while at < size:
        count = os.preadv(descriptor, [view[at:]], offset + at)
        if not count:
            raise McapError(f"the file ends at byte {offset + at}")
        at += count
    return view


def check_start(descriptor: int) -> RawRecord:
    """Return the header record of an MCAP file. Raises McapError if it is none."""
    size = os.fstat(descriptor).st_size
    try:
        start = read_at(descriptor, 0, min(size, len(MAGIC) + HEAD.size))
    except McapError:
        start = b""
    if start[: len(MAGIC)] != MAGIC:
        raise McapError("it is not an MCAP file" if size else "the file is empty")
    offset = len(MAGIC)
    record = record_at(descriptor, offset, size)
    if record is not None and record.op == Op.HEADER and follows(descriptor, record.end, size):
        return record
    # Its opcode or its length is damaged: its texts have their own lengths.
    end = _end_by_content(descriptor, Op.HEADER, offset, size)
    if end is not None and follows(descriptor, end, size):
        return RawRecord(Op.HEADER, offset, end - offset)
    if record is None or record.op != Op.HEADER:
        raise McapError("the file ends before its first record")
    return record


def record_at(descriptor: int, offset: int, size: int) -> RawRecord | None:
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
    return RawRecord(op, offset, HEAD.size + length)


def content_of(descriptor: int, header: RawRecord) -> memoryview:
    """Return the content of a record. Raises McapError."""
    size = header.length - HEAD.size
    if size > MAX_RECORD:
        raise McapError(f"a record of {size} bytes at byte {header.offset}")
    begin = header.offset + HEAD.size
    if size > _ONE_READ:
        return _read_large(descriptor, begin, size)
    return memoryview(read_at(descriptor, begin, size))


def open_chunk(content: memoryview) -> ChunkContent:
    """Return the records of a chunk. Raises McapError if they are damaged."""
    head = parser.read_chunk_head(content)
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


def read_summary(descriptor: int, size: int) -> memoryview:
    """Return the records of the summary of a file of `size` bytes.

    Raises:
        McapError: it has none, or one that is damaged.
    """
    end = size - layout.END_SIZE
    footer = parser.read_footer(read_at(descriptor, max(0, end), layout.END_SIZE))
    start = footer.summary_start
    if not 0 < start <= end:
        raise McapError("it is empty" if not start else "its place is wrong")
    if end - start > MAX_RECORD:
        raise McapError(f"it has {end - start} bytes")
    data = read_at(descriptor, start, end - start)
    head = read_at(descriptor, end, layout.FOOTER_SIZE - 4)
    if footer.crc and zlib.crc32(head, zlib.crc32(data)) != footer.crc:
        raise McapError("it has a wrong checksum")
    return memoryview(data)


def follows(descriptor: int, offset: int, size: int) -> bool:
    """Return True if a record can begin at `offset`."""
    record = record_at(descriptor, offset, size)
    return record is not None and record.op <= PRIVATE


def has_right_length(descriptor: int, record: RawRecord, size: int) -> bool:
    """Return False if the content of a record ends elsewhere than it, and another record follows.

    The specification lets records grow at the end; those of our recorder have not.
    """
    end = _end_by_content(descriptor, record.op, record.offset, size)
    return end is None or end == record.end or not follows(descriptor, end, size)


def end_of_damage(
    descriptor: int, offset: int, size: int, places: Sequence[int] = ()
) -> int | None:
    """Return where the record behind a damaged one at `offset` begins; None if that is unknown.

    The lengths in its content say so, its own length, or the `places` of records, in order, that a
    summary names.
    """
    if offset + HEAD.size > size:
        return None
    op, length = HEAD.unpack(read_at(descriptor, offset, HEAD.size))
    ends = itertools.chain(
        (_end_by_content(descriptor, op, offset, size), offset + HEAD.size + length),
        itertools.islice(places, bisect.bisect_left(places, offset + HEAD.size), None),
    )
    return next((end for end in ends if end is not None and follows(descriptor, end, size)), None)


def _end_by_content(descriptor: int, op: int, offset: int, size: int) -> int | None:
    """Return where a record ends by the lengths in its content; None if they do not say it."""
    begin = offset + HEAD.size
    cursor = parser.Cursor(memoryview(read_at(descriptor, begin, min(size - begin, _LOOK))))
    try:
        if op == Op.CHUNK:
            head = parser.read_chunk_head(cursor.data)
            return begin + head.begin + head.stored
        if op == Op.MESSAGE_INDEX:
            cursor.u16()
            left = cursor.u32()
        elif op == Op.HEADER:
            cursor.text(), cursor.text()
            left = 0
        elif op == Op.METADATA:
            cursor.text()
            left = cursor.u32()
        elif op == Op.ATTACHMENT:
            cursor.u64(), cursor.u64(), cursor.text(), cursor.text()
            left = cursor.u64() + 4
        else:
            return None
    except McapError:
        return None
    return begin + cursor.at + left

"""Repair a recording in place after a crash: remove incomplete records, write the summary.

It hops from record to record. A damaged part in the middle, behind which the next record is found,
becomes a private record, which all readers skip. Everything else ends the file there. An
interruption does no harm: the next attempt finds the same records.
"""

from __future__ import annotations

import fcntl
import logging
import os
import time
from typing import TYPE_CHECKING, NamedTuple

from dorad import __version__
from dorad.atomicfile import sync_folder
from dorad.problems import ProblemError
from dorad.record.mcap import layout, parser, scan
from dorad.record.mcap.layout import ChunkIndex, McapError, Op
from dorad.record.mcap.scan import RawRecord
from dorad.record.mcap.writer import Summary

if TYPE_CHECKING:
    from pathlib import Path

_log = logging.getLogger(__name__)

DATA_END_SIZE = len(layout.data_end())
_SUMMARY_SIZES: dict[int, int] = {
    Op.FOOTER: layout.FOOTER.size,
    Op.SUMMARY_OFFSET: 1 + layout.INDEX_ENTRY.size,
}
"""Bytes of the records of a summary that have a fixed size."""

_SUMMARY_OPS = frozenset((Op.CHUNK_INDEX, Op.STATISTICS, *_SUMMARY_SIZES))
_PASSED = frozenset((Op.ATTACHMENT_INDEX, Op.METADATA_INDEX, scan.PRIVATE))
"""Records that are passed over: of a summary, or once damaged."""


class RecoveryError(ProblemError):
    """A recording that cannot be recovered."""

    def __init__(self, message: str, hint: str | None = None) -> None:
        super().__init__("refused", message, hint)


class Recovery(NamedTuple):
    """The result of a recovery."""

    changed: bool
    """False if the file was complete already."""
    messages: int
    cut: int
    """Bytes of an incomplete record that were removed at the end."""
    bad_chunks: int
    """Chunks, or other records, with a wrong checksum; their content is lost."""
    ended: bool
    """Whether the recorder had ended the recording by itself."""

    @property
    def lossless(self) -> bool:
        """Whether no message of the file was lost."""
        return not self.cut and not self.bad_chunks


def recover(path: Path) -> Recovery:
    """Repair a recording.

    Raises:
        RecoveryError: it is being written, is no MCAP file, or has no record.
        OSError: it cannot be read or written.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise RecoveryError(
                f"{path} is being recorded or recovered now", "stop its recorder first"
            ) from None
        try:
            walk = _Walk(descriptor, scan.check_start(descriptor))
        except McapError as error:
            raise RecoveryError(f"{path} cannot be recovered: {error}") from error
        return walk.repair(path)
    finally:
        os.close(descriptor)


class _Walk:
    """One pass over the records of a file, and the repair of what it found."""

    def __init__(self, descriptor: int, header: RawRecord) -> None:
        self._descriptor = descriptor
        self._size = os.fstat(descriptor).st_size
        self._summary = Summary()
        self._end = header.end
        """Behind the last good record."""
        self._named = _named_places(descriptor, self._size)
        """Where the file's own summary places records; None without a summary."""
        self._places = sorted(self._named or ())
        self._found: set[int] = set()
        """Where such records are."""
        self._bad: list[RawRecord] = []
        self._damaged = 0
        """The records of `_bad`, without the indexes of damaged chunks."""
        self._rewrites: list[tuple[int, bytes]] = []
        self._tail = b""
        """The index of the last chunk, if it is not complete in the file."""
        self._tail_cut = self._summary_only = False
        self._ended = self._finished = False
        self._is_ours = self._check_header(header)

    def repair(self, path: Path) -> Recovery:
        """Walk, and write what is missing. Raises OSError."""
        self._walk()
        cut = 0 if self._finished else self._size - self._end
        complete = self._finished and self._named == self._found
        messages = sum(self._summary.counts.values())
        if complete and not self._bad and not self._rewrites:
            return Recovery(False, messages, 0, 0, self._ended)
        # An index or a summary holds no messages.
        lost = 0 if cut <= len(self._tail) or self._summary_only else cut
        _log.debug("%s: cut at %d of %d, damaged %s", path, self._end, self._size, self._bad)
        self._write(lost)
        sync_folder(path.absolute().parent)
        known = {*self._found, *(each.offset for each in self._bad)}
        damaged = self._damaged + sum(
            place not in known and place < self._end for place in self._places
        )
        return Recovery(True, messages, lost, damaged, self._ended)

    def _write(self, lost: int) -> None:
        descriptor = self._descriptor
        for offset, data in self._rewrites:
            os.pwrite(descriptor, data, offset)
        for bad in self._bad:
            head = layout.HEAD.pack(scan.PRIVATE, bad.length - layout.HEAD.size)
            os.pwrite(descriptor, head, bad.offset)
        os.ftruncate(descriptor, self._end)
        values = {
            "time_ns": str(time.time_ns()),
            "cut_bytes": str(lost),
            "bad_chunks": str(len(self._bad)),
            "version": __version__,
        }
        record = layout.metadata("dora.recovered", values)
        offset = self._end + len(self._tail)
        self._summary.metadata.append(layout.metadata_index(offset, len(record), "dora.recovered"))
        data = self._tail + record
        data += self._summary.pack(self._end + len(data))
        at = self._end
        rest = memoryview(data)
        while rest:
            written = os.pwrite(descriptor, rest, at)
            at += written
            rest = rest[written:]
        os.fsync(descriptor)

    def _check_header(self, header: RawRecord) -> bool:
        """Return True if a recorder of ours made the file.

        Replace a damaged header in its place; no message needs its texts.
        """
        content = scan.content_of(self._descriptor, header)
        head = layout.HEAD.pack(Op.HEADER, len(content))
        if scan.read_at(self._descriptor, header.offset, len(head)) != head:
            self._rewrites.append((header.offset, head))
        try:
            return parser.read_header(content)[0] == layout.PROFILE
        except McapError:
            room = len(content) - len(layout.text(layout.PROFILE) + layout.text(""))
            if room < 0:
                raise
            self._rewrites.append((header.offset, layout.header(layout.PROFILE, " " * room)))
            return True

    def _walk(self) -> None:
        going = True
        while going:
            record = self._next(self._end)
            if record is None:
                going = self._skip_bad(self._end)
            elif record.op == Op.DATA_END and record.length == DATA_END_SIZE:
                self._finished = True
                return
            elif record.op in _SUMMARY_OPS and self._is_of_summary(record):
                self._summary_only = True  # the record before it, the end of the data, is lost
                return
            else:
                going = self._take(record)

    def _is_of_summary(self, record: RawRecord) -> bool:
        """Return True if the content of a record is what its opcode says: that may be damaged."""
        try:
            content = scan.content_of(self._descriptor, record)
            if record.op == Op.CHUNK_INDEX:
                parser.read_chunk_index(content)
            elif record.op == Op.STATISTICS:
                parser.read_statistics(content)
        except McapError:
            return False
        return len(content) == _SUMMARY_SIZES.get(record.op, len(content))

    def _next(self, offset: int) -> RawRecord | None:
        record = scan.record_at(self._descriptor, offset, self._size)
        if record is None or not self._is_ours:
            return record
        return record if scan.has_right_length(self._descriptor, record, self._size) else None

    def _take(self, header: RawRecord) -> bool:
        """Add a record to the summary; return False if the file ends before it."""
        try:
            content = scan.content_of(self._descriptor, header)
            if header.op == Op.CHUNK:
                return self._take_chunk(header, content)
            if header.op == Op.MESSAGE:
                self._summary.add_message(parser.read_message(content))
            elif header.op == Op.ATTACHMENT:
                item = parser.read_attachment(content)
                self._summary.attachments.append(
                    layout.attachment_index(header.offset, header.length, item)
                )
                self._found.add(header.offset)
            elif header.op == Op.METADATA:
                name, _ = parser.read_metadata(content)
                self._ended = self._ended or name == "dora.end"
                self._summary.metadata.append(
                    layout.metadata_index(header.offset, header.length, name)
                )
                self._found.add(header.offset)
            elif header.op == Op.SCHEMA:
                self._summary.schemas[parser.read_schema(content).id] = _whole(header, content)
            elif header.op == Op.CHANNEL:
                self._summary.channels[parser.read_channel(content).id] = _whole(header, content)
            elif self._is_ours and header.op not in _PASSED:
                raise McapError(f"no record of opcode {header.op:#x} can be there")
        except (McapError, UnicodeError) as error:
            _log.debug("byte %d: %s", header.offset, error)
            return self._skip_bad(header.offset)
        self._end = header.end
        return True

    def _goes_on(self, offset: int) -> bool:
        """Return True if there is a record at `offset`, or a damaged one before another."""
        good = scan.follows(self._descriptor, offset, self._size)
        return good or self._end_of_damage(offset) is not None

    def _end_of_damage(self, offset: int) -> int | None:
        return scan.end_of_damage(self._descriptor, offset, self._size, self._places)

    def _skip_bad(self, offset: int) -> bool:
        """Skip a damaged record if a good one follows it; return False if none does."""
        end = self._end_of_damage(offset)
        if end is None:
            return False
        op = scan.read_at(self._descriptor, offset, 1)[0]
        self._bad.append(RawRecord(op, offset, end - offset))
        self._damaged += 1
        self._end = end
        while (index := self._next(self._end)) is not None and index.op == Op.MESSAGE_INDEX:
            self._bad.append(index)
            self._end = index.end
        return True

    def _take_chunk(self, record: RawRecord, content: memoryview) -> bool:
        head, records = scan.open_chunk(content)
        schemas, channels = {}, {}
        entries: dict[int, list[tuple[int, int]]] = {}
        for op, at, each in scan.records_in(records):
            if op == Op.MESSAGE:
                message = parser.read_message(each)
                entries.setdefault(message.channel, []).append((message.log_time, at))
            elif op == Op.SCHEMA:
                schemas[parser.read_schema(each).id] = layout.record(Op.SCHEMA, bytes(each))
            elif op == Op.CHANNEL:
                channels[parser.read_channel(each).id] = layout.record(Op.CHANNEL, bytes(each))
        self._summary.schemas.update(schemas)
        self._summary.channels.update(channels)
        self._end = record.end
        self._found.add(record.offset)
        offsets, length = self._take_indexes(record.end, entries)
        times = [time for each in entries.values() for time, _ in each]
        index = ChunkIndex(
            min(times, default=head.start),
            max(times, default=head.end),
            record.offset,
            record.length,
            offsets,
            length,
            head.compression,
            head.stored,
            head.size,
        )
        self._summary.add_chunk(index, {channel: len(each) for channel, each in entries.items()})
        return not self._tail_cut

    def _take_indexes(
        self, start: int, entries: dict[int, list[tuple[int, int]]]
    ) -> tuple[dict[int, int], int]:
        """Return where the index of each channel begins, and their length; repair them."""
        at, indexes = start, {}
        offsets = {}
        while (record := self._next(at)) is not None and record.op == Op.MESSAGE_INDEX:
            try:
                channel, listed = parser.read_message_index(
                    scan.content_of(self._descriptor, record)
                )
            except McapError:
                channel, listed = -1, []
            indexes[channel] = sorted(listed)
            offsets[channel] = record.offset
            at = record.end
        expected = {channel: sorted(each) for channel, each in entries.items()}
        if {k: v for k, v in indexes.items() if v} == expected:
            self._end = at
            return {channel: offsets[channel] for channel in expected}, at - start
        built, places = b"", {}
        for channel, each in entries.items():
            places[channel] = start + len(built)
            built += layout.message_index(channel, each)
        if scan.follows(self._descriptor, start + len(built), self._size):
            self._rewrites.append((start, built))
            self._end = start + len(built)
        elif self._goes_on(at):
            self._end = at  # it has no room: the chunk stays without an index, which is allowed
            return {}, 0
        else:
            self._tail, self._tail_cut = built, True
        return places, len(built)


def _named_places(descriptor: int, size: int) -> set[int] | None:
    """Return where the summary of a file places chunks, attachments and metadata records.

    Return None if it has no summary, or a damaged one.
    """
    places = set()
    try:
        records = scan.read_summary(descriptor, size)
        for op, _, content in scan.records_in(records):
            if op == Op.CHUNK_INDEX:
                places.add(parser.read_chunk_index(content).offset)
            elif op in (Op.ATTACHMENT_INDEX, Op.METADATA_INDEX):
                places.add(parser.Cursor(content).u64())
    except McapError as error:
        _log.debug("no summary: %s", error)
        return None
    return places


def _whole(record: RawRecord, content: memoryview) -> bytes:
    return layout.record(Op(record.op), bytes(content))

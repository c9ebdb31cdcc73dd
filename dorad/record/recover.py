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
from dorad.record import drec, mcap, mcapread, scan
from dorad.record.mcap import ChunkIndex, McapError, Op
from dorad.record.scan import Record
from dorad.record.writer import Summary

if TYPE_CHECKING:
    from pathlib import Path

_log = logging.getLogger(__name__)

DATA_END_SIZE = len(mcap.data_end())
_SUMMARY_SIZES: dict[int, int] = {
    Op.FOOTER: mcap.FOOTER.size,
    Op.SUMMARY_OFFSET: 1 + mcap.INDEX_ENTRY.size,
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
            if os.pread(descriptor, len(drec.MAGIC), 0) == drec.MAGIC:
                raise RecoveryError(
                    f"{path} is a recording of dora 1.x, which is read up to its last message",
                    "`dora record merge FILE -o NEW.mcap` makes an MCAP file of it",
                )
            walk = _Walk(descriptor, scan.check_start(descriptor))
        except McapError as error:
            raise RecoveryError(f"{path} cannot be recovered: {error}") from error
        return walk.repair(path)
    finally:
        os.close(descriptor)


class _Walk:
    """One pass over the records of a file, and the repair of what it found."""

    def __init__(self, descriptor: int, header: Record) -> None:
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
        self._bad: list[Record] = []
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
            head = mcap.HEAD.pack(scan.PRIVATE, bad.length - mcap.HEAD.size)
            os.pwrite(descriptor, head, bad.offset)
        os.ftruncate(descriptor, self._end)
        values = {
            "time_ns": str(time.time_ns()),
            "cut_bytes": str(lost),
            "bad_chunks": str(len(self._bad)),
            "version": __version__,
        }
        record = mcap.metadata("dora.recovered", values)
        offset = self._end + len(self._tail)
        self._summary.metadata.append(mcap.metadata_index(offset, len(record), "dora.recovered"))
        data = self._tail + record
        data += self._summary.pack(self._end + len(data))
        at = self._end
        rest = memoryview(data)
        while rest:
            written = os.pwrite(descriptor, rest, at)
            at += written
            rest = rest[written:]
        os.fsync(descriptor)

    def _check_header(self, header: Record) -> bool:
        """Return True if a recorder of ours made the file.

        Replace a damaged header in its place; no message needs its texts.
        """
        content = scan.content_of(self._descriptor, header)
        head = mcap.HEAD.pack(Op.HEADER, len(content))
        if scan.read_at(self._descriptor, header.offset, len(head)) != head:
            self._rewrites.append((header.offset, head))
        try:
            return not mcapread.read_maker(content)
        except McapError:
            room = len(content) - len(mcap.text(mcap.PROFILE) + mcap.text(""))
            if room < 0:
                raise
            self._rewrites.append((header.offset, mcap.header(mcap.PROFILE, " " * room)))
            return True

    def _walk(self) -> None:
        going = True
        while going:
            found = self._next(self._end)
            if found is None:
                going = self._skip_bad(self._end)
            elif found.op == Op.DATA_END and found.length == DATA_END_SIZE:
                self._finished = True
                return
            elif found.op in _SUMMARY_OPS and self._is_of_summary(found):
                self._summary_only = True  # the record before it, the end of the data, is lost
                return
            else:
                going = self._take(found)

    def _is_of_summary(self, found: Record) -> bool:
        """Return True if the content of a record is what its opcode says: that may be damaged."""
        try:
            content = scan.content_of(self._descriptor, found)
            if found.op == Op.CHUNK_INDEX:
                mcapread.read_chunk_index(content)
            elif found.op == Op.STATISTICS:
                mcapread.read_statistics(content)
        except McapError:
            return False
        return len(content) == _SUMMARY_SIZES.get(found.op, len(content))

    def _next(self, offset: int) -> Record | None:
        found = scan.record_at(self._descriptor, offset, self._size)
        if found is None or not self._is_ours:
            return found
        return found if scan.has_right_length(self._descriptor, found, self._size) else None

    def _take(self, found: Record) -> bool:
        """Add a record to the summary; return False if the file ends before it."""
        try:
            content = scan.content_of(self._descriptor, found)
            if found.op == Op.CHUNK:
                return self._take_chunk(found, content)
            if found.op == Op.MESSAGE:
                self._summary.add_message(mcapread.read_message(content))
            elif found.op == Op.ATTACHMENT:
                item = mcapread.read_attachment(content)
                self._summary.attachments.append(
                    mcap.attachment_index(found.offset, found.length, item)
                )
                self._found.add(found.offset)
            elif found.op == Op.METADATA:
                name, _ = mcapread.read_metadata(content)
                self._ended = self._ended or name == "dora.end"
                self._summary.metadata.append(mcap.metadata_index(found.offset, found.length, name))
                self._found.add(found.offset)
            elif found.op == Op.SCHEMA:
                self._summary.schemas[mcapread.read_schema(content).id] = _whole(found, content)
            elif found.op == Op.CHANNEL:
                self._summary.channels[mcapread.read_channel(content).id] = _whole(found, content)
            elif self._is_ours and found.op not in _PASSED:
                raise McapError(f"no record of opcode {found.op:#x} can be there")
        except (McapError, UnicodeError) as error:
            _log.debug("byte %d: %s", found.offset, error)
            return self._skip_bad(found.offset)
        self._end = found.end
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
        self._bad.append(Record(op, offset, end - offset))
        self._damaged += 1
        self._end = end
        while (index := self._next(self._end)) is not None and index.op == Op.MESSAGE_INDEX:
            self._bad.append(index)
            self._end = index.end
        return True

    def _take_chunk(self, found: Record, content: memoryview) -> bool:
        head, records = scan.open_chunk(content)
        schemas, channels = {}, {}
        entries: dict[int, list[tuple[int, int]]] = {}
        for op, at, each in scan.records_in(records):
            if op == Op.MESSAGE:
                message = mcapread.read_message(each)
                entries.setdefault(message.channel, []).append((message.log_time, at))
            elif op == Op.SCHEMA:
                schemas[mcapread.read_schema(each).id] = mcap.record(Op.SCHEMA, bytes(each))
            elif op == Op.CHANNEL:
                channels[mcapread.read_channel(each).id] = mcap.record(Op.CHANNEL, bytes(each))
        self._summary.schemas.update(schemas)
        self._summary.channels.update(channels)
        self._end = found.end
        self._found.add(found.offset)
        offsets, length = self._take_indexes(found.end, entries)
        times = [time for each in entries.values() for time, _ in each]
        index = ChunkIndex(
            min(times, default=head.start),
            max(times, default=head.end),
            found.offset,
            found.length,
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
        at, found = start, {}
        offsets = {}
        while (record := self._next(at)) is not None and record.op == Op.MESSAGE_INDEX:
            try:
                channel, listed = mcapread.read_message_index(
                    scan.content_of(self._descriptor, record)
                )
            except McapError:
                channel, listed = -1, []
            found[channel] = sorted(listed)
            offsets[channel] = record.offset
            at = record.end
        expected = {channel: sorted(each) for channel, each in entries.items()}
        if {k: v for k, v in found.items() if v} == expected:
            self._end = at
            return {channel: offsets[channel] for channel in expected}, at - start
        built, places = b"", {}
        for channel, each in entries.items():
            places[channel] = start + len(built)
            built += mcap.message_index(channel, each)
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
    found = set()
    try:
        records = scan.read_summary(descriptor, size)
        for op, _, content in scan.records_in(records):
            if op == Op.CHUNK_INDEX:
                found.add(mcapread.read_chunk_index(content).offset)
            elif op in (Op.ATTACHMENT_INDEX, Op.METADATA_INDEX):
                found.add(mcapread.Cursor(content).u64())
    except McapError as error:
        _log.debug("no summary: %s", error)
        return None
    return found


def _whole(found: Record, content: memoryview) -> bytes:
    return mcap.record(Op(found.op), bytes(content))

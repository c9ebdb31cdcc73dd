"""Repair a recording in place after a crash: remove incomplete records, write the summary.

It hops from record to record. A chunk with a wrong checksum in the middle, behind which the file
goes on, becomes a private record, which all readers skip. Everything else ends the file there. An
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
from dorad.record import mcap, mcapread, scan
from dorad.record.mcap import ChunkIndex, McapError, Op
from dorad.record.writer import Summary

if TYPE_CHECKING:
    from pathlib import Path

    from dorad.record.scan import Record

_log = logging.getLogger(__name__)


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
        """Return True if no message of the file was lost."""
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
                f"{path} is being recorded now", "stop its recorder first"
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

    def __init__(self, descriptor: int, header: Record) -> None:
        self._descriptor = descriptor
        self._size = os.fstat(descriptor).st_size
        self._summary = Summary()
        self._end = header.end
        """Behind the last good record."""
        self._bad: list[Record] = []
        self._rewrites: list[tuple[int, bytes]] = []
        self._tail = b""
        """The index of the last chunk, if it is not complete in the file."""
        self._tail_cut = self._summary_only = False
        self._ended = self._finished = False
        self._check_header(header)

    def repair(self, path: Path) -> Recovery:
        """Walk, and write what is missing. Raises OSError."""
        self._walk()
        cut = 0 if self._finished else self._size - self._end
        complete = self._finished and self._has_valid_end()
        messages = sum(self._summary.counts.values())
        if complete and not self._bad and not self._rewrites:
            return Recovery(False, messages, 0, 0, self._ended)
        # An index or a summary holds no messages.
        lost = 0 if cut <= len(self._tail) or self._summary_only else cut
        _log.debug("%s: cut at %d of %d, bad chunks %s", path, self._end, self._size, self._bad)
        self._write(lost)
        sync_folder(path.absolute().parent)
        damaged = sum(each.op != Op.MESSAGE_INDEX for each in self._bad)
        return Recovery(True, messages, lost, damaged, self._ended)

    def _write(self, lost: int) -> None:
        descriptor = self._descriptor
        for offset, data in self._rewrites:
            os.pwrite(descriptor, data, offset)
        for bad in self._bad:
            os.pwrite(descriptor, bytes((scan.PRIVATE,)), bad.offset)
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

    def _has_valid_end(self) -> bool:
        """Return True if the file ends with a footer whose summary has the right checksum."""
        import zlib

        try:
            end = scan.read_at(self._descriptor, self._size - mcap.END_SIZE, mcap.END_SIZE)
            footer = mcapread.read_footer(end)
            start = footer.summary_start
            if not self._end <= start <= self._size - mcap.END_SIZE:
                return False
            size = self._size - len(mcap.MAGIC) - 4 - start
            data = scan.read_at(self._descriptor, start, size)
        except McapError:
            return False
        return footer.crc in (0, zlib.crc32(data))

    def _check_header(self, header: Record) -> None:
        """Replace the texts of a damaged header, in its place; no message needs them."""
        content = scan.content_of(self._descriptor, header)
        try:
            mcapread.read_maker(content)
        except McapError:
            room = len(content) - len(mcap.text(mcap.PROFILE) + mcap.text(""))
            if room < 0:
                raise
            self._rewrites.append((header.offset, mcap.header(mcap.PROFILE, " " * room)))

    def _walk(self) -> None:
        while (found := self._next(self._end)) is not None:
            if found.op == Op.DATA_END:
                self._finished = True
                return
            if found.op in (Op.FOOTER, Op.CHUNK_INDEX, Op.STATISTICS, Op.SUMMARY_OFFSET):
                self._summary_only = True  # the record before it, the end of the data, is lost
                return
            if not self._take(found):
                return

    def _next(self, offset: int) -> Record | None:
        return scan.record_at(self._descriptor, offset, self._size)

    def _take(self, found: Record) -> bool:
        """Add a record to the summary; return False if the file ends before it."""
        try:
            content = scan.content_of(self._descriptor, found)
            if found.op == Op.CHUNK:
                return self._take_chunk(found, content)
            if found.op == Op.ATTACHMENT:
                item = mcapread.read_attachment(content)
                self._summary.attachments.append(
                    mcap.attachment_index(found.offset, found.length, item)
                )
            elif found.op == Op.METADATA:
                name, _ = mcapread.read_metadata(content)
                self._ended = self._ended or name == "dora.end"
                self._summary.metadata.append(mcap.metadata_index(found.offset, found.length, name))
            elif found.op == Op.SCHEMA:
                self._summary.schemas[mcapread.read_schema(content).id] = _whole(found, content)
            elif found.op == Op.CHANNEL:
                self._summary.channels[mcapread.read_channel(content).id] = _whole(found, content)
        except (McapError, UnicodeError) as error:
            _log.debug("byte %d: %s", found.offset, error)
            return self._skip_bad(found)
        self._end = found.end
        return True

    def _skip_bad(self, found: Record) -> bool:
        """Skip a damaged record if a good one follows it; return False if none does."""
        following = self._next(found.end)
        if following is None or following.op > scan.PRIVATE:
            return False
        self._bad.append(found)
        self._end = found.end
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
        if self._next(start + len(built)) is not None:
            self._rewrites.append((start, built))
            self._end = start + len(built)
        else:
            self._tail, self._tail_cut = built, True
        return places, len(built)


def _whole(found: Record, content: memoryview) -> bytes:
    return mcap.record(Op(found.op), bytes(content))

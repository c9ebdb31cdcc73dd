"""What an MCAP file contains, and where: as its summary says, or as a walk through it finds.

A file without a summary, after a crash, is read as far as its records are complete.
"""

from __future__ import annotations

import os
from collections import Counter
from typing import NamedTuple

from dorad.record.damage import Damage, Missing
from dorad.record.mcap import layout, parser, scan
from dorad.record.mcap.layout import Channel, McapError, Op, Schema, Statistics


class ChunkPlace(NamedTuple):
    """Where a chunk lies, and which messages it has; times in ns since 1970."""

    start: int
    end: int
    offset: int
    length: int
    channels: frozenset[int] | None
    """None if unknown."""
    loose: bool = False
    """Whether it is a message record outside of any chunk."""


NO_SCHEMA = Schema(0, "", "", b"")


class Contents:
    """The topics, the chunks and the metadata of one file."""

    def __init__(self, descriptor: int) -> None:
        """Read the summary of a file, or walk through it if it has none.

        Raises:
            McapError: it is not an MCAP file.
        """
        self._descriptor = descriptor
        self.size = os.fstat(descriptor).st_size
        self.channels: dict[int, Channel] = {}
        self.schemas: dict[int, Schema] = {0: NO_SCHEMA}
        self.counts: dict[int, int] = {}
        """Messages by channel."""
        self.problems: list[str] = []
        """What is damaged."""
        self.damage = Damage()
        """What cannot be read."""
        self.profile = layout.PROFILE
        """What the header says of the channels: `dora`, `ros2`."""
        self.maker = ""
        """The other program that made the file; empty if it was dora."""
        self.indexed = True
        """Whether the file has a summary."""
        self.chunks: list[ChunkPlace] = []
        self.places: dict[Op, list[int]] = {Op.ATTACHMENT: [], Op.METADATA: []}
        """Where these records lie."""
        header = scan.check_start(descriptor)
        try:
            self.profile, self.maker = parser.read_header(scan.content_of(descriptor, header))
        except McapError as error:
            self.problems.append(f"header: {error}")
        try:
            self._read_summary()
        except McapError as error:
            self.indexed = False
            self.problems.append(f"no summary: {error}")
            self._walk()
        self.metadata = self._read_metadata()

    @property
    def end(self) -> int:
        """The time of the last message in ns since 1970; 0 without messages."""
        return max((each.end for each in self.chunks), default=0)

    def read(self, offset: int, op: Op) -> memoryview:
        """Return the content of the record at `offset`. Raises McapError if it is no such one."""
        content = scan.record_at(self._descriptor, offset, self.size)
        if content is None or content.op != op:
            raise McapError(f"there is no {op.name.lower()} record at byte {offset}")
        return scan.content_of(self._descriptor, content)

    def index_of(self, chunk: ChunkPlace) -> dict[int, list[tuple[int, int]]]:
        """Return time and place of the messages of a chunk by channel; nothing if that is lost."""
        entries_of = {}
        at = chunk.offset + chunk.length
        while (record := scan.record_at(self._descriptor, at, self.size)) is not None:
            if record.op != Op.MESSAGE_INDEX:
                break
            try:
                channel, entries = parser.read_message_index(
                    scan.content_of(self._descriptor, record)
                )
            except McapError:
                break
            entries_of[channel] = entries
            at = record.end
        return entries_of

    def _read_summary(self) -> None:
        records = scan.read_summary(self._descriptor, self.size)
        named: Statistics | None = None
        for op, _, content in scan.records_in(records):
            if op == Op.STATISTICS:
                named, self.counts = parser.read_statistics(content)
            else:
                self._take_summary(op, content)
        # All records of a summary are optional, but without them messages cannot be found.
        if named != Statistics(
            sum(self.counts.values()) if self.chunks else 0,
            len(self.schemas) - 1,
            len(self.channels),
            len(self.places[Op.ATTACHMENT]),
            len(self.places[Op.METADATA]),
            len(self.chunks),
        ):
            self._walk()

    def _take_summary(self, op: int, content: memoryview) -> None:
        if op == Op.CHUNK_INDEX:
            index = parser.read_chunk_index(content)
            channels = frozenset(index.index_offsets) or None
            chunk = ChunkPlace(index.start, index.end, index.offset, index.length, channels)
            self.chunks.append(chunk)
        elif op in (Op.ATTACHMENT_INDEX, Op.METADATA_INDEX):
            place = Op.ATTACHMENT if op == Op.ATTACHMENT_INDEX else Op.METADATA
            self.places[place].append(parser.Cursor(content).u64())
        else:
            self._take_definition(op, content)

    def _take_definition(self, op: int, content: memoryview) -> None:
        if op == Op.SCHEMA:
            schema = parser.read_schema(content)
            self.schemas[schema.id] = schema
        elif op == Op.CHANNEL:
            channel = parser.read_channel(content)
            self.channels[channel.id] = channel

    def _walk(self) -> None:
        """Read a file without a summary, up to the first record that is not complete."""
        self.chunks.clear()
        self.counts.clear()
        for places in self.places.values():
            places.clear()
        counts: Counter[int] = Counter()
        at = len(layout.MAGIC)
        while (record := scan.record_at(self._descriptor, at, self.size)) is not None:
            if record.op in (Op.DATA_END, Op.FOOTER):
                at = self.size
                break
            try:
                self._walk_record(record, counts)
            except McapError as error:
                self.problems.append(f"byte {record.offset}: {error}")
                if record.op in (Op.CHUNK, Op.MESSAGE):
                    # `messages` finds out what is missing; its times are between its neighbours'.
                    loose = record.op == Op.MESSAGE
                    self.chunks.append(
                        ChunkPlace(
                            self.end, self.end, record.offset, record.length, None, loose=loose
                        )
                    )
            at = record.end
        if at < self.size:
            self.problems.append(f"the last {self.size - at} bytes are no complete record")
            self.damage.add(at, -1, Missing("", None, self.end, self.end))
        self.counts = dict(counts)

    def _walk_record(self, record: scan.RawRecord, counts: Counter[int]) -> None:
        if record.op == Op.CHUNK:
            content = scan.open_chunk(scan.content_of(self._descriptor, record))
            inside: Counter[int] = Counter()
            for op, _, each in scan.records_in(content.records):
                self._take_definition(op, each)
                if op == Op.MESSAGE:
                    inside[parser.read_message(each).channel] += 1
            head = content.head
            self.chunks.append(
                ChunkPlace(head.start, head.end, record.offset, record.length, frozenset(inside))
            )
            counts.update(inside)
        elif record.op == Op.MESSAGE:
            message = parser.read_message(scan.content_of(self._descriptor, record))
            time = message.log_time
            counts[message.channel] += 1
            only = frozenset((message.channel,))
            self.chunks.append(
                ChunkPlace(time, time, record.offset, record.length, only, loose=True)
            )
        elif record.op in (Op.SCHEMA, Op.CHANNEL):
            self._take_definition(record.op, scan.content_of(self._descriptor, record))
        elif record.op in (Op.ATTACHMENT, Op.METADATA):
            self.places[Op(record.op)].append(record.offset)

    def _read_metadata(self) -> dict[str, dict[str, str]]:
        metadata = {}
        for offset in self.places[Op.METADATA]:
            try:
                name, values = parser.read_metadata(self.read(offset, Op.METADATA))
                metadata[name] = values
            except McapError as error:
                self.problems.append(str(error))
        return metadata

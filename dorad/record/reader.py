"""Read recordings: what a file contains, and its messages in the order in which they were sent.

A file without a summary, after a crash, is read as far as its records are complete.
"""

from __future__ import annotations

import heapq
import os
from collections import Counter
from typing import TYPE_CHECKING, NamedTuple

from dorad.problems import ProblemError
from dorad.record import mcap, mcapread, scan
from dorad.record.encoding import TYPE_TEXT
from dorad.record.mcap import Attachment, Channel, McapError, Op, Schema, Statistics
from dorad.record.recorded import Recorded, WaitingMessages

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Sequence
    from pathlib import Path
    from typing import Self


class RecordingError(ProblemError):
    """A file that cannot be read as a recording."""

    def __init__(self, message: str, hint: str | None = None) -> None:
        super().__init__("refused", message, hint)


class _Chunk(NamedTuple):
    start: int
    end: int
    offset: int
    length: int
    channels: frozenset[int] | None
    """None if unknown."""
    loose: bool = False
    """Whether it is a message record outside of any chunk."""


NO_SCHEMA = Schema(0, "", "", b"")

MAX_WAITING = 1 << 30
"""Bytes of chunks that overlap in time; the order of messages is not kept over more of them."""


class RecordingReader:
    """One MCAP file. A context manager."""

    def __init__(self, path: Path) -> None:
        """Open the file and read its summary, or walk through it if it has none.

        Raises:
            RecordingError: it is not an MCAP file.
            OSError: it cannot be read.
        """
        self.path = path
        try:
            self._descriptor = scan.open_file(path)
        except McapError as error:
            raise RecordingError(f"{path} is not a recording: {error}") from error
        self.size = os.fstat(self._descriptor).st_size
        self.channels: dict[int, Channel] = {}
        self.schemas: dict[int, Schema] = {0: NO_SCHEMA}
        self.counts: dict[int, int] = {}
        self.problems: list[str] = []
        """What is damaged."""
        self.maker = ""
        """The other program that made the file; empty if it was dora."""
        self.indexed = True
        """Whether the file has a summary."""
        self._chunks: list[_Chunk] = []
        self._places: dict[Op, list[int]] = {Op.ATTACHMENT: [], Op.METADATA: []}
        try:
            header = scan.check_start(self._descriptor)
            try:
                self.maker = mcapread.read_maker(scan.content_of(self._descriptor, header))
            except McapError as error:
                self.problems.append(f"header: {error}")
            try:
                self._read_summary()
            except McapError as error:
                self.indexed = False
                self.problems.append(f"no summary: {error}")
                self._walk()
        except McapError as error:
            self.close()
            raise RecordingError(f"{path} is not a recording: {error}") from error
        except BaseException:
            self.close()
            raise
        self.metadata = self._read_metadata()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    @property
    def start(self) -> int:
        """The time of the first message in ns since 1970; 0 without messages."""
        return min((each.start for each in self._chunks), default=0)

    @property
    def end(self) -> int:
        """The time of the last message in ns since 1970; 0 without messages."""
        return max((each.end for each in self._chunks), default=0)

    @property
    def status(self) -> str:
        """COMPLETE, INCOMPLETE, RECOVERED, UNFINISHED if it has no end, or FOREIGN."""
        if self.maker:
            return "FOREIGN"
        if not self.indexed:
            return "UNFINISHED"
        if "dora.recovered" in self.metadata:
            return "RECOVERED"
        return self.metadata.get("dora.end", {}).get("status", "INCOMPLETE")

    @property
    def chunk_count(self) -> int:
        """Number of chunks."""
        return len(self._chunks)

    def topics(self) -> dict[str, int]:
        """Return the topics, each with its number of messages."""
        found: Counter[str] = Counter()
        for channel in self.channels.values():
            found[channel.topic] += self.counts.get(channel.id, 0)
        return dict(sorted(found.items()))

    def types_of(self, topic: str) -> list[str]:
        """Return the types of a topic's messages."""
        return sorted(
            {
                channel.metadata.get(TYPE_TEXT) or self.schemas.get(channel.schema, NO_SCHEMA).name
                for channel in self.channels.values()
                if channel.topic == topic
            }
        )

    def attachments(self) -> Iterator[Attachment]:
        """Yield the attachments. One that is damaged is left out and noted in `problems`."""
        for offset in self._places[Op.ATTACHMENT]:
            try:
                yield mcapread.read_attachment(self._content(offset, Op.ATTACHMENT))
            except McapError as error:
                self.problems.append(str(error))

    def attachment(self, name: str) -> bytes | None:
        """Return the content of an attachment, None if there is none."""
        return next((each.data for each in self.attachments() if each.name == name), None)

    def messages(
        self,
        *,
        start: int | None = None,
        end: int | None = None,
        topics: Collection[str] | None = None,
    ) -> Iterator[Recorded]:
        """Yield messages by time, those of equal time in the order of the file.

        `start` is the first time, `end` is exclusive. Messages of a damaged chunk are left out.
        """
        wanted = {
            channel.id
            for channel in self.channels.values()
            if topics is None or channel.topic in topics
        }
        chunks = sorted(
            (
                chunk
                # Each once: a hostile index may name one again and again.
                for chunk in {each.offset: each for each in self._chunks}.values()
                if (start is None or chunk.end >= start)
                and (end is None or chunk.start < end)
                and (chunk.channels is None or not wanted.isdisjoint(chunk.channels))
            ),
            key=lambda chunk: (chunk.start, chunk.offset),
        )
        waiting = WaitingMessages()
        for chunk in chunks:
            while waiting.first < chunk.start or waiting.bytes > MAX_WAITING:
                if waiting.first >= chunk.start:
                    self._report(f"chunks before byte {chunk.offset} overlap too much to be sorted")
                yield waiting.take()
            for at, found in self._messages_of(chunk):
                late = end is not None and found.time >= end
                early = start is not None and found.time < start
                if found.channel.id in wanted and not late and not early:
                    waiting.put(chunk.offset, at, found)
        while waiting:
            yield waiting.take()

    def _report(self, problem: str) -> None:
        if problem not in self.problems[-1:]:
            self.problems.append(problem)

    def _messages_of(self, chunk: _Chunk) -> Iterator[tuple[int, Recorded]]:
        try:
            if chunk.loose:
                message = mcapread.read_message(self._content(chunk.offset, Op.MESSAGE))
                if message.channel in self.channels:
                    yield 0, self._recorded(message)
                return
            content = scan.open_chunk(self._content(chunk.offset, Op.CHUNK))
            for op, at, each in scan.records_in(content.records):
                if op == Op.MESSAGE:
                    message = mcapread.read_message(each)
                    if message.channel in self.channels:
                        yield at, self._recorded(message)
        except McapError as error:
            self.problems.append(f"the chunk at byte {chunk.offset}: {error}")

    def _recorded(self, message: mcap.Message) -> Recorded:
        channel = self.channels[message.channel]
        schema = self.schemas.get(channel.schema, NO_SCHEMA)
        return Recorded(
            message.log_time, channel.topic, message.sequence, channel, schema, message.data
        )

    def _content(self, offset: int, op: Op) -> memoryview:
        found = scan.record_at(self._descriptor, offset, self.size)
        if found is None or found.op != op:
            raise McapError(f"there is no {op.name.lower()} record at byte {offset}")
        return scan.content_of(self._descriptor, found)

    def _read_summary(self) -> None:
        records = scan.read_summary(self._descriptor, self.size)
        named: Statistics | None = None
        for op, _, content in scan.records_in(records):
            if op == Op.STATISTICS:
                named, self.counts = mcapread.read_statistics(content)
            else:
                self._take_summary(op, content)
        # All records of a summary are optional, but without them messages cannot be found.
        if named != Statistics(
            sum(self.counts.values()) if self._chunks else 0,
            len(self.schemas) - 1,
            len(self.channels),
            len(self._places[Op.ATTACHMENT]),
            len(self._places[Op.METADATA]),
            len(self._chunks),
        ):
            self._walk()

    def _take_summary(self, op: int, content: memoryview) -> None:
        if op == Op.CHUNK_INDEX:
            index = mcapread.read_chunk_index(content)
            channels = frozenset(index.index_offsets) or None
            chunk = _Chunk(index.start, index.end, index.offset, index.length, channels)
            self._chunks.append(chunk)
        elif op in (Op.ATTACHMENT_INDEX, Op.METADATA_INDEX):
            place = Op.ATTACHMENT if op == Op.ATTACHMENT_INDEX else Op.METADATA
            self._places[place].append(mcapread.Cursor(content).u64())
        else:
            self._take_definition(op, content)

    def _take_definition(self, op: int, content: memoryview) -> None:
        if op == Op.SCHEMA:
            schema = mcapread.read_schema(content)
            self.schemas[schema.id] = schema
        elif op == Op.CHANNEL:
            channel = mcapread.read_channel(content)
            self.channels[channel.id] = channel

    def _walk(self) -> None:
        """Read a file without a summary, up to the first record that is not complete."""
        self._chunks.clear()
        self.counts.clear()
        for places in self._places.values():
            places.clear()
        counts: Counter[int] = Counter()
        at = len(mcap.MAGIC)
        while (found := scan.record_at(self._descriptor, at, self.size)) is not None:
            if found.op in (Op.DATA_END, Op.FOOTER):
                at = self.size
                break
            try:
                self._walk_record(found, counts)
            except McapError as error:
                self.problems.append(f"byte {found.offset}: {error}")
            at = found.end
        if at < self.size:
            self.problems.append(f"the last {self.size - at} bytes are no complete record")
        self.counts = dict(counts)

    def _walk_record(self, found: scan.Record, counts: Counter[int]) -> None:
        if found.op == Op.CHUNK:
            content = scan.open_chunk(scan.content_of(self._descriptor, found))
            inside: Counter[int] = Counter()
            for op, _, each in scan.records_in(content.records):
                self._take_definition(op, each)
                if op == Op.MESSAGE:
                    inside[mcapread.read_message(each).channel] += 1
            head = content.head
            self._chunks.append(
                _Chunk(head.start, head.end, found.offset, found.length, frozenset(inside))
            )
            counts.update(inside)
        elif found.op == Op.MESSAGE:
            message = mcapread.read_message(scan.content_of(self._descriptor, found))
            time = message.log_time
            counts[message.channel] += 1
            only = frozenset((message.channel,))
            self._chunks.append(_Chunk(time, time, found.offset, found.length, only, loose=True))
        elif found.op in (Op.SCHEMA, Op.CHANNEL):
            self._take_definition(found.op, scan.content_of(self._descriptor, found))
        elif found.op in (Op.ATTACHMENT, Op.METADATA):
            self._places[Op(found.op)].append(found.offset)

    def _read_metadata(self) -> dict[str, dict[str, str]]:
        found = {}
        for offset in self._places[Op.METADATA]:
            try:
                name, values = mcapread.read_metadata(self._content(offset, Op.METADATA))
                found[name] = values
            except McapError as error:
                self.problems.append(str(error))
        return found


def merged(
    readers: Sequence[RecordingReader],
    *,
    start: int | None = None,
    end: int | None = None,
    topics: Collection[str] | None = None,
) -> Iterator[Recorded]:
    """Yield the messages of several files by time, those of equal time in the order given."""
    streams: Iterable[Iterator[Recorded]] = (
        reader.messages(start=start, end=end, topics=topics) for reader in readers
    )
    return heapq.merge(*streams, key=_time_of)


def _time_of(message: Recorded) -> int:
    return message.time

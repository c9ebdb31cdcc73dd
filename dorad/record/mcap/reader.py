"""Read recordings: their messages in the order in which they were sent, and what is missing."""

from __future__ import annotations

import heapq
import os
from collections import Counter
from typing import TYPE_CHECKING, NamedTuple

from dorad.problems import ProblemError
from dorad.record.damage import Missing
from dorad.record.encoding.messages import TYPE_TEXT, decode_message
from dorad.record.mcap import parser, scan
from dorad.record.mcap.contents import NO_SCHEMA, ChunkPlace, Contents
from dorad.record.mcap.layout import Attachment, Channel, McapError, Message, Op, Schema

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
    from pathlib import Path
    from typing import Self

    from dorad.record.encoding.messages import Decoded

SMALL_BYTES = 64 << 10
"""Largest message that is copied out of its chunk."""


class Recorded(NamedTuple):
    """One message of a recording; time in ns since 1970."""

    time: int
    topic: str
    sequence: int
    channel: Channel
    schema: Schema
    data: memoryview

    def decode(self) -> Decoded:
        """Return the array and the metadata. Raises ValueError."""
        channel, schema = self.channel, self.schema
        return decode_message(
            channel.encoding,
            schema.name,
            schema.data,
            channel.metadata,
            self.data,
            schema.encoding,
        )


class WaitingMessages:
    """Messages that wait for earlier ones, and the memory that their chunks take."""

    def __init__(self) -> None:
        self.bytes = 0
        self._heap: list[tuple[int, int, int, Recorded]] = []
        self._messages: Counter[int] = Counter()
        """By the offset of a chunk, whose whole content stays as long as one of them waits."""

    def __bool__(self) -> bool:
        return bool(self._heap)

    @property
    def first(self) -> float:
        """The time of the earliest message in ns since 1970; infinite without one."""
        return self._heap[0][0] if self._heap else float("inf")

    def put(self, chunk: int, at: int, message: Recorded) -> None:
        """Add a message at byte `at` of the chunk at byte `chunk` of the file."""
        if not self._messages[chunk]:
            self.bytes += memoryview(message.data.obj).nbytes
        self._messages[chunk] += 1
        heapq.heappush(self._heap, (message.time, chunk, at, message))

    def take(self) -> Recorded:
        """Remove and return the earliest message.

        A small one is a copy: who keeps it does not keep its whole chunk in memory.
        """
        _, chunk, _, message = heapq.heappop(self._heap)
        self._messages[chunk] -= 1
        if not self._messages[chunk]:
            del self._messages[chunk]
            self.bytes -= memoryview(message.data.obj).nbytes
        if len(message.data) > SMALL_BYTES:
            return message
        return message._replace(data=memoryview(bytes(message.data)))


class RecordingError(ProblemError):
    """A file that cannot be read as a recording."""

    def __init__(self, message: str, hint: str | None = None) -> None:
        super().__init__("refused", message, hint)


MAX_WAITING = 1 << 30
"""Bytes of chunks that overlap in time; the order of messages is not kept over more of them."""


class RecordingReader:
    """One MCAP file. A context manager."""

    def __init__(self, path: Path, max_waiting: int | None = None) -> None:
        """Open the file and read its summary, or walk through it if it has none.

        `max_waiting` is another bound than `MAX_WAITING`.

        Raises:
            RecordingError: it is not an MCAP file.
            OSError: it cannot be read.
        """
        self.path = path
        self._max_waiting = MAX_WAITING if max_waiting is None else max_waiting
        try:
            self._descriptor = scan.open_file(path)
        except McapError as error:
            raise RecordingError(f"{path} is not a recording: {error}") from error
        try:
            self._contents = contents = Contents(self._descriptor)
        except McapError as error:
            self.close()
            raise RecordingError(f"{path} is not a recording: {error}") from error
        except BaseException:
            self.close()
            raise
        self.size = contents.size
        self.channels = contents.channels
        self.schemas = contents.schemas
        self.counts = contents.counts
        self.problems = contents.problems
        """What is damaged."""
        self.damage = contents.damage
        """What could not be read so far."""
        self.profile = contents.profile
        """What the header says of the channels: `dora`, `ros2`."""
        self.maker = contents.maker
        """The other program that made the file; empty if it was dora."""
        self.indexed = contents.indexed
        """Whether the file has a summary."""
        self.metadata = contents.metadata
        self._chunks = contents.chunks

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
        return self._contents.end

    @property
    def status(self) -> str:
        """COMPLETE, INCOMPLETE, RECOVERED, UNFINISHED if it has no end, FOREIGN, or DAMAGED.

        DAMAGED only if what was read so far has shown it. FOREIGN if another program has completed
        it.
        """
        if self.damage and self.indexed:
            return "DAMAGED"
        if not self.indexed:
            return "UNFINISHED"
        status = self.metadata.get("dora.end", {}).get("status", "")
        if self.maker and status != "INCOMPLETE":  # which a copy of ours may be
            return "FOREIGN"
        if "dora.recovered" in self.metadata:
            return "RECOVERED"
        return status or "INCOMPLETE"

    @property
    def chunk_count(self) -> int:
        """Number of chunks."""
        return len(self._chunks)

    def topics(self) -> dict[str, int]:
        """Return the topics, each with its number of messages."""
        counted: Counter[str] = Counter()
        for channel in self.channels.values():
            counted[channel.topic] += self.counts.get(channel.id, 0)
        return dict(sorted(counted.items()))

    def first_numbers(self, topics: Iterable[str]) -> dict[str, int]:
        """Return the sequence number of the first message of each topic that has one.

        Only the begin of the file is read. Raises McapError if it is damaged.
        """
        counts = self.topics()
        left = {topic for topic in topics if counts.get(topic)}
        numbers: dict[str, int] = {}
        for chunk in sorted(self._chunks, key=lambda chunk: chunk.offset):
            if not left:
                break
            inside = (self.channels[number].topic for number in chunk.channels or self.channels)
            if left.isdisjoint(inside):
                continue
            for _, message in self._messages_of(chunk):
                if message.topic in left:
                    numbers.setdefault(message.topic, message.sequence)
            left -= numbers.keys()
        return numbers

    def rename(self, names: Mapping[str, str]) -> None:
        """Give topics other names, from now on."""
        self.channels = {
            number: channel._replace(topic=names.get(channel.topic, channel.topic))
            for number, channel in self.channels.items()
        }

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
        for offset in self._contents.places[Op.ATTACHMENT]:
            try:
                yield parser.read_attachment(self._contents.read(offset, Op.ATTACHMENT))
            except McapError as error:
                self._report(str(error))

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

        `start` is the first time, `end` is exclusive. Messages of a damaged chunk are left out and
        noted in `damage`.
        """
        wanted = {
            channel.id
            for channel in self.channels.values()
            if topics is None or channel.topic in topics
        }

        def asked(channel: int, time: int) -> bool:
            early, late = start is not None and time < start, end is not None and time >= end
            return channel in wanted and not early and not late

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
            while waiting.first < chunk.start or waiting.bytes > self._max_waiting:
                if waiting.first >= chunk.start:
                    self._report(f"chunks before byte {chunk.offset} overlap too much to be sorted")
                yield waiting.take()
            self._collect(chunk, wanted, asked, waiting)
        while waiting:
            yield waiting.take()

    def _collect(
        self,
        chunk: ChunkPlace,
        wanted: Collection[int],
        asked: Callable[[int, int], bool],
        waiting: WaitingMessages,
    ) -> None:
        """Put the messages of a chunk that are asked for among those that wait."""
        last = -1
        try:
            for at, message in self._messages_of(chunk):
                last = at
                if asked(message.channel.id, message.time):
                    waiting.put(chunk.offset, at, message)
        except McapError as error:
            self._report(f"the chunk at byte {chunk.offset}: {error}")
            self._note_missing(chunk, last, wanted, asked)

    def _report(self, problem: str) -> None:
        if problem not in self.problems:
            self.problems.append(problem)

    def _messages_of(self, chunk: ChunkPlace) -> Iterator[tuple[int, Recorded]]:
        """Yield the messages of a chunk with their places in it. Raises McapError."""
        if chunk.loose:
            each = parser.read_message(self._contents.read(chunk.offset, Op.MESSAGE))
            messages: Iterable[tuple[int, Message]] = ((0, each),)
        else:
            content = scan.open_chunk(self._contents.read(chunk.offset, Op.CHUNK))
            messages = (
                (at, parser.read_message(each))
                for op, at, each in scan.records_in(content.records)
                if op == Op.MESSAGE
            )
        for at, message in messages:
            if message.channel in self.channels:
                yield at, self._recorded(message)
            else:
                self._report(f"nothing describes channel {message.channel}")
                unknown = Missing("", None, chunk.start, chunk.end)
                self.damage.add(chunk.offset, message.channel, unknown)

    def _note_missing(
        self,
        chunk: ChunkPlace,
        last: int,
        wanted: Collection[int],
        asked: Callable[[int, int], bool],
    ) -> None:
        """Note the messages of a damaged chunk that were asked for, and lie behind place `last`.

        Its index, which stands behind it, says which these are.
        """
        index = {} if chunk.loose else self._contents.index_of(chunk)
        channels = chunk.channels or frozenset(index)
        if not channels:
            self.damage.add(chunk.offset, -1, Missing("", None, chunk.start, chunk.end))
        for channel in channels.intersection(wanted):
            topic = self.channels[channel].topic
            if channel not in index:
                count = 1 if chunk.loose else None
                self.damage.add(
                    chunk.offset, channel, Missing(topic, count, chunk.start, chunk.end)
                )
                continue
            times = [time for time, at in index[channel] if at > last and asked(channel, time)]
            if times:
                part = Missing(topic, len(times), min(times), max(times))
                self.damage.add(chunk.offset, channel, part)

    def _recorded(self, message: Message) -> Recorded:
        channel = self.channels[message.channel]
        schema = self.schemas.get(channel.schema, NO_SCHEMA)
        return Recorded(
            message.log_time, channel.topic, message.sequence, channel, schema, message.data
        )


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

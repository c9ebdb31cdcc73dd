"""Write one MCAP file: chunks to the end of it, and the summary when it is closed."""

from __future__ import annotations

import fcntl
import logging
import os
from typing import TYPE_CHECKING

from dorad.record.encoding.messages import direct_kinds, encode_raw
from dorad.record.mcap import layout
from dorad.record.mcap.chunk import ChunkBuilder
from dorad.record.mcap.layout import Attachment, Channel, ChunkIndex, McapError, Op, Schema

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from dorad.record.encoding.messages import Encoded, Kind
    from dorad.record.mcap.chunk import Chunk
    from dorad.record.mcap.items import Item
    from dorad.record.mcap.layout import Message

_log = logging.getLogger(__name__)

MAX_KNOWN = 10_000
_MAX_PARTS = 512
"""Parts of one `writev`; the kernel takes up to 1024."""


class Summary:
    """What the summary section of a file says, collected while the file is written or recovered."""

    def __init__(self) -> None:
        self.schemas: dict[int, bytes] = {}
        self.channels: dict[int, bytes] = {}
        self.counts: dict[int, int] = {}
        self.chunk_indexes: list[bytes] = []
        self.attachments: list[bytes] = []
        self.metadata: list[bytes] = []
        self.start = 0
        self.end = 0

    def add_chunk(self, index: ChunkIndex, counts: Mapping[int, int]) -> None:
        """Add a chunk with the messages of each channel in it."""
        self._add(index.start, index.end, counts)
        self.chunk_indexes.append(layout.chunk_index(index))

    def add_message(self, message: Message) -> None:
        """Add a message outside of any chunk; other programs write such."""
        self._add(message.log_time, message.log_time, {message.channel: 1})

    def _add(self, start: int, end: int, counts: Mapping[int, int]) -> None:
        self.start = min(self.start, start) if self.counts else start
        self.end = max(self.end, end)
        for channel_id, count in counts.items():
            self.counts[channel_id] = self.counts.get(channel_id, 0) + count

    def pack(self, offset: int) -> bytes:
        """Return the end of the file: data end, summary and footer, for byte `offset`."""
        statistics = layout.statistics(
            self.counts,
            schemas=len(self.schemas),
            channels=len(self.channels),
            attachments=len(self.attachments),
            metadata_records=len(self.metadata),
            chunks=len(self.chunk_indexes),
            start=self.start,
            end=self.end,
        )
        groups = (
            (Op.SCHEMA, b"".join(self.schemas.values())),
            (Op.CHANNEL, b"".join(self.channels.values())),
            (Op.STATISTICS, statistics),
            (Op.CHUNK_INDEX, b"".join(self.chunk_indexes)),
            (Op.ATTACHMENT_INDEX, b"".join(self.attachments)),
            (Op.METADATA_INDEX, b"".join(self.metadata)),
        )
        end = layout.data_end()
        return end + layout.summary(groups, offset + len(end))


class RecordingFile:
    """One open MCAP file. Everything that was added before `flush` returned is in the file.

    After an `OSError` of a write, `offset` still is the end of the last complete record; `close`
    cuts the file there.
    """

    def __init__(
        self,
        path: Path,
        library: str,
        *,
        compression: str = "auto",
        profile: str = layout.PROFILE,
    ) -> None:
        """Create the file; it must not exist.

        Raises:
            OSError: it exists, or cannot be created.
        """
        self.path = path
        self.descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o644)
        fcntl.flock(self.descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)  # `recover` must not touch it
        self.offset = 0
        self.messages = 0
        self.finished = False
        """Whether it has its summary."""
        self._compression = compression
        self._summary = Summary()
        self._schemas: dict[tuple[str, str, bytes], int] = {}
        self._channels: dict[tuple[str, Kind], int] = {}
        self._known: dict[tuple[str, int], int] = {}
        """The channel of a topic and the `id` of a kind, which `_kinds` keeps alive."""
        self._kinds: list[Kind] = []
        self._records: dict[int, bytes] = {}
        self._unwritten: dict[int, int] = {}
        """Messages by channel of a chunk whose write has failed."""
        self._builder = ChunkBuilder(compression)
        self._write((layout.MAGIC + layout.header(profile, library),))

    @property
    def counts(self) -> dict[str, int]:
        """The written messages of each topic."""
        totals: dict[str, int] = {}
        for (topic, _), channel_id in list(self._channels.items()):  # another thread may add one
            totals[topic] = totals.get(topic, 0) + self._summary.counts.get(channel_id, 0)
        return totals

    @property
    def pending(self) -> int:
        """Bytes of the open chunk."""
        return self._builder.size

    def add_raw(
        self,
        topic: str,
        sequence: int,
        stamp: int,
        code: int,
        length: int,
        nulls: int,
        payload: bytes | memoryview,
        meta: bytes,
    ) -> None:
        """Encode a message as `encode_raw` does, and add it; `stamp` in ns since 1970.

        Raises:
            ValueError: the payload or the metadata are malformed.
            McapError: there are too many channels.
        """
        message = encode_raw(code, length, nulls, payload, meta, stamp)
        self.add(topic, sequence, stamp, message)
        direct = direct_kinds().get(code)
        if direct is not None and message.kind is direct[1]:
            channel_id = self._channels[topic, message.kind]
            self._builder.expect_small(topic, code, direct[0], channel_id)

    def add_small(self, items: list[Item], at: int, limit: int) -> int:
        """Add small messages from `items[at]` on, up to the first one that `add_raw` or `add` must
        take, or until the open chunk has `limit` bytes; return its index.
        """
        end = self._builder.add_small(items, at, limit)
        self.messages += end - at
        return end

    def add(self, topic: str, sequence: int, stamp: int, message: Encoded) -> None:
        """Add a message to the open chunk; `stamp` in ns since 1970.

        Raises:
            McapError: there are too many channels.
        """
        kind = message[0]
        # By identity first: comparing kinds means hashing their schemas.
        key = (topic, id(kind))
        channel_id = self._known.get(key)
        if channel_id is None:
            channel_id = self._channels.get((topic, kind))
            if channel_id is None:
                channel_id = self._new_channel(topic, kind)
            if len(self._known) < MAX_KNOWN:
                self._known[key] = channel_id
                self._kinds.append(kind)
        builder = self._builder
        if not builder.has(channel_id):
            builder.declare(channel_id, self._records[channel_id])
        builder.add(channel_id, sequence, stamp, message)
        builder.expect_small(topic, kind, 0, channel_id)
        self.messages += 1

    def flush(self) -> None:
        """Write the open chunk, if it has messages. Raises OSError."""
        if not self._builder:
            return
        builder, self._builder = self._builder, ChunkBuilder(self._compression)
        chunk = builder.finish()
        self._unwritten = chunk.counts
        self.write_chunk(chunk)
        self._unwritten = {}

    def write_chunk(self, chunk: Chunk) -> None:
        """Write a finished chunk. Raises OSError."""
        offset = self.offset
        self._write((*chunk.parts, chunk.indexes))
        at = offset + chunk.length
        index = ChunkIndex(
            chunk.start,
            chunk.end,
            offset,
            chunk.length,
            {channel_id: at + begin for channel_id, begin in chunk.index_offsets.items()},
            len(chunk.indexes),
            chunk.compression,
            chunk.stored,
            chunk.size,
        )
        self._summary.add_chunk(index, chunk.counts)

    def attach(self, item: Attachment) -> None:
        """Write an attachment. Raises OSError."""
        data = layout.attachment(item)
        offset = self.offset
        self._write((data,))
        self._summary.attachments.append(layout.attachment_index(offset, len(data), item))

    def describe(self, name: str, values: Mapping[str, str]) -> None:
        """Write a metadata record. Raises OSError."""
        data = layout.metadata(name, values)
        offset = self.offset
        self._write((data,))
        self._summary.metadata.append(layout.metadata_index(offset, len(data), name))

    def finish(self) -> None:
        """Write the summary; the file is complete then, but not synced. Raises OSError."""
        self.flush()
        self._write((self._summary.pack(self.offset),))
        self.finished = True

    def cut(self) -> None:
        """Cut off what a failed write has left behind the last complete record. Raises OSError."""
        os.ftruncate(self.descriptor, self.offset)
        os.lseek(self.descriptor, self.offset, os.SEEK_SET)

    def drop_pending(self) -> dict[str, int]:
        """Forget messages that were added but not written; return their number by topic."""
        lost: dict[str, int] = {}
        pending = self._builder.counts
        for (topic, _), channel_id in self._channels.items():
            missing = pending.get(channel_id, 0) + self._unwritten.get(channel_id, 0)
            if missing:
                lost[topic] = lost.get(topic, 0) + missing
        self._unwritten = {}
        self.messages -= sum(lost.values())
        self._builder = ChunkBuilder(self._compression)
        return lost

    def close(self) -> None:
        """Close the descriptor."""
        if self.descriptor >= 0:
            os.close(self.descriptor)
            self.descriptor = -1

    def _new_channel(self, topic: str, kind: Kind) -> int:
        channel_id = len(self._channels) + 1
        if channel_id > layout.MAX_ID:
            raise McapError(f"a recording has at most {layout.MAX_ID} channels")
        schema_id = 0
        schema_record = b""
        if kind.schema_encoding:
            key = (kind.schema_name, kind.schema_encoding, kind.schema)
            schema_id = self._schemas.setdefault(key, len(self._schemas) + 1)
            item = Schema(schema_id, kind.schema_name, kind.schema_encoding, kind.schema)
            schema_record = self._summary.schemas[schema_id] = layout.schema(item)
        record = layout.channel(
            Channel(channel_id, schema_id, topic, kind.encoding, kind.channel_metadata)
        )
        self._summary.channels[channel_id] = record
        self._channels[topic, kind] = channel_id
        self._records[channel_id] = schema_record + record
        return channel_id

    def _write(self, parts: Sequence[bytes | memoryview]) -> None:
        """Write all parts, or raise OSError and leave `offset` at the last complete record."""
        total = 0
        left = [memoryview(part) for part in parts if len(part)]
        while left:
            written = os.writev(self.descriptor, left[:_MAX_PARTS])
            total += written
            while written:
                first = left[0]
                if len(first) <= written:
                    written -= len(first)
                    del left[0]
                else:
                    left[0] = first[written:]
                    written = 0
        self.offset += total


def drop_cached(descriptor: int, start: int = 0) -> None:
    """Drop the synced pages of a file from byte `start` on from the page cache.

    A recorder does not read them again, and new pages cost four times as much as used ones; so a
    long recording does not displace what other programs have cached, either.
    """
    try:
        os.posix_fadvise(descriptor, start, 0, os.POSIX_FADV_DONTNEED)
    except OSError as error:  # only a hint
        _log.debug("the page cache keeps the recording: %s", error)

"""The messages of a recording, and those that wait because their chunks overlap in time."""

from __future__ import annotations

import heapq
from collections import Counter
from typing import TYPE_CHECKING, NamedTuple

from dorad.record.encoding import decode_message

if TYPE_CHECKING:
    from dorad.record.encoding import Decoded
    from dorad.record.mcap import Channel, Schema

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
            channel.encoding, schema.name, schema.data, channel.metadata, self.data
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

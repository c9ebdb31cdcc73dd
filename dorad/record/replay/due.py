"""What a replay sends and when: recorded messages and ticks, decoded and read ahead."""

from __future__ import annotations

import heapq
import json
import logging
import threading
from collections import Counter, deque
from typing import TYPE_CHECKING, Any, NamedTuple

import pyarrow as pa

from dorad.record.encoding import extras
from dorad.record.replay.config import ROS_CLOCK

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from dorad.record.replay.config import ReplayConfig
    from dorad.record.sources import Message, Recording

AHEAD_BYTES = 64 << 20
"""Bytes of messages that are read before they are due."""

CLOCK_NS = 10_000_000
"""From one message of /clock to the next, in recorded time."""

_log = logging.getLogger(__name__)


class Due(NamedTuple):
    """One message to send, decoded; or a tick, whose array is empty."""

    time: int
    output: str
    array: pa.Array
    metadata: dict[str, Any]
    size: int


class DueMessages:
    """What a replay of some recordings sends."""

    def __init__(self, recordings: Sequence[Recording], config: ReplayConfig) -> None:
        self._recordings = recordings
        self._config = config
        self.skipped: Counter[str] = Counter()
        """Messages that could not be decoded, by topic."""

    @property
    def span(self) -> tuple[int, int]:
        """When the replay begins and ends, in ns since 1970; the end is exclusive."""
        begin = min(each.start for each in self._recordings)
        end = max(each.end for each in self._recordings) + 1
        config = self._config
        return (
            begin if config.start is None else max(begin, config.start),
            end if config.end is None else min(end, config.end),
        )

    def all(self) -> Iterator[Due]:
        """Yield everything in the order in which it is due."""
        config = self._config
        wanted = frozenset(config.topics)
        streams: list[Iterable[Due]] = [
            self._decoded(each.messages(start=config.start, end=config.end, topics=wanted))
            for each in self._recordings
        ]
        if config.ticks:
            streams.insert(0, self._ticks(config.ticks))
        if config.ros_clock:
            streams.insert(0, _ros_clock(*self.span))
        return iter(heapq.merge(*streams, key=_time_of))

    def _decoded(self, messages: Iterator[Message]) -> Iterator[Due]:
        for message in messages:
            try:
                content = message.decode()
                array = with_extension(content.array, content.field)
            except ValueError as error:
                self.skipped[message.topic] += 1
                if self.skipped[message.topic] == 1:  # the others are counted
                    _log.warning("a message of %s is skipped: %s", message.topic, error)
                continue
            yield Due(message.time, message.topic, array, content.metadata, array.nbytes)

    def _ticks(self, ticks: Mapping[str, int]) -> Iterator[Due]:
        """Yield the ticks between the first and the last message."""
        begin, end = self.span
        origin = next(
            (start for each in self._recordings if (start := started_at(each)) is not None), begin
        )
        recorded = {
            topic: each
            for each in self._recordings
            for topic, count in each.topics().items()
            if count and topic in ticks
        }
        streams = [
            _ticks_of(output, every, origin, begin, end)
            if output not in recorded
            else _recorded_ticks(recorded[output], output, begin, end)
            for output, every in ticks.items()
        ]
        return iter(heapq.merge(*streams, key=_time_of))


def _ros_clock(begin: int, end: int) -> Iterator[Due]:
    """Yield the messages of /clock."""
    for time in range(begin, end, CLOCK_NS):
        sec, nanosec = divmod(time, 1_000_000_000)
        array = pa.array([{"clock": {"sec": sec, "nanosec": nanosec}}])
        yield Due(time, ROS_CLOCK, array, {}, array.nbytes)


def _ticks_of(output: str, every: int, origin: int, begin: int, end: int) -> Iterator[Due]:
    number = max(0, -((origin - begin) // every)) if origin < begin else 0
    while (due := origin + number * every) < end:
        yield Due(due, output, pa.nulls(0), {}, 0)
        number += 1


def _recorded_ticks(recording: Recording, output: str, begin: int, end: int) -> Iterator[Due]:
    for message in recording.messages(start=begin, end=end, topics=frozenset((output,))):
        yield Due(message.time, output, pa.nulls(0), {}, 0)


def started_at(recording: Recording) -> int | None:
    """Return when the recorded dataflow started, in ns since 1970; None if that is not known."""
    for message in recording.messages(topics=frozenset((extras.CONTROL_TOPIC,))):
        data = getattr(message, "data", b"")
        try:
            event = json.loads(bytes(data))
        except (ValueError, RecursionError):
            continue
        if isinstance(event, dict) and event.get("event") == "start":
            epoch = event.get("epoch_ns")
            return epoch if isinstance(epoch, int) else None
    return None


def with_extension(array: pa.Array, field: pa.Field) -> pa.Array:
    """Return an array that travels as its extension type, even if this process does not know it."""
    metadata = field.metadata or {}
    name = metadata.get(b"ARROW:extension:name")
    if name is None or isinstance(array.type, pa.BaseExtensionType):
        return array
    kind = _Opaque(array.type, name.decode(), metadata.get(b"ARROW:extension:metadata", b""))
    return pa.ExtensionArray.from_storage(kind, array)


class _Opaque(pa.ExtensionType):  # type: ignore[misc]  # pyarrow has no types
    """An extension type known only by its name and parameters."""

    def __init__(self, storage: pa.DataType, name: str, content: bytes) -> None:
        self._content = content
        super().__init__(storage, name)

    def __arrow_ext_serialize__(self) -> bytes:
        return self._content

    @classmethod
    def __arrow_ext_deserialize__(cls, storage: pa.DataType, serialized: bytes) -> _Opaque:
        return cls(storage, "dora.opaque", serialized)


def _time_of(due: Due) -> int:
    return due.time


class ReadAhead:
    """Reads and decodes messages in a thread, up to `AHEAD_BYTES` before they are taken."""

    def __init__(self, source: Iterator[Due]) -> None:
        self._source = source
        self._queue: deque[Due] = deque()
        self._bytes = 0
        self._changed = threading.Condition()
        self._done = self._closed = False
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._read, name="read ahead", daemon=True)
        self._thread.start()

    def __iter__(self) -> Iterator[Due]:
        while (due := self._next()) is not None:
            yield due

    def close(self) -> None:
        """Stop reading."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        self._thread.join()

    def _next(self) -> Due | None:
        with self._changed:
            self._changed.wait_for(lambda: self._queue or self._done)
            if not self._queue:
                if self._error is not None:
                    raise self._error
                return None
            due = self._queue.popleft()
            self._bytes -= due.size
            self._changed.notify_all()
            return due

    def _read(self) -> None:
        try:
            for due in self._source:
                with self._changed:
                    self._changed.wait_for(self._has_room)
                    if self._closed:
                        return
                    self._queue.append(due)
                    self._bytes += due.size
                    self._changed.notify_all()
        except BaseException as error:  # noqa: BLE001 - raised by the reader of the queue
            self._error = error
        finally:
            with self._changed:
                self._done = True
                self._changed.notify_all()

    def _has_room(self) -> bool:
        return self._closed or (self._bytes < AHEAD_BYTES and len(self._queue) < 10_000)

"""Send the messages of recordings again: in their order, at their times, or step by step."""

from __future__ import annotations

import heapq
import logging
import threading
import time
from collections import deque
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, NamedTuple

import pyarrow as pa

from dorad.node.events import ALL_INPUTS_CLOSED
from dorad.record import extras
from dorad.record.clock import ReplayClock

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from dorad.node.node import Node
    from dorad.record.check import Checker
    from dorad.record.config import ReplayConfig
    from dorad.record.control import Control
    from dorad.record.sources import Message, Recording

_log = logging.getLogger(__name__)

AHEAD_BYTES = 64 << 20
"""Bytes of messages that are read before they are due."""

COARSE_NS = 2_000_000
"""The last part of a wait is slept exactly; before it, events are handled."""

MAX_WAIT_S = 0.05
_EPOCH = datetime.fromtimestamp(0, UTC)


class Due(NamedTuple):
    """One message to send, decoded; or a tick, whose array is empty."""

    time: int
    output: str
    array: pa.Array
    metadata: dict[str, Any]
    size: int


class Played(NamedTuple):
    """The result of a replay."""

    messages: int
    skipped: int
    """Messages that could not be decoded."""
    seconds: float
    """From the first message to the last, of each pass."""
    recorded_seconds: float

    @property
    def speed(self) -> float:
        """How fast the recording was replayed; 0 if that has no meaning."""
        return self.recorded_seconds / self.seconds if self.seconds > 0 else 0.0


class StoppedError(Exception):
    """The dataflow was asked to stop."""


class Player:
    """Replays recordings as one node."""

    def __init__(
        self,
        node: Node,
        recordings: Sequence[Recording],
        config: ReplayConfig,
        control: Control,
        checker: Checker | None,
    ) -> None:
        self._node = node
        self._recordings = recordings
        self._config = config
        self._control = control
        self._checker = checker
        self._skipped = 0
        self._steps = 0
        """Single messages that may be sent while paused."""
        self._no_inputs = False
        """Whether all nodes whose messages are compared have ended."""
        self._clock: ReplayClock | None = None

    def play(self) -> Played:
        """Send everything, once or in a loop. Raises StoppedError."""
        sent, recorded_ns, took_ns = 0, 0, 0
        while True:
            count, length, took = self._play_once()
            sent += count
            recorded_ns += length
            took_ns += took
            if not self._config.loop or not count:
                break
            self._control.report(f"replayed {count} messages, once more")
        if self._checker is not None:
            self._settle()
        return Played(sent, self._skipped, took_ns / 1e9, recorded_ns / 1e9)

    def _play_once(self) -> tuple[int, int, int]:
        """Return the number of messages sent, and the ns that they cover and that they took."""
        config = self._config
        sent, first, last, began, ended = 0, None, 0, 0, 0
        reading = _ReadAhead(self._all_due())
        try:
            for due in reading:
                if first is None:
                    # Not before: reading the first message takes some time.
                    first, began = due.time, time.monotonic_ns()
                    self._start_clock(first)
                last = due.time
                self._wait_for(due.time)
                self._send(due)
                ended = time.monotonic_ns()
                sent += 1
                if config.step:
                    self._control.wait_until_quiet()
                    self._receive(0)
                elif sent % 64 == 0:
                    self._receive(0)
        finally:
            reading.close()
        self._receive(0)  # a loop of few messages stops, too
        return sent, last - (first or last), ended - began

    def _start_clock(self, recorded: int) -> None:
        """Begin at a recorded time; a loop keeps the speed and the pause that the user has set."""
        config, before, now = self._config, self._clock, time.monotonic_ns()
        if before is None:
            speed, paused = 0 if config.step else config.speed, config.paused
        else:
            speed, paused = before.speed, before.paused
        self._clock = ReplayClock(recorded, now, speed)
        if paused:
            self._clock.pause(now)

    def _wait_for(self, recorded: int) -> None:
        """Wait until a message is due, handling events and commands."""
        clock = self._clock
        assert clock is not None
        while True:
            self._handle_commands()
            now = time.monotonic_ns()
            if clock.paused:
                if self._steps:
                    self._steps -= 1
                    clock.at(recorded, now)
                    return
                self._receive(MAX_WAIT_S)
                continue
            left = clock.due(recorded) - now
            if left <= 0:
                clock.at(recorded, now)
                return
            if left > COARSE_NS:
                self._receive(min(MAX_WAIT_S, (left - COARSE_NS) / 1e9))
            else:
                time.sleep(left / 1e9)

    def _handle_commands(self) -> None:
        clock = self._clock
        assert clock is not None
        now = time.monotonic_ns()
        for command in self._control.commands():
            match command.split():
                case ["pause"]:
                    clock.pause(now)
                case ["resume"]:
                    clock.resume(now)
                case ["toggle"]:
                    (clock.resume if clock.paused else clock.pause)(now)
                case ["step"]:
                    clock.pause(now)
                    self._steps += 1
                case ["speed", text]:
                    clock.set_speed(float(text), now)
                case ["faster"]:
                    clock.set_speed((clock.speed or 1.0) * 2, now)
                case ["slower"]:
                    clock.set_speed((clock.speed or 1.0) / 2, now)
                case _:
                    _log.warning("unknown command %r", command)
                    continue
            state = "paused" if clock.paused else f"speed {clock.speed:g}"
            self._control.answer(state)

    def _send(self, due: Due) -> None:
        metadata = due.metadata
        if self._config.recorded_clock:
            metadata = {**metadata, "timestamp": _EPOCH + timedelta(microseconds=due.time // 1000)}
        self._node.send_output(due.output, due.array, metadata or None)

    def _receive(self, timeout: float) -> None:
        """Handle events for up to `timeout` seconds. Raises StoppedError."""
        if self._no_inputs:
            time.sleep(timeout)
            return
        event = self._node.next(timeout) if timeout > 0 else self._node.try_recv()
        while event is not None:
            if event["type"] == "STOP" and event["id"] == ALL_INPUTS_CLOSED:
                # Everything that these nodes have sent was received, and is compared.
                self._no_inputs = True
                return
            if event["type"] == "STOP":
                raise StoppedError
            if event["type"] == "INPUT" and self._checker is not None:
                metadata = dict(event["metadata"])
                self._checker.take(event["id"], event["value"], metadata)
            event = self._node.try_recv()

    def _settle(self) -> None:
        """Receive what live nodes still send for the last messages."""
        self._control.wait_until_quiet(lambda: self._receive(0.005))
        self._receive(0)

    def _all_due(self) -> Iterator[Due]:
        config = self._config
        wanted = frozenset(config.topics)
        streams: list[Iterable[Due]] = [
            self._decoded(each.messages(start=config.start, end=config.end, topics=wanted))
            for each in self._recordings
        ]
        if config.ticks:
            streams.insert(0, self._ticks(config.ticks))
        return iter(heapq.merge(*streams, key=_time_of))

    def _decoded(self, messages: Iterator[Message]) -> Iterator[Due]:
        for message in messages:
            try:
                found = message.decode()
                array = with_extension(found.array, found.field)
            except ValueError as error:
                self._skipped += 1
                _log.warning("a message is skipped: %s", error)
                continue
            yield Due(message.time, message.topic, array, found.metadata, array.nbytes)

    def _ticks(self, ticks: Mapping[str, int]) -> Iterator[Due]:
        """Yield the ticks between the first and the last message."""
        begin, end = self._span()
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

    def _span(self) -> tuple[int, int]:
        begin = min(each.start for each in self._recordings)
        end = max(each.end for each in self._recordings) + 1
        config = self._config
        return (
            begin if config.start is None else max(begin, config.start),
            end if config.end is None else min(end, config.end),
        )


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
    import json

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


class _ReadAhead:
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
        except Exception as error:  # noqa: BLE001 - raised by the reader of the queue
            self._error = error
        finally:
            with self._changed:
                self._done = True
                self._changed.notify_all()

    def _has_room(self) -> bool:
        return self._closed or (self._bytes < AHEAD_BYTES and len(self._queue) < 10_000)


def topics_of(recordings: Sequence[Recording]) -> dict[str, int]:
    """Return the topics of nodes in recordings, each with its number of messages."""
    found: dict[str, int] = {}
    for each in recordings:
        for topic, count in each.topics().items():
            if count and not extras.is_own(topic):
                found[topic] = found.get(topic, 0) + count
    return found

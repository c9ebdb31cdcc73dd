"""Send messages of recordings: in their order, at their times, or step by step."""

from __future__ import annotations

import logging
import math
import time
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, NamedTuple

from dorad.node.events import ALL_INPUTS_CLOSED
from dorad.record.replay.config import ROS_CLOCK
from dorad.record.replay.due import DueMessages, ReadAhead

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from dorad.node.node import Node
    from dorad.record.replay.checker import Checker
    from dorad.record.replay.config import ReplayConfig
    from dorad.record.replay.control import Control
    from dorad.record.replay.due import Due
    from dorad.record.sources import Recording


class ReplayClock:
    """Maps times of a recording to deadlines on the monotonic clock; all in ns.

    Deadlines are absolute, so that delays do not add up. A pause and a change of speed move the
    origin.
    """

    def __init__(self, first: int, now: int, speed: float) -> None:
        """The message of recorded time `first` is due `now`. A `speed` of 0 never waits."""
        self._origin_recorded = first
        self._origin = now
        self.speed = speed
        self.paused = False

    def due(self, recorded: int) -> int:
        """Return when a message is due."""
        if not self.speed:
            return 0
        return self._origin + int((recorded - self._origin_recorded) / self.speed)

    def position(self, now: int) -> int:
        """Return the recorded time that is reached now."""
        if self.paused or not self.speed:
            return self._origin_recorded
        return self._origin_recorded + int((now - self._origin) * self.speed)

    def at(self, recorded: int, now: int) -> None:
        """Record that the message of time `recorded` is sent now; only without a speed."""
        if not self.speed or self.paused:
            self._origin_recorded, self._origin = recorded, now

    def set_speed(self, speed: float, now: int) -> None:
        """Continue with another speed. Raises ValueError if it is negative or not finite."""
        if not math.isfinite(speed) or speed < 0:
            raise ValueError(f"{speed} is not a speed")
        self._origin_recorded, self._origin = self.position(now), now
        self.speed = speed

    def pause(self, now: int) -> None:
        """Stop the clock."""
        if not self.paused:
            self._origin_recorded, self._origin = self.position(now), now
            self.paused = True

    def resume(self, now: int) -> None:
        """Restart the clock."""
        if self.paused:
            self._origin = now
            self.paused = False


_log = logging.getLogger(__name__)

COARSE_NS = 2_000_000
"""The last part of a wait is slept exactly; before it, events are handled."""

MAX_WAIT_S = 0.05
_EPOCH = datetime.fromtimestamp(0, UTC)


class Played(NamedTuple):
    """The result of a replay."""

    messages: int
    skipped: Mapping[str, int]
    """Messages that could not be decoded, by topic."""
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
        self._source = DueMessages(recordings, config)
        self._config = config
        self._control = control
        self._checker = checker
        self._steps = 0
        """Single messages that may be sent while paused."""
        self._no_inputs = False
        """Whether all nodes whose messages are compared have ended."""
        self._clock: ReplayClock | None = None
        self._shift = 0
        """How much later than recorded the messages of this pass are, while stepping, in ns."""

    def play(self) -> Played:
        """Send everything, once or in a loop. Raises StoppedError."""
        sent, recorded_ns, took_ns = 0, 0, 0
        while True:
            if self._config.step:
                # The nodes begin, before the first message.
                self._control.advance(self._shift + self._source.span[0])
            count, length, took = self._play_once()
            sent += count
            recorded_ns += length
            took_ns += took
            if not self._config.loop or not count:
                break
            begin, end = self._source.span
            self._shift += end - begin
            self._control.report(f"replayed {count} messages, once more")
        self._settle()
        return Played(sent, self._source.skipped, took_ns / 1e9, recorded_ns / 1e9)

    def _play_once(self) -> tuple[int, int, int]:
        """Return the number of messages sent, and the ns that they cover and that they took."""
        config = self._config
        sent, first, last, began, ended = 0, None, 0, 0, 0
        reading = ReadAhead(self._source.all())
        try:
            for due in reading:
                if first is None:
                    # Not before: reading the first message takes some time.
                    first, began = due.time, time.monotonic_ns()
                    self._start_clock(first)
                last = due.time
                self._wait_for(due.time)
                if config.step:
                    self._control.advance(self._shift + due.time)
                    self._receive(0)
                self._send(due)
                ended = time.monotonic_ns()
                sent += due.output != ROS_CLOCK
                if not config.step and sent % 64 == 0:
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
        if self._no_inputs or self._config.step:
            time.sleep(timeout)  # the time of a node that is stepped stands still
        if self._no_inputs:
            return
        waits = timeout > 0 and not self._config.step
        event = self._node.next(timeout) if waits else self._node.try_recv()
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
        if self._config.step:
            self._control.advance(self._shift + self._source.span[1])
        elif self._checker is not None:
            self._control.wait_until_quiet(lambda: self._receive(0.005))
        else:
            return
        self._receive(0)

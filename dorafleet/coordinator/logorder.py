"""The order of the lines of several robots. Pure: the time is passed in."""

import heapq
from collections.abc import Callable, Iterable

import msgspec

from dorad.control.messages import LogRecord
from dorad.logrecord import size

QUIET_S = 0.3
"""Seconds after which a robot without a line no longer delays the lines of others."""

FIRST_S = 3.0
"""Seconds for the first lines of a robot."""

MAX_KEPT = 100_000
"""Lines that wait for their order; then they are passed on as they are."""

MAX_CHARACTERS = 1 << 25
"""Characters of all lines that wait; then they are passed on, or left out of the newest lines."""

AHEAD_S = 1.0
"""How far a line's time may be ahead of now: the skew of a clock is not exact."""

SET_BACK_S = 60.0
"""A robot's lines whose times go back by more were written after its clock was set."""

MAX_REMEMBERED = 10_000
"""Lines that are compared with those of other robots."""


class LogOrder:
    """Puts lines in the order of their times, by the coordinator's clock.

    A line waits until every robot has sent a later one, or has been quiet for a moment. A line that
    several robots of one machine send counts once: they may share a folder of logs. Lines of a
    robot whose clock was set stay in the order in which it sent them.
    """

    def __init__(
        self,
        robots: Iterable[str],
        skew: Callable[[str], float],
        now: float,
        machine: Callable[[str], str] = str,
    ) -> None:
        """Begin without lines; `skew` returns how many seconds a robot's clock is ahead.

        `machine` returns on which machine a robot is.
        """
        self._skew = skew
        self._machine = machine
        self._began = now
        self._latest = dict.fromkeys(robots, float("-inf"))
        """The time of the latest line of each robot, by the coordinator's clock."""
        self._set_back: dict[str, float] = {}
        """The time of the latest line of a robot before its clock was set back."""
        self._heard: dict[str, float] = {}
        """When a robot last sent lines, on the clock of `now`."""
        self._waiting: list[tuple[float, int, str, LogRecord]] = []
        """A heap; the number keeps lines with the same time in the order in which they came."""
        self._number = 0
        self._characters = 0
        """Those of the lines that wait."""
        self._senders: dict[int, str] = {}
        """By the hash of a line, because it may be long."""

    def add(self, robot: str, lines: Iterable[LogRecord], now: float, today: float) -> None:
        """Add lines that a robot has sent; `today` is now in seconds since 1970."""
        self._heard[robot] = now
        for line in lines:
            if self._was_sent_by_another(line, robot):
                continue
            at = self._written_at(line, robot, today)
            self._latest[robot] = max(self._latest[robot], at)
            self._number += 1
            own = msgspec.structs.replace(line, machine=robot)
            heapq.heappush(self._waiting, (at, self._number, robot, own))
            self._characters += size(own)

    def keep_newest(self, count: int) -> int:
        """Drop all but the newest lines; return how many of these were too long to be kept."""
        while len(self._waiting) > count:
            self._pop()
        before = len(self._waiting)
        while self._characters > MAX_CHARACTERS:
            self._pop()
        return before - len(self._waiting)

    def take(self, now: float) -> list[LogRecord]:
        """Take the lines whose turn has come."""
        delaying = [at for robot, at in self._latest.items() if self._delays(robot, now)]
        until = min(delaying, default=float("inf"))
        ready = []
        while self._waiting and (self._waiting[0][0] <= until or self._is_full()):
            ready.append(self._pop())
        return ready

    def take_all(self) -> list[LogRecord]:
        """Take all lines that wait."""
        ready = [line for *_, line in sorted(self._waiting)]
        self._waiting.clear()
        self._characters = 0
        return ready

    def _written_at(self, line: LogRecord, robot: str, today: float) -> float:
        """Return when a line was written, by the coordinator's clock."""
        at, latest = line.timestamp - self._skew(robot), self._latest[robot]
        if at > today + AHEAD_S:
            # Today's skew is not that of the line: the clock was right then, or is not known yet.
            at = line.timestamp
        if at > today + AHEAD_S:
            # The clock was ahead then, and is right now: as old as the line before.
            at = latest if latest > float("-inf") else today
        if at < latest - SET_BACK_S:
            self._set_back[robot] = latest
        return max(at, self._set_back.get(robot, at))

    def _pop(self) -> LogRecord:
        line = heapq.heappop(self._waiting)[3]
        self._characters -= size(line)
        return line

    def _is_full(self) -> bool:
        return len(self._waiting) > MAX_KEPT or self._characters > MAX_CHARACTERS

    def _delays(self, robot: str, now: float) -> bool:
        heard = self._heard.get(robot)
        return now - self._began < FIRST_S if heard is None else now - heard < QUIET_S

    def _was_sent_by_another(self, line: LogRecord, robot: str) -> bool:
        key = hash((self._machine(robot), line.timestamp, line.node, line.message))
        sender = self._senders.setdefault(key, robot)
        if len(self._senders) > MAX_REMEMBERED:
            del self._senders[next(iter(self._senders))]
        return sender != robot

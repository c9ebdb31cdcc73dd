"""The lines of a log that are kept: a window into it, with repeated lines folded."""

import re
import time
from collections.abc import Callable, Iterable
from datetime import datetime, timedelta

from dorad.control.filters import number
from dorad.control.messages import LogRecord
from dorad.logrecord import RAW, is_error

MAX_LINES = 10_000
"""Lines that are kept, those that repeat as one."""
MAX_OPEN = 1000
"""Nodes whose traceback may be under way."""

_HEADER = re.compile(r"\s*(\+ )?(Exception Group )?Traceback \(most recent call last\):")
_CRASHES = re.compile(
    r"Fatal Python error:|terminate called after|thread '.*' panicked at|Segmentation fault|"
    r"[\w.]+(Error|Exception): "
)
"""How lines without a level begin that tell of a crash."""


class Entry:
    """A line, with the lines after it that repeat it."""

    __slots__ = ("count", "failed", "last", "record")

    def __init__(self, record: LogRecord, *, failed: bool) -> None:
        self.record = record
        self.failed = failed
        """Whether it tells of an error: by its level or, without one, by its text."""
        self.count = 1
        self.last = record.timestamp
        """When the last of them was written."""

    def repeats(self, record: LogRecord) -> bool:
        """Return True if a line says the same once more."""
        own = self.record
        return (own.message, own.node, own.machine, own.level, own.fields) == (
            record.message,
            record.node,
            record.machine,
            record.level,
            record.fields,
        )


class Tracebacks:
    """Finds the lines of tracebacks, of several nodes at once."""

    def __init__(self) -> None:
        self._open: dict[tuple[str | None, str | None], None] = {}

    def failed(self, line: LogRecord) -> bool:
        """Return True if the next line tells of an error, or belongs to a traceback."""
        if line.level != RAW:
            return line.level == "error"
        key, text = (line.machine, line.node), line.message
        if _HEADER.match(text):
            self._open.pop(key, None)
            self._open[key] = None
            if len(self._open) > MAX_OPEN:
                del self._open[next(iter(self._open))]
            return True
        if key in self._open:
            if not text[:1].isspace():
                del self._open[key]  # the line with the exception
            return True
        return is_error(line) or _CRASHES.match(text) is not None


class LogWindow:
    """The kept lines, oldest first."""

    def __init__(self) -> None:
        self.clear()

    def clear(self) -> None:
        """Keep nothing."""
        self.entries: list[Entry] = []
        self.lines = 0
        """Number of lines, each time counted that one is repeated."""
        self.nodes = self.machines = 0
        """Characters of the longest name of a node, and of a machine."""
        self.times: tuple[float, ...] = ()
        """The first and the last time that a line has had."""
        self._tracebacks = Tracebacks()

    def add(self, records: Iterable[LogRecord]) -> list[Entry]:
        """Add newer lines; return those that repeat none. Beyond the limit the oldest go."""
        fresh: list[Entry] = []
        for record in records:
            self.lines += 1
            self.nodes = max(self.nodes, len(record.node or ""))
            self.machines = max(self.machines, len(record.machine or ""))
            times = (*self.times, record.timestamp)
            self.times = min(times), max(times)
            if self.entries and self.entries[-1].repeats(record):
                self.entries[-1].count += 1
                self.entries[-1].last = record.timestamp
                continue
            fresh.append(Entry(record, failed=self._tracebacks.failed(record)))
            self.entries.append(fresh[-1])
        self._cut(slice(0, max(0, len(self.entries) - MAX_LINES)))
        return fresh

    def add_before(self, records: Iterable[LogRecord]) -> list[Entry]:
        """Add older lines; return those that repeat none. Beyond the limit the newest go."""
        older = LogWindow()
        older.add(records)
        self.entries[:0] = older.entries
        self.lines += older.lines
        self.nodes = max(self.nodes, older.nodes)
        self.machines = max(self.machines, older.machines)
        times = (*self.times, *older.times)
        self.times = (min(times), max(times)) if times else ()
        self._cut(slice(MAX_LINES, None))
        return older.entries

    def unknown(self, records: Iterable[LogRecord]) -> list[LogRecord]:
        """Return the lines that are not kept yet."""
        known = {_identity(each.record) for each in self.entries}
        return [each for each in records if _identity(each) not in known]

    def _cut(self, which: slice) -> None:
        self.lines -= sum(each.count for each in self.entries[which])
        del self.entries[which]

    def place_of(self, at: float, time_of: Callable[[LogRecord], float]) -> int | None:
        """Return the first line from a time on; None if the time is not within the window."""
        if not self.entries or at < time_of(self.entries[0].record):
            return None
        later = (n for n, each in enumerate(self.entries) if time_of(each.record) >= at)
        return next(later, None)


def _identity(line: LogRecord) -> tuple[object, ...]:
    return round(line.timestamp * 1e3), line.machine, line.node, line.message


_CLOCK = re.compile(r"(?:(?:(\d{4})-)?(\d\d?)-(\d\d?)[ T])?(\d\d?):(\d\d)(?::(\d\d))?")


def moment_of(text: str, now: float) -> float | None:
    """Return the time that a text names, before `now`, in seconds since 1970; None for none.

    `10:42` and `10:42:05` are the last ones, `11-30 10:42` and `2026-11-30 10:42` of that day,
    `10m` and `2h` so long ago.
    """
    ago = number(text)
    if ago is not None and text[-1:] in "smhd":
        return max(0.0, now - ago)
    match = _CLOCK.fullmatch(text)
    if match is None:
        return None
    year, month, day, hour, minute, second = (
        int(each) if each else None for each in match.groups()
    )
    today = datetime.fromtimestamp(now)  # as an operator types it
    try:
        moment = today.replace(
            hour=hour or 0, minute=minute or 0, second=second or 0, microsecond=0
        )
        if month is not None and day is not None:
            moment = moment.replace(year=year or today.year, month=month, day=day)
            if year is None and moment > today:
                moment = moment.replace(year=today.year - 1)
        elif moment > today:
            moment -= timedelta(days=1)
        return time.mktime(moment.timetuple())
    except (ValueError, OverflowError):
        return None

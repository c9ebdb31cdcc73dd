"""From lines in the staging memory to entries of the journal, each exactly once."""

from __future__ import annotations

import os
import re
import time
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from dorad.logrecord import RAW, Level, LogRecord, Stream
from dorad.logs.journal.entry import DAEMON_STREAM, Origin, encode
from dorad.logs.journal.reader import JournalPast, arrived
from dorad.logs.journal.sender import own

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from dorad.logs.journal.writer import Journal
    from dorad.logs.selection import Selection
    from dorad.logs.staging import Cut, Stage

_HEADER = re.compile(r"(?:  \+ Exception Group )?Traceback \(most recent call last\):")
_JOINERS = (
    "During handling of the above exception, another exception occurred:",
    "The above exception was the direct cause of the following exception:",
)


class Span(NamedTuple):
    """Lines from `begin` up to `end` that belong together."""

    begin: int
    end: int
    open: bool = False
    """Whether lines that have not arrived yet may belong to the span."""


def spans(lines: Sequence[str]) -> list[Span]:
    """Group lines into spans: a traceback with its causes is one span, any other line is another.

    A traceback has a header, indented lines and one unindented line with the error; an exception
    group has indented lines only. A blank line and a joiner sentence continue it with the next
    traceback.
    """
    parts = []
    at = 0
    while at < len(lines):
        starts = _HEADER.fullmatch(lines[at])
        span = _traceback(lines, at) if starts else Span(at, at + 1)
        parts.append(span)
        at = span.end
    return parts


def _traceback(lines: Sequence[str], begin: int) -> Span:
    at = begin
    while True:
        group = lines[at].startswith(" ")
        at += 1
        while at < len(lines) and lines[at].startswith(" "):
            at += 1
        if at == len(lines):
            return Span(begin, at, open=True)
        if not group:
            at += 1
        following = lines[at : at + 4]
        if following[:1] not in ([], [""]):
            return Span(begin, at)
        continued = following[1:2] == [] or following[1] in _JOINERS
        if not continued or following[2:3] not in ([], [""]):
            return Span(begin, at)
        if len(following) < 4:
            return Span(begin, at, open=True)
        if not _HEADER.fullmatch(following[3]):
            return Span(begin, at)
        at += 3


FOLDERS = (Path("/var/log/journal"), Path("/run/log/journal"))
"""Folders of the journal: on the disk if the first exists, else in memory."""
PARTS = 4
"""A node may fill 1/PARTS of the journal at once, and the same again every day."""
ENTRY_BYTES = 600
"""Approximate overhead of an entry in the journal."""

_DAY_S = 86400.0
_MAX_SHARE = 4 << 30
_MIN_SHARE = 32 << 20


def share() -> int:
    """Return how many bytes of the journal one node may fill at once."""
    folder = next((path for path in FOLDERS if path.is_dir()), None)
    if folder is None:
        return _MIN_SHARE
    status = os.statvfs(folder)
    return share_of(status.f_blocks * status.f_frsize)


def share_of(disk: int) -> int:
    """Return a node's share of a journal on a file system of `disk` bytes.

    By default the journal takes a tenth of the file system, at most 4 GiB.
    """
    return max(_MIN_SHARE, min(_MAX_SHARE, disk // 10) // PARTS)


class Budget:
    """The rest of one node's share."""

    def __init__(
        self, size: int | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """`size` is the share in bytes; None is the default share of this machine's journal."""
        self._size = share() if size is None else size
        self._clock = clock
        self._left = float(self._size)
        self._at = clock()
        self._spent = False

    def allows(self) -> bool:
        """Return True if the next entries may go to the journal.

        Once used up, the answer stays False until a tenth is available again, so that consecutive
        lines stay together.
        """
        now = self._clock()
        self._left = min(self._size, self._left + (now - self._at) * self._size / _DAY_S)
        self._at = now
        if self._left < 1:
            self._spent = True
        elif self._left >= self._size / 10:
            self._spent = False
        return not self._spent

    def take(self, entry: int) -> None:
        """Subtract an entry of `entry` bytes that was written."""
        self._left -= entry + ENTRY_BYTES


_GO_ON = "its lines go to files until it prints less; `dora logs` still shows them"
HELD_BYTES = 256 << 10
"""Maximum size of an incomplete traceback that waits for its rest."""


class Forwarded(NamedTuple):
    """The result of forwarding lines."""

    lines: int
    """How many are in the journal; the others are still in the staging memory."""
    held: bool = False
    """Whether the next lines are held back as an incomplete traceback."""
    full: bool = False
    """Whether the journal was full."""


class NodeJournal:
    """The journal of one node, over all of its processes."""

    def __init__(
        self,
        journal: Journal,
        dataflow: str,
        name: str | None,
        node: str,
        report: Callable[[Level, str, str], None] = lambda level, node, text: None,
        arrived: Callable[[str, str, str, int], bool] = arrived,
    ) -> None:
        """`report` gets level, node and sentence when the node has used up its share.

        `arrived` returns True if the journal has the entry of dataflow, node, stream and number.
        """
        self.journal = journal
        self._budget = Budget()
        self._over = False
        self._report = report
        self.last: dict[str, int] = {}
        """The number of the last entry, by stream."""
        self._dataflow = dataflow
        self._name = name
        self._node = node
        self._arrived = arrived
        self._origins: dict[tuple[Stream, str | None], Origin] = {}

    def usable(self) -> bool:
        """Return True if the next lines may go to the journal."""
        over = not self._budget.allows()
        if over != self._over:
            self._over = over
            if over:
                self._report("warn", self._node, "has filled its share of the journal; " + _GO_ON)
            else:
                self._report("info", self._node, "its lines go to the journal again")
        return not over and self.journal.usable()

    def past(self, selection: Selection) -> JournalPast:
        """Return the entries that were sent so far."""
        last = {(self._node, stream): number for stream, number in self.last.items()}
        return JournalPast(self._dataflow, selection, own(), last=last)

    def settle(self, stage: Stage, stream: Stream) -> None:
        """Recover after the process that was sending from `stage` died."""
        number = stage.unconfirmed()
        arrived = number is not None and self._arrived(self._dataflow, self._node, stream, number)
        stage.settle(arrived=arrived)

    def record_last(self, stage: Stage, stream: Stream) -> None:
        """Record the number of the last entry sent from `stage`."""
        self.last[stream] = max(self.last.get(stream, 0), stage.number)

    def forward(
        self,
        stage: Stage,
        cut: Cut,
        records: Sequence[LogRecord],
        wanted: Callable[[LogRecord], bool],
        *,
        unit: str | None,
        hold: bool,
    ) -> Forwarded:
        """Send the records of the lines in `cut`, and release those that were sent.

        Records that are not `wanted` count as sent. With `hold`, a traceback that may be incomplete
        is held back, unless it is too large.
        """
        ends = cut.ends()
        stream = records[0].stream
        origin = self._origin(stream, unit)
        done = 0
        held = full = False
        for span in _spans(records):
            begun = ends[span.begin - 1] if span.begin else 0
            if span.open and hold and not cut.more and ends[span.end - 1] - begun < HELD_BYTES:
                held = True
                break
            chosen = [record for record in records[span.begin : span.end] if wanted(record)]
            last = span.end == len(records)
            if chosen:
                entry = encode(origin, chosen, stage.number + 1)
                stage.sending(ends[span.end - 1], skipping=last and cut.skipping)
                if not self.journal.send(entry):
                    stage.not_sent()
                    full = True
                    break
                stage.sent()
                self._budget.take(len(entry))
            done = span.end
        if done:
            every = done == len(records)
            used = cut.used if every else ends[done - 1]
            stage.commit(used, skipping=every and cut.skipping)
        self.record_last(stage, stream)
        return Forwarded(done, held, full)

    def _origin(self, stream: Stream, unit: str | None) -> Origin:
        origin = self._origins.get((stream, unit))
        if origin is None:
            self._origins = {key: each for key, each in self._origins.items() if key[1] == unit}
            origin = Origin(self._dataflow, self._name, self._node, stream, unit)
            self._origins[stream, unit] = origin
        return origin


def _spans(records: Sequence[LogRecord]) -> list[Span]:
    """Return which records form one entry; only raw lines of stderr are joined."""
    if records[0].stream != "stderr":
        return [Span(at, at + 1) for at in range(len(records))]
    return spans([record.message if record.level == RAW else "-" for record in records])


class DaemonJournal:
    """The journal of the daemon's reports about one dataflow."""

    def __init__(self, journal: Journal, dataflow: str, name: str | None, first: int) -> None:
        """`first` is the number before that of the first entry, in microseconds since 1970."""
        self.last = first
        self._journal = journal
        self._dataflow = dataflow
        self._name = name

    def report(self, record: LogRecord) -> bool:
        """Send a record; return False if the journal does not take it now."""
        if not self._journal.usable():
            return False
        origin = Origin(self._dataflow, self._name, record.node, DAEMON_STREAM)
        if not self._journal.send(encode(origin, [record], self.last + 1)):
            return False
        self.last += 1
        return True

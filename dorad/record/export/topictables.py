"""The topics of a recording as tables: a file of each in a folder."""

from __future__ import annotations

import itertools
import logging
from typing import TYPE_CHECKING, NamedTuple

import pyarrow as pa

from dorad.node import metadata as metadata_codec
from dorad.phrases import count_text
from dorad.record.encoding import extras
from dorad.record.export.tables import SUFFIXES, ColumnTable, CsvTable, Row, column_type
from dorad.record.mcap.reader import RecordingError

if TYPE_CHECKING:
    from collections.abc import Callable, Collection
    from pathlib import Path
    from typing import Self

    from dorad.record.damage import Missing
    from dorad.record.sources import Message, Recording

_log = logging.getLogger(__name__)

MAX_WAITING = 128 << 20
"""Memory of messages of a recording that wait to be sorted by time."""
MAX_TIME = (1 << 63) - 1
MAX_NAME = 200
"""Bytes of a topic in the name of its file."""
MAX_TOPICS = 8
"""Topics whose tables are written in one pass over the recording: Parquet keeps the memory that it
has once needed for each.
"""
LARGE = 32 << 20
"""Memory that writing a message may take, of several topics of one pass."""
MAX_TABLES = 256
"""Tables that are open at once; a topic may change its type with each message."""
MAX_PENDING = 64 << 20
"""Memory of messages that are not yet in their tables."""


class LeftOut(NamedTuple):
    """Messages of one topic and type that an export cannot hold."""

    topic: str
    type: str
    messages: int
    reason: str
    """Of the first of them."""

    def __str__(self) -> str:
        what = f"{count_text(self.messages, 'message')} of {self.topic}"
        return f"{what} ({self.type}): {self.reason}" if self.type else f"{what}: {self.reason}"


class Exported(NamedTuple):
    """The result of an export."""

    files: list[tuple[Path, int]]
    """The files with their rows."""
    left_out: list[LeftOut]
    missing: list[Missing]
    """What is damaged."""


def to_tables(
    recording: Recording,
    folder: Path,
    kind: str,
    topics: Collection[str] | None,
    *,
    by_value: bool = False,
    large_cells: bool = False,
    progress: Callable[[int], object] = lambda _: None,
) -> Exported:
    """Write a table of each topic into a folder.

    A topic whose type changes has a file for each type. With `by_value` a row is one value. Types
    and messages that the format cannot hold are left out; of CSV messages with text that readers of
    CSV do not take, too, but not with `large_cells`. `progress` is called with each number of
    messages that are done.

    Raises:
        RecordingError: there is nothing to write, or nothing that the format can hold.
        OSError: a file cannot be written.
    """
    wanted = [
        topic
        for topic in recording.topics()
        if not extras.is_own(topic) and (topics is None or topic in topics)
    ]
    if not wanted:
        raise RecordingError("there is nothing to export: the recording has no messages")
    folder.mkdir(parents=True, exist_ok=True)
    tables = _Tables(folder, kind, by_value=by_value, large_cells=large_cells)
    due = [wanted[at : at + MAX_TOPICS] for at in range(0, len(wanted), MAX_TOPICS)]
    while due:
        with tables:
            for message in recording.messages(topics=frozenset(due.pop(0))):
                progress(tables.add(message))
                del message  # it would keep its chunk while the next one is read
        # Each alone.
        due += [[topic] for topic in tables.take_postponed()]
    if tables.left_out and not tables.files:
        reasons = [str(each) for each in tables.left_out[:3]]
        raise RecordingError(
            f"nothing can be exported to {kind}: {'; '.join(reasons)}",
            "choose another format with --to",
        )
    return Exported(tables.files, tables.left_out, recording.damage.missing())


class _Tables:
    """The tables of some topics; a context manager, which closes those that are open."""

    def __init__(self, folder: Path, kind: str, *, by_value: bool, large_cells: bool) -> None:
        self.files: list[tuple[Path, int]] = []
        """Those that are closed, with their rows."""
        self._folder = folder
        self._kind = kind
        self._by_value = by_value
        self._large_cells = large_cells
        self._taken: set[Path] = set()
        self._open: dict[_Key, ColumnTable | CsvTable | None] = {}
        """None for one that is left out."""
        self._messages: dict[_Key, int] = {}
        """How many messages each open table has."""
        self._pending = 0
        self._large = ""
        """The topic of this pass that has large messages."""
        self._postponed: set[str] = set()
        self._left_out: dict[_Key, LeftOut] = {}

    @property
    def left_out(self) -> list[LeftOut]:
        """What could not be written."""
        return sorted(self._left_out.values())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, failed: object, *_: object) -> None:
        """Close the tables; after an error they only free what they have."""
        for key, table in self._open.items():
            if table is None:
                continue
            try:
                table.close()
            except pa.ArrowException as error:
                self._remove(key, table, error)
            except OSError:
                if failed is None:
                    raise
            else:
                if table.rows:
                    self.files.append((table.path, table.rows))
                else:
                    table.path.unlink()
        self._open.clear()
        self._messages.clear()
        self._pending = 0
        self._large = ""

    def take_postponed(self) -> list[str]:
        """Return the topics that are to have a pass of their own, once."""
        postponed, self._postponed = sorted(self._postponed), set()
        return postponed

    def add(self, message: Message) -> int:
        """Write a message, or count it as left out; return how many messages more are done.

        These are less if its topic is postponed. Raises OSError.
        """
        if message.topic in self._postponed:
            return 0
        try:
            array, metadata, _ = message.decode()
        except ValueError as error:
            self._leave_out((message.topic, None), "", 1, error)
            return 1
        if message.time > MAX_TIME:
            self._leave_out((message.topic, None), "", 1, "its time is beyond the year 2262")
            return 1
        column = column_type(self._kind, array, by_value=self._by_value)
        key = (message.topic, column)
        if key not in self._open:
            self._open[key] = self._begin(key, array)
        table = self._open[key]
        if table is None:
            self._leave_out(key, str(array.type), 1, "")
            return 1
        if table.cost(array) > LARGE:
            if self._large not in ("", message.topic):
                return self._postpone(message.topic)
            self._large = message.topic
        text = metadata_codec.encode(metadata).decode() if metadata else "{}"
        row = Row(message.time, getattr(message, "sequence", 0), text)
        self._messages[key] = self._messages.get(key, 0) + 1
        before = table.pending_bytes
        try:
            table.add(row, array)
        except pa.ArrowException as error:
            self._remove(key, table, error)
        except ValueError as error:
            self._messages[key] -= 1
            self._leave_out(key, str(array.type), 1, error)
        self._pending += table.pending_bytes - before
        if self._pending > MAX_PENDING:
            self._flush()
        return 1

    def _postpone(self, topic: str) -> int:
        """Undo what a topic has in this pass; return the messages that are done less."""
        self._postponed.add(topic)
        undone = 0
        for key in [key for key in self._open if key[0] == topic]:
            table = self._open.pop(key)
            if table is not None:
                table.abandon()
            undone += self._messages.pop(key, 0)
        for key in [key for key in self._left_out if key[0] == topic]:
            undone += self._left_out.pop(key).messages
        _log.debug("%s gets a pass of its own", topic)
        return -undone

    def _begin(self, key: _Key, first: pa.Array) -> ColumnTable | CsvTable | None:
        """Return a new table; None if there are too many, or the format does not know the type."""
        topic, kind = key[0], first.type
        if sum(each is not None for each in self._open.values()) >= MAX_TABLES:
            self._leave_out(key, str(kind), 0, f"more than {MAX_TABLES} types at once")
            return None
        path = _free_path(self._folder, topic, SUFFIXES[self._kind], self._taken)
        try:
            if self._kind == "csv":
                made: ColumnTable | CsvTable = CsvTable(
                    path, by_value=self._by_value, large_cells=self._large_cells
                )
            else:
                made = ColumnTable(path, self._kind, first, by_value=self._by_value)
        except pa.ArrowException as error:
            path.unlink(missing_ok=True)
            self._leave_out(key, str(kind), 0, error)
            return None
        self._taken.add(path)
        return made

    def _flush(self) -> None:
        for key, table in self._open.items():
            if table is None:
                continue
            try:
                table.flush()
            except pa.ArrowException as error:
                self._remove(key, table, error)
        self._pending = 0

    def _remove(self, key: _Key, table: ColumnTable | CsvTable, error: Exception) -> None:
        """Leave out all messages of a table, also those to come."""
        table.abandon()
        self._open[key] = None
        self._leave_out(key, str(key[1]), self._messages.pop(key, 0), error)

    def _leave_out(self, key: _Key, kind: str, count: int, reason: Exception | str) -> None:
        before = self._left_out.get(key)
        if before is None:
            _log.debug("%s (%s) is left out: %s", key[0], kind, reason)
            before = LeftOut(key[0], kind, 0, str(reason).partition("\n")[0])
        self._left_out[key] = before._replace(messages=before.messages + count)


_Key = tuple[str, "pa.DataType | None"]
"""The topic of a table, and the type of its column; None for what cannot be decoded."""


def _free_path(folder: Path, topic: str, suffix: str, taken: Collection[Path]) -> Path:
    """Return a path for a table that no other one has: `a/b` and `a.b` have one name."""
    # That of a topic of ROS 2 begins with `/`, and would be hidden.
    name = (
        topic.removeprefix("/")
        .replace("/", ".")
        .replace("\0", "_")
        .encode()[:MAX_NAME]
        .decode(errors="ignore")
    )
    numbers = itertools.count(2)
    path = folder / f"{name}{suffix}"
    while path in taken:
        path = folder / f"{name}_{next(numbers)}{suffix}"
    return path

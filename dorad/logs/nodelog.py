"""The lines of one node: filtered, written to its file, and delivered to others."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from dorad.logrecord import RAW, LogRecord
from dorad.logs.excerpt import MAX_CHARACTERS
from dorad.logs.fileline import encode
from dorad.logs.filter import LogFilter
from dorad.logs.history import History
from dorad.logs.selection import Selection

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from dorad.dataflow.settings import Logging
    from dorad.logs.journal.forward import NodeJournal
    from dorad.logs.logfile import LogFile


class Batch(NamedTuple):
    """Lines of one node that arrived together."""

    node: str
    records: Sequence[LogRecord]
    """The lines that pass `min_log_level`."""
    raw: Sequence[bytes]
    """All lines as the node wrote them, without newlines."""


class NodeLog:
    """The log of one node, over all of its processes."""

    def __init__(
        self,
        node: str,
        logging: Logging,
        file: LogFile,
        sink: Callable[[Batch], None],
        journal: NodeJournal | None = None,
        report: Callable[[LogRecord], None] = lambda record: None,
    ) -> None:
        """`sink` must not block. With `journal`, the file has only the lines that it does not take.

        `report` records a warning about the node if the journal is used.
        """
        self.node = node
        self.logging = logging
        self.file = file
        self.journal = journal
        self.report = report
        self._sink = sink
        level = logging.min_log_level
        self._filter = None if level is None or level == RAW else LogFilter(level)

    def passes(self, record: LogRecord) -> bool:
        """Return True if a record passes `min_log_level`."""
        return self._filter is None or self._filter.passes(record)

    def encode(self, records: Sequence[LogRecord], extra: LogRecord | None) -> list[bytes]:
        """Return the bytes that each record adds to the file, none for one that is filtered out.

        `extra` is added to the last one.
        """
        lines = encode(records)
        if self._filter is not None:
            passes = self._filter.passes
            lines = [
                line if passes(record) else b"" for line, record in zip(lines, records, strict=True)
            ]
        if extra is not None:
            lines[-1] += encode([extra])[0]
        return lines

    def deliver(self, records: Sequence[LogRecord], raw: Sequence[bytes]) -> None:
        """Deliver lines that have just been written."""
        if self._filter is not None:
            records = [record for record in records if self._filter.passes(record)]
        self._sink(Batch(self.node, records, raw))

    def last_errors(self, count: int, until: float | None = None) -> list[str]:
        """Return the beginnings of the last `count` lines on stderr, oldest first.

        Lines later than `until` (seconds since 1970) are left out. May be called in another thread.
        """
        selection = Selection(frozenset([self.node]), until=until, stream="stderr")
        past = None if self.journal is None else self.journal.past(selection)
        try:
            with History(self.file.path.parent, [self.node], selection, past) as history:
                records = [record for block in history.blocks(count) for record in block.records]
        except OSError:
            return []  # unreadable: the report goes without them
        return [record.message[:MAX_CHARACTERS] for record in records]

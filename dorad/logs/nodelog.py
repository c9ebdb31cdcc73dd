"""What happens to the lines of one node: its filter, its file, and who else gets them."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from dorad.logs.fileline import encode
from dorad.logs.filter import LogFilter
from dorad.logs.history import History
from dorad.logs.record import RAW
from dorad.logs.selection import Selection

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from dorad.dataflow.model import Logging
    from dorad.logs.journal.forward import NodeJournal
    from dorad.logs.logfile import LogFile
    from dorad.logs.record import LogRecord


class Batch(NamedTuple):
    """Lines of one node that came together."""

    node: str
    records: Sequence[LogRecord]
    """Those that `min_log_level` lets through."""
    raw: Sequence[bytes]
    """All of them as the node wrote them, without newlines."""


class NodeLog:
    """The log of one node, over all of its processes."""

    def __init__(
        self,
        node: str,
        logging: Logging,
        file: LogFile,
        sink: Callable[[Batch], None],
        journal: NodeJournal | None = None,
        say: Callable[[LogRecord], None] = lambda record: None,
    ) -> None:
        """`sink` must not block. With `journal`, the file has only what that does not take.

        `say` records what there is to say about the node, where the journal is used.
        """
        self.node = node
        self.logging = logging
        self.file = file
        self.journal = journal
        self.say = say
        self._sink = sink
        level = logging.min_log_level
        self._filter = None if level is None or level == RAW else LogFilter(level)

    def passes(self, record: LogRecord) -> bool:
        """Whether `min_log_level` lets a record through."""
        return self._filter is None or self._filter.passes(record)

    def encode(self, records: Sequence[LogRecord], extra: LogRecord | None) -> list[bytes]:
        """Return what each record adds to the file, nothing for one that is filtered out.

        `extra` goes along with the last one.
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
        """Pass on what has just been written."""
        if self._filter is not None:
            records = [record for record in records if self._filter.passes(record)]
        self._sink(Batch(self.node, records, raw))

    def last_errors(self, count: int, until: float | None = None) -> list[str]:
        """Return the last lines on stderr that were written so far, oldest first.

        `until` is in seconds since 1970: later ones are left out. May be called in another thread.
        """
        selection = Selection(frozenset([self.node]), until=until, stream="stderr")
        past = None if self.journal is None else self.journal.past(selection)
        try:
            with History(self.file.path.parent, [self.node], selection, past) as history:
                found = [record for block in history.blocks(count) for record in block]
        except OSError:
            return []  # they cannot be read; the report goes without
        return [record.message for record in found]

"""The log of a dataflow up to one moment, from files and journal, as one sequence."""

from __future__ import annotations

import heapq
from functools import partial
from itertools import islice
from operator import itemgetter
from typing import TYPE_CHECKING, Self

from dorad.logrecord import LogRecord, in_blocks
from dorad.logs.hub import Lines
from dorad.logs.parts import Part, close_parts, open_parts, records, records_backwards
from dorad.logs.paths import DAEMON, files_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from dorad.logs.journal.reader import JournalPast
    from dorad.logs.selection import Selection

BLOCK = 500
"""Maximum number of records per block."""

BLOCK_CHARACTERS = 1 << 22
"""Maximum number of characters in a block of several records."""

TAIL_CHARACTERS = 1 << 24
"""Maximum number of characters in the newest records, which are all in memory."""

_SLACK_S = 60.0
"""How far the times in one file may go backwards: nodes have different clocks."""


class History:
    """The open log files of some nodes, each up to its present end. Use it as a context manager."""

    def __init__(
        self,
        folder: Path,
        nodes: Iterable[str],
        selection: Selection,
        journal: JournalPast | None = None,
    ) -> None:
        """Open the files of the selected `nodes`, and the daemon's.

        `journal` is the dataflow's part of the journal, if used; it is owned.

        Raises:
            OSError: a file may not be read.
        """
        self.selection = selection
        self._journal = journal
        self.parts: dict[str, list[Part]] = {}
        """Parts by node, oldest first."""
        nodes = [*nodes]
        for node in nodes:
            if not selection.nodes or node in selection.nodes:
                self.parts[node] = open_parts(partial(files_of, folder, node, nodes))
        self.parts[DAEMON] = open_parts(partial(files_of, folder, DAEMON))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the files. Idempotent."""
        for parts in self.parts.values():
            close_parts(parts)
        self.parts.clear()
        if self._journal is not None:
            self._journal.close()

    def blocks(self, tail: int | None = None) -> Iterator[Lines]:
        """Yield the selected records by time, oldest first; with `tail`, only that many at the end.

        The lines of one node stay in the order in which it wrote them, even if their times differ.

        Raises:
            OSError: a file, or the journal, cannot be read.
        """
        if tail is None:
            selected = filter(self.selection.passes, self._merged())
            yield from map(Lines, in_blocks(selected, BLOCK, BLOCK_CHARACTERS))
            return
        left_out, lines = self._last(tail)
        for block in in_blocks(lines, BLOCK, BLOCK_CHARACTERS):
            yield Lines(block, left_out)
            left_out = 0

    def _merged(self) -> Iterator[LogRecord]:
        since = self.selection.since
        sources = []
        for parts in self.parts.values():
            recent = [p for p in parts if since is None or p.changed >= since - _SLACK_S]
            sources.append(_rising(records(recent)))
        if self._journal is not None:
            sources.append(_rising(self._journal.forwards()))
        return map(itemgetter(1), heapq.merge(*sources, key=itemgetter(0)))

    def _last(self, count: int) -> tuple[int, list[LogRecord]]:
        """Return the last records, and how many of them are left out at the beginning."""
        newest = map(records_backwards, self.parts.values())
        sources = [_falling(self._recent(each)) for each in newest]
        if self._journal is not None:
            sources.append(_falling(self._recent(self._journal.backwards())))
        newest_first = heapq.merge(*reversed(sources), key=itemgetter(0), reverse=True)
        selected = filter(self.selection.passes, map(itemgetter(1), newest_first))
        blocks = in_blocks(islice(selected, count), count, TAIL_CHARACTERS)
        kept = next(blocks, [])
        return sum(map(len, blocks)), kept[::-1]

    def _recent(self, newest_first: Iterator[LogRecord]) -> Iterator[LogRecord]:
        since = self.selection.since
        for record in newest_first:
            if since is not None and record.timestamp < since - _SLACK_S:
                return
            yield record


def _rising(source: Iterator[LogRecord]) -> Iterator[tuple[float, LogRecord]]:
    newest = 0.0
    for record in source:
        newest = max(newest, record.timestamp)
        yield newest, record


def _falling(source: Iterator[LogRecord]) -> Iterator[tuple[float, LogRecord]]:
    oldest = float("inf")
    for record in source:
        oldest = min(oldest, record.timestamp)
        yield oldest, record

"""What the log files of a dataflow held at one moment, as one sequence of records."""

from __future__ import annotations

import heapq
from functools import partial
from itertools import islice
from operator import itemgetter
from typing import TYPE_CHECKING

from dorad.logs.parts import Part, close_parts, open_parts, records, records_backwards
from dorad.logs.paths import DAEMON, files_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path
    from typing import Self

    from dorad.logs.record import LogRecord
    from dorad.logs.selection import Selection

BLOCK = 500
"""Records given out at a time, at most."""

_SLACK_S = 60.0
"""Nodes have clocks of their own: how far the times in one file may go backwards."""


class History:
    """The files of some nodes, open, each up to where it reached. Use it as a context manager."""

    def __init__(self, folder: Path, nodes: Iterable[str], selection: Selection) -> None:
        """Open the files of those of `nodes` that are selected, and the daemon's.

        Raises:
            OSError: a file may not be read.
        """
        self.selection = selection
        self.parts: dict[str, list[Part]] = {}
        """By node, oldest first."""
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

    def blocks(self, tail: int | None = None) -> Iterator[list[LogRecord]]:
        """Yield the selected records by time, oldest first; with `tail` only the last ones.

        The lines of one node stay in the order in which it wrote them, whatever times it says.
        """
        if tail is not None:
            found = self._last(tail)
            yield from (found[at : at + BLOCK] for at in range(0, len(found), BLOCK))
            return
        selected = filter(self.selection.passes, self._merged())
        while block := list(islice(selected, BLOCK)):
            yield block

    def _merged(self) -> Iterator[LogRecord]:
        since = self.selection.since
        sources = []
        for parts in self.parts.values():
            recent = [p for p in parts if since is None or p.changed >= since - _SLACK_S]
            sources.append(_rising(records(recent)))
        return map(itemgetter(1), heapq.merge(*sources, key=itemgetter(0)))

    def _last(self, count: int) -> list[LogRecord]:
        sources = [_falling(self._backwards(parts)) for parts in self.parts.values()]
        newest_first = heapq.merge(*reversed(sources), key=itemgetter(0), reverse=True)
        selected = filter(self.selection.passes, map(itemgetter(1), newest_first))
        return list(islice(selected, count))[::-1]

    def _backwards(self, parts: Sequence[Part]) -> Iterator[LogRecord]:
        since = self.selection.since
        for record in records_backwards(parts):
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

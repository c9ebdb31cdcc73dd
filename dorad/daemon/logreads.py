"""Read a dataflow's log for a client: stored lines first, then live ones."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from dorad.control.errors import ControlError
from dorad.control.messages import LogLines, LogRead
from dorad.logrecord import in_blocks
from dorad.logs.find import Found
from dorad.logs.history import History
from dorad.logs.journal.reader import JournalError, JournalPast
from dorad.logs.paths import DAEMON
from dorad.logs.selection import Selection, select

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator, Sequence
    from pathlib import Path

    from dorad.logs.dataflowlog import DataflowLog
    from dorad.logs.hub import Follower, Lines

_log = logging.getLogger(__name__)

FRAME = 256 << 10
"""Maximum number of characters in a frame of several lines."""
FRAME_LINES = 500


async def read_logs(
    wanted: LogRead, uuid: str, folder: Path, log: DataflowLog | None
) -> AsyncIterator[LogLines]:
    """Yield the selected lines, oldest first. `log` is None for a dataflow that has ended.

    With `follow`, live lines continue exactly after the stored ones, until the dataflow ends.

    Raises:
        ControlError: the request is invalid, or the files are missing or unreadable.
    """
    _log.debug("dataflow %s: read logs, %s, running: %s", uuid, wanted, log is not None)
    selection = _selection(wanted, log, folder)
    try:
        history, follower = _open(wanted, uuid, folder, log, selection)
    except OSError as error:
        raise ControlError("refused", f"cannot read a log file: {error}") from error
    try:
        blocks = history.blocks(wanted.tail)
        while block := await asyncio.to_thread(_next, blocks):
            for frame in _frames(uuid, block):
                yield frame
        history.close()
        if follower is not None:
            async for lines in follower:
                for frame in _frames(uuid, lines):
                    yield frame
    finally:
        history.close()
        if follower is not None:
            follower.close()


def _next(blocks: Iterator[Lines]) -> Lines | None:
    try:
        return next(blocks, None)
    except JournalError as error:
        raise ControlError("refused", str(error)) from error


def _open(
    wanted: LogRead, uuid: str, folder: Path, log: DataflowLog | None, selection: Selection
) -> tuple[History, Follower | None]:
    if log is not None:
        return log.follow(selection) if wanted.follow else (log.history(selection), None)
    if not folder.is_dir():
        raise ControlError("not-found", f"the log files of {uuid} no longer exist: {folder}")
    place = Found.at(folder)
    sender = place.sender
    past = None if sender is None else JournalPast(uuid, selection, sender)
    return History(folder, place.nodes, selection, past), None


def _nodes(log: DataflowLog | None, folder: Path) -> Sequence[str]:
    return Found.at(folder).nodes if log is None else log.nodes


def _selection(wanted: LogRead, log: DataflowLog | None, folder: Path) -> Selection:
    if wanted.tail is not None and wanted.tail < 0:
        raise ControlError("bad-request", f"tail is {wanted.tail}, but must be a number of lines")
    if wanted.machine is not None:
        raise ControlError(
            "bad-request",
            f"this is a daemon, not a coordinator: it knows no machine {wanted.machine!r}",
            "leave out --machine, or choose a coordinator with --coordinator-addr",
        )
    known = _nodes(log, folder)
    for node in wanted.nodes:
        if node not in known and node != DAEMON:
            names = ", ".join(known) or "none"
            raise ControlError("not-found", f"there is no node '{node}'; there are: {names}")
    try:
        return select(
            wanted.nodes,
            level=wanted.level,
            by_node=wanted.by_node,
            since=wanted.since,
            until=wanted.until,
            grep=wanted.grep,
        )
    except ValueError as error:
        raise ControlError("bad-request", str(error)) from error


def _frames(uuid: str, lines: Lines) -> Iterator[LogLines]:
    """Split lines into frames of bounded size."""
    left_out = lines.left_out
    for block in in_blocks(lines.records, FRAME_LINES, FRAME):
        yield LogLines(dataflow=uuid, lines=block, left_out=left_out)
        left_out = 0
    if left_out:
        yield LogLines(dataflow=uuid, lines=[], left_out=left_out)

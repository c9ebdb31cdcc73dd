"""The log lines that a screen keeps: those that come, and stored ones that it is asked for."""

import asyncio
import logging
import time
from collections.abc import Sequence
from typing import Any

from dorad.control.asyncclient import AsyncClient, AsyncStream
from dorad.control.errors import ControlError
from dorad.control.logposition import LogPosition, corrected_time
from dorad.control.messages import LogLines, LogRecord
from dorafleet.console.link.server import Server
from dorafleet.console.model.logwindow import MAX_LINES, Entry, LogWindow
from dorafleet.console.view.loglines import shortened

TAIL = 1000
"""Stored lines that are read at a time."""
READ_S = 20.0
"""Seconds that the server has to find stored lines."""
MOMENT_S = 0.001
"""The shortest time between two lines that have different times."""

_log = logging.getLogger(__name__)


class KeptLines:
    """The lines of a dataflow, or of some of its nodes: a part of all that are stored.

    Methods that read raise ControlError and OSError.
    """

    def __init__(self, server: Server, dataflow: str | None, nodes: Sequence[str]) -> None:
        self._server = server
        self._dataflow = dataflow
        self._nodes = nodes
        self._waiting: list[LogRecord] = []
        self._position = LogPosition(self.time_of)
        """Where a lost stream continues."""
        self.window = LogWindow()
        self.left_out = 0
        self.skew: dict[str, float] = {}
        """Seconds that the clocks of robots are ahead, of those that are off."""
        self.asked_at: float | None = None
        self.begins = False
        """Whether no line is older than those that are kept."""
        self.newer: int | None = None
        """Lines that are newer than those that are kept; None if these are the newest."""

    def time_of(self, line: LogRecord) -> float:
        """Return when a line was written, by the clock of the server."""
        return corrected_time(line, self.skew.get(line.machine or "", 0.0))

    def opened(self, client: AsyncClient) -> AsyncStream[LogLines]:
        """Request the last lines, or those since a stream was lost, and then new ones."""
        self.asked_at = self.asked_at or time.time()
        since = self._position.resume()
        tail = TAIL if since is None else None
        return client.logs(self._dataflow, nodes=self._nodes, since=since, tail=tail, follow=True)

    def take(self, lines: LogLines) -> None:
        """Take what a stream brings; `arrived` adds it."""
        self.left_out += lines.left_out
        self.skew = lines.skew
        fresh = self._position.take(lines.lines)
        if self.newer is not None:
            self.newer += len(fresh)
        else:
            self._waiting += map(shortened, fresh)
            # Those before would never be seen.
            del self._waiting[:-MAX_LINES]

    def arrived(self) -> tuple[list[Entry], bool]:
        """Add the lines that have come; return those that repeat none, and whether one repeats."""
        lines, self._waiting = self._waiting, []
        last = self.window.entries[-1] if self.window.entries else None
        count = 0 if last is None else last.count
        fresh = self.window.add(lines)
        if len(self.window.entries) == MAX_LINES and fresh:
            self.begins = False
        return fresh, last is not None and last.count != count

    def forget(self) -> None:
        """Keep nothing; the next stream begins with the last lines."""
        self.window.clear()
        self._waiting, self.newer, self.begins = [], None, False
        self._position = LogPosition(self.time_of)

    async def _read(self, limit: int = MAX_LINES, **wanted: Any) -> list[LogRecord]:
        """Return the first stored lines that are `wanted`."""
        _log.debug("read stored lines: %s", wanted)
        lines: list[LogRecord] = []
        client = await self._server.connect()
        try:
            async with (
                asyncio.timeout(READ_S),
                client.logs(self._dataflow, nodes=self._nodes, **wanted) as blocks,
            ):
                async for block in blocks:
                    lines += map(shortened, block.lines)
                    if len(lines) >= limit:
                        break
        except TimeoutError:
            raise ControlError("unavailable", f"no answer in {READ_S:g} s") from None
        finally:
            await client.close()
        return lines[:limit]

    async def read_older(self) -> list[Entry]:
        """Add older lines; the newest ones beyond the limit go."""
        window = self.window
        older = await self._read(until=self.time_of(window.entries[0].record), tail=TAIL)
        fresh = window.add_before(window.unknown(older))
        self.begins = len(older) < TAIL or not fresh
        if len(window.entries) == MAX_LINES and fresh and self.newer is None:
            self.newer = 0  # the newest have been given up
        return fresh

    async def read_newer(self) -> list[Entry] | None:
        """Add newer lines; return None, and add none, if so few are left that a stream has them."""
        window = self.window
        lines = await self._read(TAIL, since=self.time_of(window.entries[-1].record))
        if len(lines) < TAIL:
            return None
        fresh = window.add(window.unknown(lines))
        self.begins = self.begins and len(window.entries) < MAX_LINES
        return fresh

    async def entry_at(self, at: float) -> Entry | None:
        """Return the first line from a time on, or the last one before; None if none is stored.

        If it is not kept, the lines around it are, instead of those before.
        """
        window = self.window
        place = window.place_of(at, self.time_of)
        if place is None:
            before = await self._read(until=at, tail=TAIL // 2)
            after = await self._read(TAIL // 2, since=at)
            if not (before or after):
                return None
            window.clear()
            window.add(after)
            window.add_before(window.unknown(before))
            self._waiting, self.newer, self.begins = [], 0, not before
            place = window.place_of(at, self.time_of)
        return window.entries[-1 if place is None else place]

    async def time_with(self, text: str, step: int) -> float | None:
        """Return when a text comes next beyond the lines that are kept, or came last before them.

        `step` is negative for before. None if no line has it.
        """
        entries = self.window.entries
        if step < 0:
            until = self.time_of(entries[0].record) - MOMENT_S
            lines = await self._read(until=until, tail=1, grep=text)
        else:
            since = self.time_of(entries[-1].record) + MOMENT_S
            lines = await self._read(1, since=since, grep=text)
        return self.time_of(lines[-1]) if lines else None

"""Screen Logs: the lines of a dataflow or a node, from all its robots, as they come."""

from __future__ import annotations

import time
from collections import deque
from typing import TYPE_CHECKING, Any

from dorad import logrecord
from dorad.control.logposition import LogPosition, corrected_time
from dorad.terminal import local_time
from dorafleet.console.link.streams import Feed
from dorafleet.console.model.targets import Target
from dorafleet.console.screens.base import ConsoleScreen
from dorafleet.console.view import loglines, words
from dorafleet.console.view.bars import Crumbs
from dorafleet.console.widgets.lines import MAX_LINES, Canvas, LogView

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from textual.widget import Widget

    from dorad.control.asyncclient import AsyncClient, AsyncStream
    from dorad.control.messages import LogLines, LogRecord
    from dorafleet.console.view.rows import Span

TAIL = 1000
"""Stored lines that are read first."""
MAX_NAME = 16
ANSWER_S = 5.0
"""Seconds after which no line means that nothing is logged."""


class LogsScreen(ConsoleScreen):
    """Log lines."""

    NAME = "logs"
    FILTER_KEYS = logrecord.FILTER_KEYS
    AUTO_FOCUS = "LogView"

    def __init__(self, dataflow: str | None, node: str | None) -> None:
        super().__init__()
        self.dataflow = dataflow
        self.node = node
        self._kept: deque[LogRecord] = deque(maxlen=MAX_LINES)
        self._waiting: list[LogRecord] = []
        self._left_out = 0
        self._position = LogPosition(self._written_at)
        """Where a lost stream continues."""
        self._skew: dict[str, float] = {}
        """Seconds that the clocks of robots are ahead, of those that are off."""
        self._asked_at: float | None = None
        self._names = 4
        self._machines = 0
        self._span: tuple[float, float] | None = None
        """The times of the oldest and of the newest line."""
        self._dated = False
        """Whether lines show their date."""

    @classmethod
    def about(cls, words: Sequence[str]) -> ConsoleScreen | str:
        """Return the screen about a dataflow, and a node of it."""
        if len(words) > 2:
            return "name a dataflow and a node: `logs pick gripper`"
        return cls(*(*words, None, None)[:2])

    def again(self) -> ConsoleScreen:
        """Return a new screen that shows the same."""
        return LogsScreen(self.dataflow, self.node)

    def body(self) -> Iterable[Widget]:
        """Return what is wrong with clocks, and the lines."""
        yield Canvas(id="facts", classes="auto")
        yield LogView(self._spans)

    def streams(self) -> list[Feed[Any]]:
        """Read the last lines, then follow."""
        return [Feed(self.server, self._opened, self._take)]

    @property
    def subject(self) -> tuple[str | None, ...]:
        """Whose lines these are."""
        return self.dataflow, self.node

    def _written_at(self, line: LogRecord) -> float:
        """Return when a line was written, by the clock of the server."""
        return corrected_time(line, self._skew.get(line.machine or "", 0.0))

    def _opened(self, client: AsyncClient) -> AsyncStream[LogLines]:
        self._asked_at = self._asked_at or time.time()
        nodes = [self.node] if self.node else []
        since = self._position.resume()
        if since is not None:
            return client.logs(self.dataflow, nodes=nodes, since=since, follow=True)
        return client.logs(self.dataflow, nodes=nodes, tail=TAIL, follow=True)

    def _take(self, lines: LogLines) -> None:
        self._left_out += lines.left_out
        self._skew = lines.skew
        self._waiting += map(loglines.shortened, self._position.take(lines.lines))
        if len(self._waiting) > MAX_LINES:
            # They would never be seen.
            del self._waiting[:-MAX_LINES]
        self.bring()

    def on_filter(self) -> None:
        """Filter what is kept once more."""
        now = time.time()
        lines = [line for line in self._kept if self._passes(line, now)]
        self.query_one(LogView).replace(lines)

    def _passes(self, line: LogRecord, now: float) -> bool:
        its_now = now + self._skew.get(line.machine or "", 0.0)
        return not self.filter or self.filter.matches(logrecord.filter_cells(line, its_now))

    def paint(self, now: float) -> None:
        """Show the lines that have come, or why there are none."""
        view = self.query_one(LogView)
        lines, self._waiting = self._waiting, []
        self._kept.extend(lines)
        for line in lines:
            self._names = max(self._names, min(MAX_NAME, len(line.node or "")))
            self._machines = max(self._machines, min(MAX_NAME, len(line.machine or "")))
            first, last = self._span or (line.timestamp, line.timestamp)
            self._span = min(first, line.timestamp), max(last, line.timestamp)
        dated = self._span is not None and not loglines.are_of_today(self._span, now)
        if dated != self._dated:
            self._dated = dated
            view.refresh()
        view.add([line for line in lines if self._passes(line, now)])
        view.explain(self._why_empty(now))
        self.query_one("#facts", Canvas).show(loglines.clocks(self._skew))

    def _why_empty(self, now: float) -> str:
        """Return why no line is shown."""
        if self._kept:
            hidden = words.counted(len(self._kept), "line")
            return f"the filter hides {hidden} (esc removes it)"
        if self.feeds.paused:
            return "paused before a line came (p resumes)"
        if self.outdated or self._asked_at is None or now < self._asked_at + ANSWER_S:
            return self.empty_text("line", known=False)
        at = local_time(self._asked_at, "%H:%M:%S")
        return f"nothing is logged yet: asked at {at}, new lines appear here"

    def _spans(self, line: LogRecord) -> list[Span]:
        return loglines.spans(line, names=self._names, machines=self._machines, dated=self._dated)

    def crumbs(self) -> Crumbs:
        """Return the title, with the origin of the lines."""
        path = " > ".join(["Logs", self.dataflow or "all", *([self.node] if self.node else [])])
        view = self.query_one(LogView)
        notes = [f"from column {view.left + 1} (left scrolls back)"] if view.left else []
        notes += [] if view.following else ["scrolled up (end follows)"]
        if not view.following and not view.top and len(self._kept) >= TAIL:
            notes = ["y copies the command that prints older lines (end follows)"]
        amount = words.counted(len(self._kept), "line")
        if self.filter:
            amount = f"{view.count} of {amount}"
        if self._left_out:
            amount += f", {self._left_out} left out"
        return Crumbs(path, amount=amount, note=", ".join(notes))

    def target(self) -> Target:
        """Return the node whose lines these are."""
        title = "/".join(filter(None, (self.dataflow, self.node)))
        return Target(self.dataflow or "", self.node or "", title=title)

    def argv(self) -> Sequence[str]:
        """Return the command that prints the same."""
        words = ["dora", "logs"]
        if self.dataflow:
            words.append(self.dataflow)
        words += ["--node", self.node] if self.node else ["--all-nodes"]
        if self.filter:
            words += ["--filter", self.filter.text]
        return [*words, "--follow"]

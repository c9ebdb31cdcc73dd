"""Screen Trace: the messages that took longest, and where the time of one went."""

import logging
from collections.abc import Iterable, Sequence
from typing import Any

from textual.widget import Widget

from dorad.control.errors import ControlError
from dorad.control.messages import (
    TRACE_LIST,
    TRACE_PATHS,
    Trace,
    TraceList,
    TracePath,
    TracePathQuery,
    TracePaths,
    TraceQuery,
)
from dorafleet.console.link.streams import Feed, polling
from dorafleet.console.model.targets import Target
from dorafleet.console.screens.base import ConsoleScreen
from dorafleet.console.view import tracerows, words
from dorafleet.console.view.bars import Crumbs
from dorafleet.console.view.rows import Span
from dorafleet.console.widgets.grid import Grid
from dorafleet.console.widgets.lines import Canvas

EVERY_S = 3.0
LIMIT = 200
"""Traces that the server sends."""
MAX_WHOLE = 50
"""Traces that are kept with their spans."""

_log = logging.getLogger(__name__)


class TraceScreen(ConsoleScreen):
    """Traces of messages of one dataflow, or of all."""

    NAME = "trace"
    ORDERS = ("slowest", "newest")
    FILTER_KEYS = tracerows.KEYS
    AUTO_FOCUS = "Grid"

    def __init__(self, dataflow: str | None, through: Sequence[str] = ()) -> None:
        super().__init__()
        self.dataflow, self.through = dataflow, through
        self._listed: TraceList | None = None
        self._paths: dict[tuple[str | None, str, str], TracePath] = {}
        self._shown: dict[str, Trace] = {}
        self._whole: dict[str, Trace | str] = {}
        """Traces with their spans, or why they cannot be shown, by the id of their rows."""
        self._asked: set[str] = set()
        """Those that were asked for since the last list."""
        self._alone = False
        """Whether the waterfall has the whole screen."""

    @classmethod
    def about(cls, words: Sequence[str]) -> ConsoleScreen | str:
        """Return the screen about a dataflow and what its messages pass, or about all."""
        return cls(words[0] if words else None, words[1:])

    def again(self) -> ConsoleScreen:
        """Return a new screen that shows the same."""
        return TraceScreen(self.dataflow, self.through)

    @property
    def subject(self) -> tuple[str | None, ...]:
        """The dataflow, and what the messages pass."""
        return (self.dataflow, *self.through)

    def body(self) -> Iterable[Widget]:
        """Return the list, and below it the waterfall of the trace under the cursor."""
        yield Grid(tracerows.COLUMNS, ascii_only=self.ascii_only, id="traces")
        yield Canvas(id="content", focusable=True)

    def streams(self) -> list[Feed[Any]]:
        """Ask for traces and paths again and again."""
        through = list(self.through)
        wanted = TraceQuery(
            dataflow=self.dataflow, through=through, slow=self.order == "slowest", limit=LIMIT
        )
        paths = TracePathQuery(dataflow=self.dataflow, through=through)
        return [
            polling(self.server, TRACE_LIST, wanted, EVERY_S, self._take),
            polling(self.server, TRACE_PATHS, paths, EVERY_S, self._take_paths),
        ]

    def _take(self, listed: TraceList) -> None:
        self._listed = listed
        self._asked.clear()
        self.bring()

    def _take_paths(self, told: TracePaths) -> None:
        self._paths = {(each.machine, each.dataflow, each.path): each for each in told.paths}
        self.bring()

    def on_order(self) -> None:
        """Let the server choose."""
        self.feeds.restart()

    def crumbs(self) -> Crumbs:
        """Return the title, and what the traces lack."""
        path = " > ".join(filter(None, ("Trace", self.dataflow or "", *self.through)))
        listed = self._listed
        if listed is None:
            return Crumbs(path)
        total = len(listed.traces) + listed.left_out
        lost = tracerows.losses(listed.counts)
        notes = filter(None, (words.no_answer(listed.missing), lost))
        return Crumbs(path, amount=f"{len(self._shown)} of {total}", note="; ".join(notes))

    def paint(self, now: float) -> None:
        """Show the list, and the trace under the cursor."""
        del now
        listed = self._listed
        traces = [] if listed is None else listed.traces
        self._shown = {
            tracerows.trace_id(each): each
            for each in traces
            if self.filter.matches(tracerows.cells(each))
        }
        grid = self.query_one("#traces", Grid)
        machines = {each.machine or "" for each in traces}
        grid.leave_out(*(() if len(machines) > 1 else ("robot",)))
        grid.widen(robot=words.longest(machines))
        grid.show(
            list(self._shown),
            lambda id_: tracerows.row(self._shown[id_], ascii_only=self.ascii_only),
            dim=self.outdated,
            empty=self.empty_text("trace", known=listed is not None),
        )
        self.query_one("#content", Canvas).show(self._waterfall(grid.cursor))

    def _waterfall(self, id_: str | None) -> list[list[Span]]:
        trace = self._shown.get(id_ or "")
        if trace is None or id_ is None:
            return []
        whole = self._whole.get(id_)
        final = isinstance(whole, Trace) and not whole.running
        if not final and not self.stale and id_ not in self._asked:
            self._asked.add(id_)
            self.console.in_background(self._read(id_, trace))
        if whole is None:
            return [[(" asking the server", "dim")]]
        if isinstance(whole, str):
            return [[(f" {whole}", "warn")]]
        path = self._paths.get((trace.machine, trace.dataflow, trace.path))
        return tracerows.waterfall(whole, path, self.size.width, ascii_only=self.ascii_only)

    async def _read(self, id_: str, trace: Trace) -> None:
        """Get the spans of a trace."""
        named = self.server.named(trace.machine, trace.dataflow_name or trace.dataflow)
        wanted = TraceQuery(dataflow=named, id=trace.id, spans=True, limit=LIMIT)
        whole: Trace | str
        try:
            answer = await self.server.call(TRACE_LIST, wanted)
        except ControlError as error:
            _log.debug("no trace %s: %s", trace.id, error)
            whole = error.message
        else:
            whole = "this trace is no longer kept"
            for each in answer.traces:
                if each.machine in (None, trace.machine) and each.id == trace.id:
                    whole = each
        self._whole.pop(id_, None)
        self._whole[id_] = whole
        if len(self._whole) > MAX_WHOLE:
            del self._whole[next(iter(self._whole))]
        self.bring()

    def target(self) -> Target:
        """Return the dataflow of the trace under the cursor, and where its longest way ended."""
        trace = self._shown.get(self.query_one("#traces", Grid).cursor or "")
        if trace is None:
            return Target(self.dataflow or "")
        named = self.server.named(trace.machine, trace.dataflow_name or trace.dataflow)
        node = tracerows.last_node(trace)
        title = "/".join(filter(None, (named, node)))
        return Target(named, node, trace.machine or "", title=title)

    def can_open(self) -> bool:
        """Return True if there is a waterfall that has not the whole screen."""
        return bool(self._shown) and not self._alone

    def open_chosen(self) -> None:
        """Give the waterfall the whole screen, where the arrow keys scroll it."""
        self._give_room(alone=True)

    def action_back(self) -> None:
        """Show the list again, then as on other screens."""
        if self._alone:
            self._give_room(alone=False)
        else:
            super().action_back()

    def _give_room(self, *, alone: bool) -> None:
        self._alone = alone
        grid, canvas = self.query_one("#traces", Grid), self.query_one("#content", Canvas)
        grid.display = not alone
        self.set_focus(canvas if alone else grid)
        self.repaint()

    def argv(self) -> Sequence[str]:
        """Return the command that prints the same list, or the same waterfall."""
        trace = self._shown.get(self.query_one("#traces", Grid).cursor or "")
        if self._alone and trace is not None:
            named = self.server.named(trace.machine, trace.dataflow_name or trace.dataflow)
            return ("dora", "trace", "view", trace.id[: tracerows.SHORT_ID], "-d", named)
        argv = ["dora", "trace", "list", *(["--slow"] if self.order == "slowest" else [])]
        argv += ["-d", self.dataflow] if self.dataflow else []
        return argv + [word for each in self.through for word in ("--through", each)]

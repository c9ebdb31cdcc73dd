"""Screen Logs: the lines of a dataflow or of some nodes, from all robots, as they come."""

import logging
import time
from collections.abc import Coroutine, Iterable, Sequence
from functools import cached_property
from typing import Any, ClassVar

from textual.binding import BindingType
from textual.css.query import NoMatches
from textual.widget import Widget

from dorad import logrecord
from dorad.control.errors import ControlError
from dorad.control.messages import LogLines
from dorad.terminal import local_time, visible
from dorafleet.console.link.keptlines import KeptLines
from dorafleet.console.link.streams import Feed
from dorafleet.console.model.logwindow import Entry, moment_of
from dorafleet.console.model.places import MAX_NODES
from dorafleet.console.model.targets import Target
from dorafleet.console.screens.base import ConsoleScreen
from dorafleet.console.screens.workingkeys import in_order
from dorafleet.console.view import loglines, words
from dorafleet.console.view.bars import Crumbs
from dorafleet.console.view.loglines import LineLook
from dorafleet.console.widgets.lines import Canvas, LogView

MAX_NAME = 16
MAX_COPIED = 70_000
"""Characters for the clipboard; terminals take about as many."""
ANSWER_S = 5.0
"""Seconds after which no line means that nothing is logged."""

_log = logging.getLogger(__name__)


class LogsScreen(ConsoleScreen):
    """Log lines."""

    NAME = "logs"
    FILTER_KEYS = logrecord.FILTER_KEYS
    AUTO_FOCUS = "LogView"
    MARKS = True
    BINDINGS: ClassVar[list[BindingType]] = in_order(
        ("slash", "find", "find"),
        ("ampersand", "filter", "filter"),
        ("n", "match(1)", "next"),
        ("N", "match(-1)", "the one before"),
        ("c", "copy_lines", "copy"),
        ("s", "beside", "side by side"),
    )

    def __init__(self, dataflow: str | None = None, *nodes: str) -> None:
        super().__init__()
        self.dataflow = dataflow
        self.nodes = nodes
        self._look = LineLook(names=4, beside=nodes if len(nodes) > 1 else ())
        self._needle = ""
        """The text that is searched for, in lower case."""
        self._place: tuple[Entry | None, str] = (None, "")
        """The line under the cursor, None for following, and the text before a search."""
        self._loading = False
        self._detailed = False

    @classmethod
    def about(cls, words: Sequence[str]) -> ConsoleScreen | str:
        """Return the screen about a dataflow, and nodes of it."""
        if len(words) > MAX_NODES + 1:
            return f"name a dataflow and at most {MAX_NODES} nodes: `logs pick camera gripper`"
        return cls(*words)

    def again(self) -> ConsoleScreen:
        """Return a new screen that shows the same."""
        return LogsScreen(self.dataflow, *self.nodes)

    def body(self) -> Iterable[Widget]:
        """Return what is wrong with clocks, the lines, and one of them in full."""
        yield Canvas(id="facts", classes="auto")
        yield LogView(lambda entry: loglines.spans(entry, self._look))
        yield Canvas(id="details", classes="auto")

    def streams(self) -> list[Feed[Any]]:
        """Read the last lines, then follow."""
        return [Feed(self.server, self._kept.opened, self._take)]

    @property
    def subject(self) -> tuple[str | None, ...]:
        """Whose lines these are."""
        return self.dataflow, *self.nodes

    @property
    def _view(self) -> LogView:
        return self.query_one(LogView)

    @cached_property
    def _kept(self) -> KeptLines:
        """The lines of which those are shown that pass the filter."""
        return KeptLines(self.server, self.dataflow, self.nodes)

    def _take(self, lines: LogLines) -> None:
        self._kept.take(lines)
        self.bring()

    def on_filter(self) -> None:
        """Filter what is kept once more, with the cursor where it was."""
        self._show(None if self._view.following else self._view.cursor)

    def _show(self, entry: Entry | None) -> None:
        """Show what is kept, with the cursor on a line or the next one; None follows."""
        now, near = time.time(), None
        passing: list[Entry] = []
        for each in self._kept.window.entries:
            if each is entry:
                near = len(passing)
            if self._passes(each, now):
                passing.append(each)
        self._view.replace(passing, near)

    def _passes(self, entry: Entry, now: float) -> bool:
        if not self.filter:
            return True
        line = entry.record
        its_now = now + self._kept.skew.get(line.machine or "", 0.0)
        cells = logrecord.filter_cells(line, its_now)
        return self.filter.matches({**cells, "since": max(0.0, its_now - entry.last)})

    def paint(self, now: float) -> None:
        """Show the lines that have come, or why there are none."""
        view = self._view
        fresh, repeated = self._kept.arrived()
        self._arrange(now)
        if repeated:
            view.refresh()
        view.add([each for each in fresh if self._passes(each, now)])
        view.explain(self._why_empty(now))
        self.query_one("#facts", Canvas).show(loglines.clocks(self._kept.skew))
        cursor = view.cursor
        shown = [] if cursor is None or not self._detailed else [cursor]
        details = [line for each in shown for line in loglines.details(each, self.size.width)]
        self.query_one("#details", Canvas).show(details)

    def _arrange(self, now: float) -> None:
        """Give the columns the widths that the lines need."""
        window = self._kept.window
        look = self._look._replace(
            names=max(4, min(MAX_NAME, window.nodes)),
            machines=min(MAX_NAME, window.machines),
            dated=not loglines.are_of_today(window.times, now),
            needle=self._needle,
            columns=self.size.width,
        )
        if look != self._look:
            self._look = look
            self._view.refresh()

    def _why_empty(self, now: float) -> str:
        """Return why no line is shown."""
        if self._kept.window.lines:
            hidden = words.counted(self._kept.window.lines, "line")
            return f"the filter hides {hidden} (esc removes it)"
        if self.feeds.paused:
            return "paused before a line came (p resumes)"
        if self.outdated or self._kept.asked_at is None or now < self._kept.asked_at + ANSWER_S:
            return self.empty_text("line", known=False)
        at = local_time(self._kept.asked_at, "%H:%M:%S")
        return f"nothing is logged yet: asked at {at}, new lines appear here"

    def crumbs(self) -> Crumbs:
        """Return the title, with the origin of the lines."""
        path = " > ".join(
            ["Logs", self.dataflow or "all", *([", ".join(self.nodes)] * bool(self.nodes))]
        )
        view = self._view
        notes = [f"from column {view.left + 1} (left scrolls back)"] if view.left else []
        if self._loading:
            notes.append("reading")
        elif self._kept.newer is not None:
            newer = (
                words.counted(self._kept.newer, "newer line")
                if self._kept.newer
                else "not the last lines"
            )
            notes.append(f"{newer} (end shows them)")
        elif not view.following:
            first = view.items and view.cursor is view.items[0]
            notes.append(
                "the first line" if first and self._kept.begins else "scrolled up (end follows)"
            )
        amount = words.counted(self._kept.window.lines, "line")
        if self.filter:
            amount = f"{sum(each.count for each in view.items)} of {amount}"
        if self._kept.left_out:
            amount += f", {self._kept.left_out} left out"
        return Crumbs(path, amount=amount, note=", ".join(notes))

    # What is read beyond the lines that come by themselves.

    def on_log_view_edge(self, event: LogView.Edge) -> None:
        """Read more lines when the operator wants to go beyond those that are kept."""
        event.stop()
        if event.first and not self._kept.begins:
            self._load(self._read_older())
        elif not event.first and self._kept.newer is not None:
            self._load(self._read_newer())

    def _load(self, work: Coroutine[Any, Any, None]) -> None:
        """Read in the background, one thing at a time."""
        if self._loading or not self._kept.window.entries:
            work.close()
            return
        self._loading = True
        self.console.in_background(self._loaded(work))

    async def _loaded(self, work: Coroutine[Any, Any, None]) -> None:
        try:
            await work
        except (ControlError, OSError) as error:
            _log.debug("stored lines cannot be read: %s", error)
            self.report(f"stored lines cannot be read: {error}", "warn")
        except NoMatches:
            if self.composed:
                raise
            _log.debug("the screen was closed before the stored lines came")
        finally:
            self._loading = False
            self.bring()

    async def _read_older(self) -> None:
        fresh, now = await self._kept.read_older(), time.time()
        self._view.add_before([each for each in fresh if self._passes(each, now)])

    async def _read_newer(self) -> None:
        fresh, now = await self._kept.read_newer(), time.time()
        if fresh is None:
            self._follow()
        else:
            self._view.add([each for each in fresh if self._passes(each, now)])

    def _follow(self) -> None:
        """Show the last lines again, and follow."""
        self._kept.forget()
        self._view.replace([])
        self.feeds.paused = False
        self.feeds.restart()

    def action_ends(self, first: bool) -> None:
        """Go to the first line that is kept, or follow the last ones."""
        if not first and self._kept.newer is not None:
            self._follow()
        else:
            super().action_ends(first)

    def take_command(self, text: str) -> bool:
        """Go to a time after `:at`."""
        name, _, rest = text.strip().partition(" ")
        if name != "at":
            return False
        at = moment_of(rest.strip(), time.time())
        if at is None:
            self.report("name a time: `at 10:42`, `at 11-30 10:42:05`, or `at 10m` ago", "warn")
        else:
            self._load(self._go_to(at))
        return True

    async def _go_to(self, at: float) -> None:
        entry = await self._kept.entry_at(at)
        if entry is None:
            self.report("no line of that time is stored", "warn")
        else:
            self._show(entry)

    # Search

    def action_find(self) -> None:
        """Type what is searched for."""
        self._place = None if self._view.following else self._view.cursor, self._needle
        self.prompting.ask_find()

    def on_find(self, text: str, state: str) -> None:
        """Go to the last line with a text, up to where the search began; or back to there."""
        view, (entry, before) = self._view, self._place
        given_up = state == "given-up"
        self._needle = before if given_up else text.lower()
        places = [at for at, each in enumerate(view.items) if each is entry]
        start = places[0] if places else len(view.items) - 1
        if given_up or not self._needle:
            if places:
                view.go(start)
            else:
                view.move_to_end(first=False)
        elif not (view.search(self._has, -1, start) or view.search(self._has, 1, start)):
            self.report(f"no line here has `{text}`; N looks for it in older ones", "warn")
        self.repaint()

    def _has(self, entry: Entry) -> bool:
        return self._needle in entry.record.message.lower()

    def action_match(self, step: int) -> None:
        """Go to the next line with the text, or to the one before."""
        more = not self._kept.begins if step < 0 else self._kept.newer is not None
        if not self._needle:
            self.report("nothing is searched for: / begins", "warn")
        elif not self._view.search(self._has, step):
            if more:
                self._load(self._search_stored(step))
            else:
                self.report(self._none_has(step), "warn")
        self.repaint()

    def _none_has(self, step: int) -> str:
        return f"no {'later' if step > 0 else 'earlier'} line has `{self._needle}`"

    async def _search_stored(self, step: int) -> None:
        """Let the server find the text in lines that are not kept here."""
        at = await self._kept.time_with(self._needle, step)
        if at is None:
            self.report(self._none_has(step), "warn")
            return
        await self._go_to(at)
        items = self._view.items
        start = next((at for at, each in enumerate(items) if each is self._view.cursor), 0)
        self._view.search(self._has, 1, start)

    # Lines

    def can_open(self) -> bool:
        """Return True if there is a line."""
        return self._view.cursor is not None

    def open_chosen(self) -> None:
        """Show the line under the cursor in full, with its fields, or no longer."""
        self._detailed = not self._detailed
        self.repaint()

    def action_mark(self) -> None:
        """Mark the line under the cursor."""
        self._view.toggle_mark()
        self.repaint()

    def action_back(self) -> None:
        """Remove marks, then what is searched for, then the filter, then go back."""
        view = self._view
        if view.marks:
            view.marks.clear()
            view.refresh()
        elif self._needle:
            self._needle = ""
        else:
            super().action_back()
            return
        self.repaint()

    def action_copy_lines(self) -> None:
        """Offer the marked lines, or the one under the cursor, to the terminal's clipboard."""
        chosen = self._view.chosen
        text = "\n".join(visible(each.record.message.rstrip("\n")) for each in chosen)
        if len(text) > MAX_COPIED:
            self.report(f"{len(chosen)} lines are too long for a clipboard: use |", "warn")
        elif chosen:
            self.app.copy_to_clipboard(text)
            self.report(f"offered to the clipboard: {words.counted(len(chosen), 'line')}", "key")

    def action_beside(self) -> None:
        """Show the nodes side by side, or below each other."""
        seen = dict.fromkeys(
            each.record.node for each in self._kept.window.entries if each.record.node
        )
        nodes = tuple(self.nodes if len(self.nodes) > 1 else sorted(seen)[:MAX_NODES])
        if len(nodes) < 2:
            self.report("these are the lines of one node", "warn")
            return
        self._look = self._look._replace(beside=() if self._look.beside else nodes)
        self._view.refresh()
        self.repaint()

    def keys(self) -> list[tuple[str, str]]:
        """Return the keys that work now: of those of all screens `/` has another meaning here."""
        if self.typing:
            return super().keys()
        own = [("/", "find"), *([("n N", "next")] * bool(self._needle)), ("&", "filter")]
        own += [("c", "copy"), ("s", "side by side")]
        return [*own, *(each for each in super().keys() if each[0] != "/")]  # noqa: SIM118

    def target(self) -> Target:
        """Return the node whose lines these are."""
        node = self.nodes[0] if len(self.nodes) == 1 else ""
        title = "/".join(filter(None, (self.dataflow, node)))
        return Target(self.dataflow or "", node, title=title)

    def argv(self) -> Sequence[str]:
        """Return the command that prints the same."""
        words = ["dora", "logs"]
        if self.dataflow:
            words.append(self.dataflow)
        nodes = [word for node in self.nodes for word in ("--node", node)]
        words += nodes or ["--all-nodes"]
        if self.filter:
            words += ["--filter", self.filter.text]
        return [*words, "--follow"]

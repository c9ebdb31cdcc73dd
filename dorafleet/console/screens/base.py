"""What all screens share: the bars, the prompt, the filter, and streams while one is looked at."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, ClassVar, cast

from textual.containers import Vertical
from textual.screen import Screen

from dorafleet.console.model.commands import Target
from dorafleet.console.model.filter import Filter, checked
from dorafleet.console.view import bars
from dorafleet.console.view.glyphs import glyphs
from dorafleet.console.widgets.grid import Grid
from dorafleet.console.widgets.lines import Canvas, LogView
from dorafleet.console.widgets.prompt import Prompt

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from textual.app import ComposeResult
    from textual.binding import BindingType
    from textual.widget import Widget

    from dorafleet.console.app import ConsoleApp
    from dorafleet.console.link.server import Server
    from dorafleet.console.link.streams import Feed
    from dorafleet.console.view.glyphs import Glyphs

MIN_SIZE = (60, 15)
"""Below this many columns and lines, one line says so."""
PAGE = 0.9
"""The part of a page that PgUp and PgDn move by."""


class ConsoleScreen(Screen[None]):
    """A screen with bars above and below."""

    NAME: ClassVar[str] = ""
    """The name after `:`; filters are kept by it."""
    ORDERS: ClassVar[tuple[str, ...]] = ()
    FILTER_KEYS: ClassVar[tuple[str, ...]] = ()
    AUTO_FOCUS = "Grid, LogView, #content"
    BINDINGS: ClassVar[list[BindingType]] = [
        ("escape", "back", "back"),
        ("enter", "enter", "open"),
        ("up,k", "move(-1)", ""),
        ("down,j", "move(1)", ""),
        ("left,h", "across(-8)", ""),
        ("right", "across(8)", ""),
        ("pageup,ctrl+b", "page(-1)", ""),
        ("pagedown,ctrl+f", "page(1)", ""),
        ("home", "ends(True)", ""),
        ("end,G", "ends(False)", ""),
        ("slash", "filter", "filter"),
        ("space", "mark", "mark"),
        ("o", "order", "order"),
        ("p", "pause", "pause"),
        ("l", "go('logs')", "logs"),
        ("g", "go('graph')", "graph"),
        ("t", "go('top')", "top"),
        ("e", "go('topics')", "topics"),
        ("a", "actions", "actions"),
        ("y", "copy", "copy command"),
        ("vertical_line", "pipe", "pipe"),
    ]

    def __init__(self) -> None:
        super().__init__()
        self.order = self.ORDERS[0] if self.ORDERS else ""
        self.paused = False
        self.filter = Filter()
        self.message: tuple[str, str] | None = None
        self._message_until = 0.0
        self._feeds: list[Feed[Any]] = []
        self._painted: tuple[Any, ...] | None = None
        self.news = 0
        """Grows with everything that a feed of this screen brings."""

    @classmethod
    def about(cls, words: Sequence[str]) -> ConsoleScreen | str:
        """Return the screen about these words, or what is wrong with them."""
        raise NotImplementedError

    def again(self) -> ConsoleScreen:
        """Return a new screen that shows the same."""
        raise NotImplementedError

    def body(self) -> Iterable[Widget]:
        """Return the widgets between the bars."""
        return ()

    def feeds(self) -> list[Feed[Any]]:
        """Return the streams to read while the screen is looked at."""
        return []

    def crumbs(self) -> bars.Crumbs:
        """Return what the second line says."""
        return bars.Crumbs(self.NAME.capitalize())

    def paint(self, now: float) -> None:
        """Bring the widgets up to date; `now` is the time of day."""

    def target(self) -> Target:
        """Return what is under the cursor."""
        return Target()

    def targets(self) -> list[Target]:
        """Return what actions would be done to: marked rows, or the one under the cursor."""
        target = self.target()
        return [target] if any(target) else []

    def argv(self) -> Sequence[str]:
        """Return the command line that shows the same."""
        return ("dorafleet",)

    def open_chosen(self) -> None:
        """Drill into what is under the cursor."""

    def text_lines(self) -> list[str]:
        """Return what is shown as text, for a pipe."""
        found: list[str] = []
        for widget in self.query("#content, Grid, LogView").results():
            if isinstance(widget, LogView | Canvas):
                found += ["".join(text for text, _ in spans) for spans in widget.lines]
            elif isinstance(widget, Grid):
                found += widget.as_text()
        return found

    @property
    def console(self) -> ConsoleApp:
        """The app."""
        return cast("ConsoleApp", self.app)

    @property
    def server(self) -> Server:
        """The connection."""
        return self.console.server

    def compose(self) -> ComposeResult:
        """Put the bars around the body."""
        yield Canvas(id="top", over="bar")
        yield Canvas(id="crumbs")
        with Vertical(id="body"):
            yield from self.body()
        yield Prompt()
        yield Canvas(id="message")
        yield Canvas(id="keys", over="bar")

    def on_screen_resume(self) -> None:
        """Read the streams."""
        self.filter = self.console.filters.get(self.NAME, Filter())
        if not self._feeds:
            self._feeds = self.feeds()
        if not self.paused:
            for feed in self._feeds:
                feed.start()
        self._painted = None
        self.tick()

    def on_screen_suspend(self) -> None:
        """Stop reading: a hidden screen costs nothing."""
        for feed in self._feeds:
            self.console.in_background(feed.stop())

    def on_unmount(self) -> None:
        """Stop reading."""
        self.on_screen_suspend()

    def restart_feeds(self) -> None:
        """Open the streams again, because their parameters have changed."""
        self.on_screen_suspend()
        self._feeds = self.feeds()
        for feed in () if self.paused else self._feeds:
            feed.start()

    def bring(self) -> None:
        """Take note that a feed has brought something."""
        self.news += 1

    def feed_error(self) -> str:
        """Return why a stream brings nothing, or an empty text."""
        return next((feed.error for feed in self._feeds if feed.error), "")

    def tick(self) -> None:
        """Paint if something has changed. Called ten times a second at most."""
        if not self.composed:
            return
        now, clock = time.time(), time.monotonic()
        if self.message is not None and clock > self._message_until:
            self.message = None
        state = (
            self.server.version,
            self.news,
            int(now),
            self.size,
            self.message,
            self.order,
            self.filter.text,
            self.paused,
            self.server.link.stale(clock),
            self.feed_error(),
        )
        if state == self._painted:
            return
        self._painted = state
        if not self.too_small:
            self.paint(now)
        # After the body: the bars say what it shows, and which keys its cursor allows.
        self._paint_bars(now, clock)

    def repaint(self) -> None:
        """Paint at the next opportunity."""
        self._painted = None
        self.tick()

    @property
    def composed(self) -> bool:
        """Whether all widgets are there: not while they are composed, nor while they go."""
        return (
            self.is_mounted
            and self.is_running
            and self.is_attached
            and self in self.app.screen_stack
        )

    @property
    def typing(self) -> bool:
        """Whether keys go to the prompt."""
        return self.composed and bool(self.query_one(Prompt).kind)

    @property
    def too_small(self) -> bool:
        """Whether the terminal is too small to show anything."""
        return self.size.width < MIN_SIZE[0] or self.size.height < MIN_SIZE[1]

    @property
    def ascii_only(self) -> bool:
        """Whether only ASCII is shown."""
        return self.console.options.ascii_only

    def _paint_bars(self, now: float, clock: float) -> None:
        link, fleet = self.server.link, self.server.fleet
        columns = self.size.width
        stale = link.stale(clock)
        for name in ("#body", "#crumbs", "#message"):
            self.query_one(name).display = not self.too_small
        if self.too_small:
            text = f" needs {MIN_SIZE[0]}x{MIN_SIZE[1]}, has {columns}x{self.size.height}"
            self.query_one("#top", Canvas).show([[(text, "warn")]])
            self.query_one("#keys", Canvas).show([[]])
            return
        fresh = bars.freshness(
            connected=link.connected,
            stale=stale,
            fresh_at=link.fresh_at,
            retry_at=link.retry_at,
            now=clock,
        )
        line = bars.top_line(
            self.console.server_title,
            fresh,
            bars.round_trip(link.round_trip),
            fleet.counts,
            len(fleet.rows),
            now,
            columns,
            stale=stale,
        )
        self.query_one("#top", Canvas).show([line])
        crumbs = self.crumbs()
        if self.paused:
            crumbs = crumbs._replace(note="paused (p goes on)")
        crumbs = crumbs._replace(filter=self.filter.text, order=self.order)
        self.query_one("#crumbs", Canvas).show(
            [bars.crumb_line(crumbs, columns, ascii_only=self.ascii_only)]
        )
        message = self.message
        if message is None and (error := self.feed_error()):
            message = (error, "warn")
        if message is None and link.error and not link.connected:
            message = (link.error, "stale")
        text, style = message or ("", "")
        self.query_one("#message", Canvas).show(bars.message_lines(text, style, columns))
        self.query_one("#keys", Canvas).show([bars.key_line(self.keys(), columns)])

    def keys(self) -> list[tuple[str, str]]:
        """Return the keys that work now, with what they do."""
        found = [("enter", "open")] if self.can_open() else []
        target = self.target()
        for key, label, possible in (
            ("esc", "back", self.can_go_back()),
            ("/", "filter", bool(self.FILTER_KEYS)),
            ("a", "actions", bool(self.console.actions(self.targets()))),
            ("l", "logs", self.can_go("logs", target)),
            ("g", "graph", self.can_go("graph", target)),
            ("t", "top", self.can_go("top", target)),
            ("e", "topics", self.can_go("topics", target)),
            ("space", "mark", self.can_mark()),
            ("left right", "scroll", self.is_wide()),
            ("o", "order", len(self.ORDERS) > 1),
            ("p", "pause", bool(self._feeds)),
            ("y", "copy", True),
            ("|", "pipe", True),
            (":", "go", True),
            ("q", "quit", True),
            ("?", "all keys", self.NAME != "help"),
        ):
            if possible:
                found.append((key, label))
        return found

    def can_open(self) -> bool:
        """Return True if enter does something."""
        return False

    def is_wide(self) -> bool:
        """Return True if a drawing is wider than the screen."""
        return any(
            each.virtual_size.width > each.size.width
            for each in self.query("#content").results(Canvas)
        )

    def can_mark(self) -> bool:
        """Return True if rows can be marked."""
        return False

    def can_go_back(self) -> bool:
        """Return True if escape does something."""
        return bool(self.filter) or len(self.console.screen_stack) > 2

    def can_go(self, place: str, target: Target) -> bool:
        """Return True if a screen about the target can be opened."""
        if place == self.NAME:
            return False
        if place == "top":
            return True
        return bool(target.dataflow) or (place == "logs" and bool(target.robot))

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """Return False for keys that do nothing now."""
        if not self.composed or self.typing:
            return False
        if action == "go":
            return self.can_go(str(parameters[0]), self.target())
        if action == "actions":
            return bool(self.console.actions(self.targets()))
        if action == "filter":
            return bool(self.FILTER_KEYS)
        if action == "mark":
            return self.can_mark()
        return True

    def say(self, text: str, style: str = "", seconds: float = 5.0) -> None:
        """Show a message in the line above the keys for some seconds."""
        self.message = (text, style)
        self._message_until = time.monotonic() + seconds
        self.repaint()

    @property
    def scroller(self) -> Grid | LogView | Canvas | None:
        """The widget that the arrow keys move."""
        focused = self.focused
        return focused if isinstance(focused, Grid | LogView | Canvas) else None

    def action_move(self, rows: int) -> None:
        """Move the cursor, or scroll."""
        match self.scroller:
            case Grid() as grid:
                grid.move(rows)
            case LogView() as view:
                view.scroll_rows(rows)
            case Canvas() as canvas:
                canvas.scroll_relative(y=rows, animate=False)
        self.repaint()

    def action_across(self, columns: int) -> None:
        """Scroll a drawing or a log to the side."""
        for canvas in self.query("#content").results(Canvas):
            canvas.scroll_relative(x=columns, animate=False)
        if isinstance(self.scroller, LogView):
            self.scroller.scroll_columns(columns)

    def action_page(self, pages: int) -> None:
        """Move by a page."""
        widget = self.scroller
        if widget is not None:
            self.action_move(pages * max(1, int(widget.size.height * PAGE)))

    def action_ends(self, first: bool) -> None:
        """Move to the first line, or to the last."""
        match self.scroller:
            case Grid() as grid:
                grid.jump(0 if first else len(grid.ids))
            case LogView() as view:
                view.scroll_to_end_of(top=first)
            case Canvas() as canvas:
                canvas.scroll_to(y=0 if first else canvas.virtual_size.height, animate=False)
        self.repaint()

    def action_enter(self) -> None:
        """Drill in."""
        self.open_chosen()

    def on_grid_chosen(self, event: Grid.Chosen) -> None:
        """Drill in after a click."""
        event.stop()
        self.open_chosen()

    def action_mark(self) -> None:
        """Mark the row under the cursor."""
        if isinstance(grid := self.scroller, Grid):
            grid.toggle_mark()
            self.repaint()

    def action_back(self) -> None:
        """Remove marks, then the filter, then go back."""
        grids = [grid for grid in self.query(Grid) if grid.marks]
        if grids:
            for grid in grids:
                grid.marks.clear()
            self.repaint()
        elif self.filter:
            self.set_filter(Filter())
            self.on_filter_entered()
        else:
            self.console.go_back()

    def action_order(self) -> None:
        """Take the next order."""
        if self.ORDERS:
            at = self.ORDERS.index(self.order)
            self.order = self.ORDERS[(at + 1) % len(self.ORDERS)]
            self.on_order()
            self.repaint()

    def on_order(self) -> None:
        """React to another order."""

    def on_filter(self) -> None:
        """React to another filter, also while it is typed."""

    def on_filter_entered(self) -> None:
        """React to another filter once it is complete."""

    def action_pause(self) -> None:
        """Stop the streams, or let them go on."""
        self.paused = not self.paused
        for feed in self._feeds:
            if self.paused:
                self.console.in_background(feed.stop())
            else:
                feed.start()
        self.repaint()

    def action_filter(self) -> None:
        """Type a filter."""
        self.query_one(Prompt).open(
            "filter", self.filter.text, "word !word key=value key>10 since<10m key~regex"
        )

    def action_go(self, place: str) -> None:
        """Open a screen about what is under the cursor."""
        self.console.go_about(place, self.target())

    def action_actions(self) -> None:
        """Choose an action for the chosen rows."""
        self.console.run_worker(self.console.act(self.targets()), exclusive=True)

    def action_copy(self) -> None:
        """Copy the equivalent command, and show it."""
        self.console.copy_command(self.argv())

    def action_pipe(self) -> None:
        """Type the program that gets what is shown."""
        self.query_one(Prompt).open("pipe", "less", "a shell command that reads what is shown")

    def filter_keys(self) -> tuple[str, ...]:
        """Return the columns that a filter may name."""
        return self.FILTER_KEYS

    def set_filter(self, wanted: Filter) -> None:
        """Filter by this from now on."""
        self.filter = wanted
        self.console.filters[self.NAME] = wanted
        self.on_filter()
        self.repaint()

    def on_prompt_typed(self, event: Prompt.Typed) -> None:
        """Apply what is typed."""
        event.stop()
        if event.kind == "filter":
            self._filter_typed(event)
        elif event.state == "entered" and event.kind == "go":
            self.console.go_to(event.text)
        elif event.state == "entered" and event.kind == "pipe":
            self.console.pipe(event.text, self.text_lines())
        if event.state != "changed":
            self.query(self.AUTO_FOCUS).first().focus()
            self.repaint()

    def _filter_typed(self, event: Prompt.Typed) -> None:
        if event.state == "given-up":
            self.on_filter_entered()
            return
        wanted, problem = checked(event.text, self.filter_keys())
        if wanted is not None:
            self.set_filter(wanted)
            if event.state == "changed":
                self.message = None
            else:
                self.on_filter_entered()
        elif event.state == "entered":
            self.say(problem, "warn", 8.0)
        else:
            self.say(problem, "dim", 2.0)

    def glyphs(self) -> Glyphs:
        """Return the characters that lines are made of."""
        return glyphs(ascii_only=self.ascii_only)

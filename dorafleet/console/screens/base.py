"""What all screens share: bars, keys, a prompt, a filter, and streams while one is shown."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, ClassVar, cast

from textual.containers import Vertical
from textual.screen import Screen

from dorafleet.console.model.filter import Filter
from dorafleet.console.model.targets import Target
from dorafleet.console.screens.bars import Bars
from dorafleet.console.screens.feeds import Feeds
from dorafleet.console.screens.prompting import Prompting
from dorafleet.console.screens.workingkeys import SCREEN_KEYS, in_order, working_keys, works
from dorafleet.console.view.bars import Crumbs
from dorafleet.console.view.glyphs import glyphs
from dorafleet.console.widgets.grid import Grid
from dorafleet.console.widgets.lines import Canvas, LogView
from dorafleet.console.widgets.moving import SCROLLERS, move_pages, move_to_end, text_of
from dorafleet.console.widgets.prompt import Prompt, PromptLine

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from textual.app import ComposeResult
    from textual.binding import BindingType
    from textual.events import DescendantFocus
    from textual.widget import Widget

    from dorafleet.console.app import ConsoleApp
    from dorafleet.console.link.server import Server
    from dorafleet.console.link.streams import Feed
    from dorafleet.console.view.glyphs import Glyphs
    from dorafleet.console.widgets.moving import Scroller


class ConsoleScreen(Screen[None]):
    """A screen with bars above and below."""

    NAME: ClassVar[str] = ""
    """The name after `:`."""
    ORDERS: ClassVar[tuple[str, ...]] = ()
    FILTER_KEYS: ClassVar[tuple[str, ...]] = ()
    ROWS_OF: ClassVar[str] = "fleet.watch"
    """The method that its rows come from, unless it has feeds."""
    AUTO_FOCUS = "Grid, LogView, #content"
    BINDINGS: ClassVar[list[BindingType]] = in_order(*SCREEN_KEYS)

    def __init__(self) -> None:
        super().__init__()
        self.order = self.ORDERS[0] if self.ORDERS else ""
        self.filter = Filter()
        self.bars = Bars(self)
        self.prompting = Prompting(self)
        self.feeds = Feeds(self.streams, lambda work: self.console.in_background(work))
        self._painted: tuple[Any, ...] | None = None
        self.resumed_at: float | None = None
        """When it could take keys first, on the monotonic clock; None before."""
        self.updates = 0
        """Grows with everything that a feed of this screen brings."""
        self.places: dict[str, str | None] = {}
        """The rows under the cursors of the grids when this was hidden, or where they begin."""

    @classmethod
    def about(cls, words: Sequence[str]) -> ConsoleScreen | str:
        """Return the screen about these words, or what is wrong with them."""
        raise NotImplementedError

    def again(self) -> ConsoleScreen:
        """Return a new screen that shows the same."""
        raise NotImplementedError

    def anew(self) -> ConsoleScreen:
        """Return a new screen that shows the same, with the cursors on the same rows."""
        screen = self.again()
        screen.places = self._cursors() or self.places
        return screen

    def _cursors(self) -> dict[str, str | None]:
        """Return the rows under the cursors of all grids; none if this is closed."""
        return {grid.id or "": grid.cursor for grid in self.query(Grid)}

    def body(self) -> Iterable[Widget]:
        """Return the widgets between the bars."""
        return ()

    def streams(self) -> list[Feed[Any]]:
        """Return the streams to read while the screen is shown."""
        return []

    def crumbs(self) -> Crumbs:
        """Return what the second line says."""
        return Crumbs(self.NAME.capitalize())

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

    def empty_text(self, what: str, *, known: bool) -> str:
        """Return why a table has no rows; `known` is whether the server has sent them."""
        if self.feeds.error:
            return "no answer"
        if not self.server.link.fresh_at:
            return "connecting"
        if not known:
            return "asking the server"
        return f"no {what} matches the filter (esc removes it)" if self.filter else f"no {what}"

    def open_chosen(self) -> None:
        """Drill into what is under the cursor."""

    def text_lines(self) -> list[str]:
        """Return what is shown between the bars as text, for a pipe."""
        shown = self.query("#body Canvas, #body Grid, #body LogView").results()
        return [line for widget in shown if widget.display for line in text_of(widget)]

    @property
    def stale(self) -> bool:
        """Whether the server has not answered for some time."""
        return self.server.link.stale(time.monotonic())

    @property
    def outdated(self) -> bool:
        """Whether what this screen shows may be out of date."""
        return self.stale or bool(self.feeds.error)

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
        yield PromptLine()
        yield Canvas(id="message")
        yield Canvas(id="keys", over="bar")

    def on_screen_resume(self) -> None:
        """Read the streams."""
        self.filter = self.console.filters.get((self.NAME, self.subject), Filter())
        if self.filter and self.resumed_at is None:
            self.report(f"filtered as before by `{self.filter.text}` (esc removes it)", "warn")
        self.feeds.resume()
        self._painted = None
        self.tick()
        for grid in self.query(Grid):
            grid.keep_visible()
            grid.begin_at(self.places.pop(grid.id or "", None))
        self.call_next(self._take_keys)  # once a widget has the focus

    def _take_keys(self) -> None:
        self.resumed_at = time.monotonic()

    def on_descendant_focus(self, event: DescendantFocus) -> None:
        """Give up what is typed after a click elsewhere: no key would get to the prompt."""
        if self.typing and not isinstance(event.widget, Prompt):
            self.prompt.give_up()

    def on_screen_suspend(self) -> None:
        """Stop reading: a hidden screen costs nothing."""
        self.feeds.stop()
        for grid in self.query(Grid):
            grid.hold_cursor()
        self.places = self._cursors()

    def on_unmount(self) -> None:
        """Stop reading."""
        self.feeds.stop()

    def bring(self) -> None:
        """Record that a feed has brought something."""
        self.updates += 1

    def tick(self) -> None:
        """Paint if something has changed. Called ten times a second at most."""
        if not self.composed:
            return
        now, clock = time.time(), time.monotonic()
        self.bars.forget_old(clock)
        state = (
            self.server.version,
            self.updates,
            int(now),
            self.size,
            self.bars.message,
            self.order,
            self.filter.text,
            self.feeds.paused,
            self.server.link.stale(clock),
            self.feeds.error,
        )
        if state == self._painted:
            return
        self._painted = state
        if not self.bars.too_small:
            self.paint(now)
        # After the body: the bars say what it shows, and which keys its cursor allows.
        self.bars.paint(now, clock)

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
    def takes_keys(self) -> bool:
        """Whether a key would do now what it is meant for, and not too early."""
        return self.resumed_at is not None and self.composed and not self.prompt.ending

    @property
    def typing(self) -> bool:
        """Whether keys go to the prompt."""
        return self.composed and bool(self.prompt.kind)

    @property
    def prompt(self) -> PromptLine:
        """The line in which a filter, a screen or a command is typed."""
        return self.query_one(PromptLine)

    @property
    def ascii_only(self) -> bool:
        """Whether only ASCII is shown."""
        return self.console.options.ascii_only

    def keys(self) -> list[tuple[str, str]]:
        """Return the keys that work now, with what they do."""
        return working_keys(self)

    def can_open(self) -> bool:
        """Return True if enter does something."""
        return False

    def can_mark(self) -> bool:
        """Return True if rows can be marked."""
        return False

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """Return False for keys that do nothing now."""
        if not self.composed or self.typing or self.bars.too_small:
            return False  # nobody sees what a key would do
        if action == "actions":
            return True  # where none is possible, it says why
        return works(self, action, str(parameters[0]) if parameters else "")

    def report(self, text: str, style: str = "", seconds: float = 5.0) -> None:
        """Show a message in the line above the keys for some seconds."""
        self.bars.report(text, style, seconds)
        self.repaint()

    @property
    def scroller(self) -> Scroller | None:
        """The widget that the arrow keys move."""
        focused = self.focused
        return focused if isinstance(focused, SCROLLERS) else None

    def action_move(self, rows: int) -> None:
        """Move the cursor, or scroll."""
        if self.scroller is not None:
            self.scroller.move(rows)
        self.repaint()

    def action_across(self, columns: int) -> None:
        """Scroll a drawing or a log to the side."""
        for canvas in self.query("#content").results(Canvas):
            canvas.scroll_by(columns=columns)
        if isinstance(self.scroller, LogView):
            self.scroller.scroll_columns(columns)

    def action_page(self, pages: int) -> None:
        """Move by a page."""
        move_pages(self.scroller, pages)
        self.repaint()

    def action_ends(self, first: bool) -> None:
        """Move to the first line, or to the last."""
        move_to_end(self.scroller, first=first)
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
            self.console.trail.go_back()

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
        """React to another filter, even while it is typed."""

    def on_filter_entered(self) -> None:
        """React to another filter once it is complete."""

    def action_pause(self) -> None:
        """Stop the streams, or resume them."""
        self.feeds.pause()
        self.repaint()

    def action_filter(self) -> None:
        """Type a filter."""
        self.prompting.ask_filter()

    def action_palette(self) -> None:
        """Type the screen to go to."""
        self.prompting.ask_place()

    def action_go(self, place: str) -> None:
        """Open a screen about what is under the cursor."""
        self.console.go_about(place, *([self.target()] if place != "params" else self.targets()))

    def action_actions(self) -> None:
        """Choose an action for the chosen rows."""
        self.console.acting.choose(self.targets())

    def action_copy(self) -> None:
        """Copy the equivalent command, and show it."""
        self.console.copy_command(self.argv())

    def action_pipe(self) -> None:
        """Type the program that gets what is shown."""
        self.prompting.ask_program()

    @property
    def subject(self) -> tuple[str | None, ...]:
        """What it is about; the same screen about something else begins without a filter."""
        return ()

    def filter_keys(self) -> tuple[str, ...]:
        """Return the columns that a filter may name."""
        return self.FILTER_KEYS

    def set_filter(self, wanted: Filter) -> None:
        """Filter by this from now on."""
        self.filter = wanted
        self.console.keep_filter((self.NAME, self.subject), wanted)
        self.on_filter()
        self.repaint()

    def on_prompt_typed(self, event: Prompt.Typed) -> None:
        """Do what is typed."""
        event.stop()
        self.prompting.take(event)

    def glyphs(self) -> Glyphs:
        """Return the characters that lines are made of."""
        return glyphs(ascii_only=self.ascii_only)

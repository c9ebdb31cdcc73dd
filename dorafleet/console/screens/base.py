"""What all screens share: bars, keys and a prompt around their content."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from textual.app import ComposeResult
from textual.binding import BindingType
from textual.containers import Vertical
from textual.events import DescendantFocus
from textual.geometry import Offset

from dorad.control.filters import Filter
from dorafleet.console.screens.bars import Bars
from dorafleet.console.screens.content import ScreenContent
from dorafleet.console.screens.screenprompt import ScreenPrompt
from dorafleet.console.screens.workingkeys import (
    SCREEN_KEYS,
    in_order,
    key_shown_as,
    working_keys,
    works,
)
from dorafleet.console.view.bars import key_at
from dorafleet.console.view.glyphs import Glyphs, glyphs
from dorafleet.console.widgets.grid import Grid
from dorafleet.console.widgets.lines import Canvas, LogView
from dorafleet.console.widgets.prompt import Prompt, PromptLine

ORDER_BY: Mapping[str, str] = {
    "robot": "name",
    "node": "name",
    "edge": "name",
    "state": "worst",
    "status": "worst",
    "since": "newest",
}
"""The orders that columns stand for, besides those of their own names."""


class ConsoleScreen(ScreenContent):
    """A screen with bars above and below."""

    AUTO_FOCUS = "Grid, LogView, #content"
    ABOUT_WORDS: ClassVar[str] = ""
    """What the refusal of words adds."""
    BINDINGS: ClassVar[list[BindingType]] = in_order(*SCREEN_KEYS)

    def __init__(self) -> None:
        super().__init__()
        self.bars = Bars(self)
        self.prompting = ScreenPrompt(self, self.bars)
        self._painted: tuple[Any, ...] | None = None
        self.resumed_at: float | None = None
        """When it could take keys first, on the monotonic clock; None before."""

    def empty_text(self, what: str, *, known: bool) -> str:
        """Return why a table has no rows; `known` is whether the server has sent them."""
        if self.feeds.error:
            return "no answer"
        if not self.server.link.fresh_at:
            return "connecting"
        if not known:
            return "asking the server"
        return f"no {what} matches the filter (esc removes it)" if self.filter else f"no {what}"

    def lacking(self, what: str) -> str:
        """Return that the server `what`, such as `has no releases`; empty if it offers them."""
        if self.feeds.problem not in ("unknown-method", "unsupported"):
            return ""
        return f"{self.server.link.server or 'the server'} {what}: they need a coordinator"

    @classmethod
    def about(cls, words: Sequence[str]) -> ConsoleScreen | str:
        """Return the screen about these words, or what is wrong with them."""
        return f"`{cls.NAME}` takes no words{cls.ABOUT_WORDS}" if words else cls()

    def again(self) -> ConsoleScreen:
        """Return a new screen that shows the same."""
        return type(self)()

    def anew(self) -> ConsoleScreen:
        """Return a new screen that shows the same, with the cursors on the same rows."""
        screen = self.again()
        screen.places = self._cursors() or self.places
        return screen

    def compose(self) -> ComposeResult:
        """Put the bars around the body."""
        yield Canvas(id="top", over="bar")
        yield Canvas(id="crumbs")
        with Vertical(id="body"):
            yield from self.body()
        yield PromptLine(self.console.history)
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
        del event  # it may tell of what had the focus before the prompt
        if self.typing and not isinstance(self.focused, Prompt):
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
        self._place_cursor()

    def repaint(self) -> None:
        """Paint at the next opportunity."""
        self._painted = None
        self.tick()

    def _place_cursor(self) -> None:
        """Let the terminal's cursor stand on the row, where screen readers look for it."""
        widget = self.scroller
        line = None if widget is None or self.typing else widget.cursor_line
        if widget is not None and line is not None:
            self.app.cursor_position = widget.content_region.offset + Offset(0, line)

    @property
    def takes_keys(self) -> bool:
        """Whether a key would do now what it is meant for, and not too early."""
        return self.resumed_at is not None and self.composed and not self.prompt.ending

    def keys(self) -> list[tuple[str, str]]:
        """Return the keys that work now, with what they do."""
        return working_keys(self)

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

    def action_page(self, pages: float) -> None:
        """Move by pages."""
        if self.scroller is not None:
            self.scroller.move_pages(pages)
        self.repaint()

    def action_ends(self, first: bool) -> None:
        """Move to the first line, or to the last."""
        if self.scroller is not None:
            self.scroller.move_to_end(first=first)
        self.repaint()

    def action_enter(self) -> None:
        """Drill in."""
        self.open_chosen()

    def on_canvas_clicked(self, event: Canvas.Clicked) -> None:
        """Do what a key of the last line does that was clicked."""
        event.stop()
        if event.canvas.id != "keys" or self.bars.too_small:
            return
        key = key_at(self.keys(), self.size.width, event.column)
        if key is not None:
            self.app.post_message(key_shown_as(key))

    def on_grid_heading_clicked(self, event: Grid.HeadingClicked) -> None:
        """Order the rows by the column, if that is possible."""
        event.stop()
        order = event.column if event.column in self.ORDERS else ORDER_BY.get(event.column)
        if order in self.ORDERS:
            self.order = order
            self.on_order()
            self.repaint()
        else:
            can = f"; by {', '.join(self.ORDERS)}" if self.ORDERS else ""
            self.report(f"the rows cannot be ordered by this column{can}", "dim")

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
        """Open a screen about what is under the cursor; of an edge its curves, or its traces."""
        if place == "top" and (edge := self.edge()) is not None:
            self.console.open_about("edge", edge)
            return
        if place == "trace" and (edge := self.edge()) is not None:
            dataflow, source, target = edge
            self.console.open_about("trace", [dataflow, source, target.partition("/")[0]])
            return
        several = self.targets() if place in ("params", "logs") else []
        self.console.go_about(place, *(several if len(several) > 1 else [self.target()]))

    def action_actions(self) -> None:
        """Choose an action for the chosen rows."""
        self.console.choose(self.targets())

    def action_copy(self) -> None:
        """Copy the equivalent command, and show it."""
        self.console.copy_command(self.argv())

    def action_pipe(self) -> None:
        """Type the program that gets what is shown."""
        self.prompting.ask_program()

    def on_prompt_typed(self, event: Prompt.Typed) -> None:
        """Do what is typed."""
        event.stop()
        self.prompting.take(event)

    def glyphs(self) -> Glyphs:
        """Return the characters that lines are made of."""
        return glyphs(ascii_only=self.ascii_only)

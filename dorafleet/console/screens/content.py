"""What a screen shows: rows of something, in an order, through a filter, from streams."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, ClassVar, cast

from textual.screen import Screen

from dorad.control.filters import Filter
from dorafleet.console.model.targets import Target
from dorafleet.console.view.bars import Crumbs
from dorafleet.console.widgets.grid import Grid
from dorafleet.console.widgets.lines import Painted
from dorafleet.console.widgets.prompt import PromptLine

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Coroutine, Iterable, Sequence

    from textual.widget import Widget

    from dorafleet.console.console import Console
    from dorafleet.console.link.server import Server
    from dorafleet.console.link.streams import Feed
    from dorafleet.console.view.rows import Column


class ScreenContent(Screen[None]):
    """The content of a screen. `ConsoleScreen` puts bars around it, and gives it keys."""

    NAME: ClassVar[str] = ""
    """The name after `:`."""
    ORDERS: ClassVar[tuple[str, ...]] = ()
    FILTER_KEYS: ClassVar[tuple[str, ...]] = ()
    COLUMNS: ClassVar[tuple[Column, ...]] = ()
    """The columns of a screen that is one table."""
    ROWS_OF: ClassVar[str] = "fleet.watch"
    """The method that its rows come from, unless it has feeds."""
    OPENS: ClassVar[bool] = False
    """Whether enter opens the row under the cursor."""
    MARKS: ClassVar[bool] = False
    """Whether rows can be marked."""

    def __init__(self) -> None:
        super().__init__()
        self.order = self.ORDERS[0] if self.ORDERS else ""
        self.filter = Filter()
        self.feeds = Feeds(self.streams, lambda work: self.console.in_background(work))
        self.updates = 0
        """Grows with everything that a feed of this screen brings."""
        self.places: dict[str, str | None] = {}
        """The rows under the cursors of the grids when this was hidden, or where they begin."""

    def _cursors(self) -> dict[str, str | None]:
        """Return the rows under the cursors of all grids; none if this is closed."""
        return {grid.id or "": grid.cursor for grid in self.query(Grid)}

    def body(self) -> Iterable[Widget]:
        """Return the widgets between the bars: one table, unless the screen has others."""
        yield Grid(self.COLUMNS, ascii_only=self.ascii_only)

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

    def edge(self) -> tuple[str, str, str] | None:
        """Return the dataflow, the output and the input of the edge under the cursor, if any."""
        return None

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
        """Return what is shown between the bars as text, for a pipe."""
        shown = self.query("#body Painted").results(Painted)
        return [line for widget in shown if widget.display for line in widget.as_text()]

    @property
    def stale(self) -> bool:
        """Whether the server has not answered for some time."""
        return self.server.link.stale(time.monotonic())

    @property
    def outdated(self) -> bool:
        """Whether what this screen shows may be out of date."""
        return self.stale or bool(self.feeds.error)

    @property
    def console(self) -> Console:
        """The app."""
        return cast("Console", self.app)

    @property
    def server(self) -> Server:
        """The connection."""
        return self.console.server

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
        return self.composed and bool(self.prompt.kind)

    @property
    def prompt(self) -> PromptLine:
        """The line in which a filter, a screen or a command is typed."""
        return self.query_one(PromptLine)

    @property
    def ascii_only(self) -> bool:
        """Whether only ASCII is shown."""
        return self.console.options.ascii_only

    def can_open(self) -> bool:
        """Return True if enter does something."""
        return self.OPENS and any(grid.cursor is not None for grid in self.query(Grid))

    @property
    def scroller(self) -> Painted | None:
        """The widget that the arrow keys move."""
        focused = self.focused
        return focused if isinstance(focused, Painted) else None

    def on_filter(self) -> None:
        """React to another filter, even while it is typed."""

    def on_filter_entered(self) -> None:
        """React to another filter once it is complete."""

    def on_find(self, text: str, state: str) -> None:
        """React to a text that is searched for; see `Prompt.Typed` for the states."""

    def take_command(self, text: str) -> bool:
        """Do what a line after `:` says, if it is about this screen and no other one."""
        del text
        return False

    def bring(self) -> None:
        """Record that a feed has brought something."""
        self.updates += 1

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

    def tick(self) -> None:
        """Paint if something has changed."""
        raise NotImplementedError

    def repaint(self) -> None:
        """Paint at the next opportunity."""
        raise NotImplementedError

    def take_focus(self) -> None:
        """Give the keys to the main widget again.

        At once, as everywhere here: `focus` would do it after the keys that have come by now, and
        take them from a prompt that one of these has opened.
        """
        self.set_focus(self.query(self.AUTO_FOCUS or "").first())

    def report(self, text: str, style: str = "", seconds: float = 5.0) -> None:
        """Show a message for some seconds."""
        raise NotImplementedError

    def keys(self) -> list[tuple[str, str]]:
        """Return the keys that work now, with what they do."""
        raise NotImplementedError


class Feeds:
    """Starts and stops the streams of one screen together."""

    def __init__(
        self,
        make: Callable[[], list[Feed[Any]]],
        in_background: Callable[[Coroutine[Any, Any, None]], asyncio.Task[None]],
    ) -> None:
        """`make` returns the streams by what the screen wants now."""
        self._make = make
        self._in_background = in_background
        self._all: list[Feed[Any]] = []
        self._running: list[asyncio.Task[None]] = []
        self.paused = False

    def __bool__(self) -> bool:
        return bool(self._all)

    @property
    def error(self) -> str:
        """Why a stream brings nothing; empty if all do."""
        return next((feed.error for feed in self._all if feed.error), "")

    @property
    def problem(self) -> str:
        """The code of that error; empty if there is none."""
        return next((feed.problem for feed in self._all if feed.error), "")

    def resume(self) -> None:
        """Read, unless the operator has paused."""
        if not self._all:
            self._all = self._make()
        if not self.paused and not self._running:
            self._running = [self._in_background(feed.follow()) for feed in self._all]

    def stop(self) -> None:
        """Stop reading. What has been read by now is kept; connections close in the background."""
        # Forget them now, before they have ended: `resume` starts none while it knows of one.
        for task in self._running:
            task.cancel()
        self._running = []

    def restart(self) -> None:
        """Open the streams again, because their parameters have changed."""
        self.stop()
        self._all = []
        self.resume()

    def pause(self) -> None:
        """Stop the streams, or resume them."""
        self.paused = not self.paused
        if self.paused:
            self.stop()
        else:
            self.resume()

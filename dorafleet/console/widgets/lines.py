"""Widgets of painted lines: a canvas that repaints what has changed, and a log that follows."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from textual.events import Click, MouseScrollDown, MouseScrollUp
from textual.geometry import Region, Size
from textual.message import Message
from textual.scroll_view import ScrollView
from textual.strip import Strip

from dorafleet.console.model.logwindow import MAX_LINES
from dorafleet.console.themes import Palette
from dorafleet.console.view.glyphs import UNICODE, glyphs
from dorafleet.console.view.rows import Span, cut, plain
from dorafleet.console.view.words import width
from dorafleet.console.widgets.paint import strip

MAX_LAYOUTS = 3
"""Layouts that a widget asks for until it has its height."""
PAGE = 0.9
"""The part of a page that PgUp and PgDn move by."""
WHEEL_ROWS = 3
"""Rows that one notch of a mouse wheel moves by."""
MAX_COLUMNS = 2000
"""Columns that a log can be scrolled to the right."""


class Painted(ScrollView):
    """A widget whose lines are spans with named styles."""

    DEFAULT_CSS = """
    Painted { scrollbar-size: 0 0; overflow: hidden hidden; }
    """

    palette = Palette("dark")
    """The styles of all painted widgets; see `use_look`."""
    more = UNICODE.more
    """Ends lines that are longer."""

    @staticmethod
    def use_look(palette: Palette, *, ascii_only: bool) -> None:
        """Let all painted widgets have these styles, and characters that the terminal shows."""
        Painted.palette, Painted.more = palette, glyphs(ascii_only=ascii_only).more

    def line_of(self, spans: Sequence[Span], left: int, over: str = "") -> Strip:
        """Return what is visible of a line of which `left` columns are scrolled out."""
        end = left + self.size.width
        if sum(width(text) for text, _ in spans) > end:
            spans = [*cut(spans, end - 1), (self.more, "key")]
        line = strip(spans, end, self.palette, self.rich_style, over)
        return line.crop(left, end) if left else line

    def move(self, rows: int) -> None:
        """Scroll, or move the cursor, down by `rows`, or up if negative."""
        self.scroll_by(rows=rows)

    def move_pages(self, pages: float) -> None:
        """Move down by pages, or up if negative."""
        self.move(self.rows_of(pages))

    def rows_of(self, pages: float) -> int:
        """Return how many rows are so many pages; at least one."""
        rows = max(1, int(self.size.height * PAGE * abs(pages)))
        return rows if pages > 0 else -rows

    def move_to_end(self, *, first: bool) -> None:
        """Move to the first line, or to the last."""
        self.scroll_to(y=0 if first else self.virtual_size.height, animate=False, force=True)

    def as_text(self) -> list[str]:
        """Return all lines, including those that are not visible."""
        raise NotImplementedError

    @property
    def cursor_line(self) -> int | None:
        """The visible line with the cursor; None without one."""
        return None

    def scroll_by(self, *, rows: int = 0, columns: int = 0) -> None:
        """Scroll, also without the scrollbars that Textual's own keys and wheel need."""
        self.scroll_relative(columns, rows, animate=False, force=True)

    def on_mouse_scroll_down(self, event: MouseScrollDown) -> None:
        """Do what the arrow keys do."""
        event.stop()
        self.move(WHEEL_ROWS)

    def on_mouse_scroll_up(self, event: MouseScrollUp) -> None:
        """Do what the arrow keys do."""
        event.stop()
        self.move(-WHEEL_ROWS)

    _wanted_height = 0
    _layouts_left = 0

    def fit_height(self, lines: int) -> None:
        """Ask for a layout if the height is automatic and must become another one.

        Textual loses a layout that is asked for while one is under way: so it is asked for again
        at the next paints, a few times at most, because the height may be limited.
        """
        height = self.styles.height
        if height is None or not height.is_auto:
            return
        if lines != self._wanted_height:
            self._wanted_height, self._layouts_left = lines, MAX_LAYOUTS
        if self._layouts_left and self.size.height != lines:
            self._layouts_left -= 1
            self.refresh(layout=True)


class Canvas(Painted):
    """Some lines; only those that differ are painted again."""

    class Clicked(Message):
        """A place was clicked."""

        def __init__(self, canvas: Canvas, column: int) -> None:
            super().__init__()
            self.canvas = canvas
            self.column = column

    def __init__(self, *, over: str = "", focusable: bool = False, **options: Any) -> None:
        """The style `over` is laid over all lines."""
        super().__init__(**options)
        self.can_focus = focusable
        self._over = over
        self._lines: list[list[Span]] = []

    def as_text(self) -> list[str]:
        """Return all lines, including those that are not visible."""
        return list(map(plain, self._lines))

    def show(self, lines: Sequence[list[Span]]) -> None:
        """Show these lines from now on."""
        before, self._lines = self._lines, list(lines)
        wide = max((sum(width(text) for text, _ in line) for line in self._lines), default=0)
        if len(before) != len(self._lines) or wide != self.virtual_size.width:
            self.virtual_size = Size(wide, len(self._lines))
        self.fit_height(len(self._lines))
        top = self.scroll_offset.y
        for y in range(self.size.height):
            at = top + y
            old = before[at] if at < len(before) else None
            new = self._lines[at] if at < len(self._lines) else None
            if old != new:
                self.refresh(Region(0, y, self.size.width, 1))

    def get_content_height(self, container: Size, viewport: Size, width: int) -> int:
        """Return the height of all lines."""
        del container, viewport, width
        return len(self._lines)

    def on_resize(self) -> None:
        """Paint everything."""
        self.refresh()

    def on_click(self, event: Click) -> None:
        """Report the place."""
        self.post_message(self.Clicked(self, event.x))

    def render_line(self, y: int) -> Strip:
        """Return one line of the widget."""
        at = self.scroll_offset.y + y
        spans = self._lines[at] if at < len(self._lines) else []
        return self.line_of(spans, self.scroll_offset.x, self._over)


class LogView(Painted, can_focus=True):
    """Items that arrive, the newest at the bottom. It follows them until the cursor is moved up.

    Only what is visible is made into lines.
    """

    class Edge(Message):
        """The operator wants to go beyond the first line, or beyond the last one."""

        def __init__(self, *, first: bool) -> None:
            super().__init__()
            self.first = first

    def __init__(self, paint: Callable[[Any], list[Span]], **options: Any) -> None:
        """`paint` returns the line of an item."""
        super().__init__(**options)
        self._paint = paint
        self.items: list[Any] = []
        """The items of all lines, at most `MAX_LINES`."""
        self._reason = ""
        self._at: int | None = None
        """The line under the cursor; None while it follows the last one."""
        self._top = 0
        self.left = 0
        """Columns that are scrolled out at the left."""
        self.marks: dict[int, Any] = {}
        """The marked items, by their identity."""

    def as_text(self) -> list[str]:
        """Return all lines that are kept."""
        return [plain(self._paint(item)) for item in self.items]

    @property
    def following(self) -> bool:
        """Whether it shows the newest lines as they come."""
        return self._at is None

    @property
    def cursor(self) -> Any:
        """The item under the cursor; None without any."""
        return self.items[-1 if self._at is None else self._at] if self.items else None

    @property
    def cursor_line(self) -> int | None:
        """The visible line with the cursor; the last one while it follows."""
        at = len(self.items) - 1 if self._at is None else self._at
        line = at - self.top
        return line if self.items and 0 <= line < self.size.height else None

    @property
    def chosen(self) -> list[Any]:
        """The marked items in their order, or the one under the cursor."""
        marked = [item for item in self.items if id(item) in self.marks]
        return marked or ([] if self.cursor is None else [self.cursor])

    @property
    def top(self) -> int:
        """The index of the first visible line."""
        last = max(0, len(self.items) - self.size.height)
        return last if self._at is None else min(self._top, last)

    @property
    def is_wide(self) -> bool:
        """Whether there is something to the right or to the left of what is shown."""
        shown = self.items[self.top : self.top + self.size.height]
        return self.left > 0 or any(
            sum(width(text) for text, _ in self._paint(item)) > self.size.width for item in shown
        )

    def add(self, items: Sequence[Any]) -> None:
        """Add items at the bottom; the oldest ones beyond the limit go."""
        before, top = len(self.items), self.top
        self.items += items
        lost = max(0, len(self.items) - MAX_LINES)
        if lost:
            self._forget(self.items[:lost])
            del self.items[:lost]
        if self._at is not None:
            self._at, self._top = max(0, self._at - lost), max(0, top - lost)
        if items and (self.following or before < top + self.size.height or lost > top):
            self.refresh()

    def add_before(self, items: Sequence[Any]) -> None:
        """Add items at the top, without moving what is shown; the newest ones beyond the limit go.

        The cursor stays on its item.
        """
        at = len(self.items) - 1 if self._at is None else self._at
        top = self.top + len(items)
        self.items[:0] = items
        self._forget(self.items[MAX_LINES:])
        del self.items[MAX_LINES:]
        if items:
            self._at, self._top = min(max(at, 0) + len(items), len(self.items) - 1), top
            self.refresh()

    def replace(self, items: Sequence[Any], near: int | None = None) -> None:
        """Show only these items, with the cursor on the one at `near`, or following."""
        shown = set(map(id, items))
        self.marks = {key: item for key, item in self.marks.items() if key in shown}
        offset = self.size.height // 2 if self._at is None else self._at - self.top
        self.items = list(items)
        self._at = None if near is None or not items else min(near, len(items) - 1)
        self._top = 0 if self._at is None else max(0, self._at - offset)
        self.refresh()

    def _forget(self, items: Iterable[Any]) -> None:
        for item in items:
            self.marks.pop(id(item), None)

    def toggle_mark(self) -> None:
        """Mark the line under the cursor, or remove its mark."""
        item = self.cursor
        if item is not None and self.marks.pop(id(item), None) is None:
            self.marks[id(item)] = item
        self.refresh()

    def explain(self, reason: str) -> None:
        """Show why there are no items, while there are none."""
        before, self._reason = self._reason, reason
        if reason != before and not self.items:
            self.refresh()

    def go(self, at: int) -> None:
        """Put the cursor on a line."""
        top = self.top
        self._at = min(max(at, 0), max(0, len(self.items) - 1))
        self._top = min(max(top, self._at - max(self.size.height, 1) + 1), self._at)
        self.refresh()

    def move(self, rows: int) -> None:
        """Move the cursor down by `rows`, or up if negative; at the last line it follows."""
        last = len(self.items) - 1
        at = last if self._at is None else self._at
        if not 0 <= at + rows <= last:
            self.post_message(self.Edge(first=rows < 0))
        if rows > 0 and at + rows >= last:
            self._at = None
            self.refresh()
        elif last >= 0:
            self.go(at + rows)

    def move_pages(self, pages: float) -> None:
        """Scroll down by pages, or up if negative, and move the cursor with what is shown."""
        top, rows = self.top, self.rows_of(pages)
        self.move(rows)
        if self._at is not None:
            first = max(0, self._at - max(self.size.height, 1) + 1)
            self._top = min(max(top + rows, first), self._at)

    def search(self, matches: Callable[[Any], bool], step: int, start: int | None = None) -> bool:
        """Move the cursor to the next item that matches, by steps of 1 or -1.

        It begins at the line `start`, by default beside the cursor. Return False if none matches.
        """
        at = len(self.items) - 1 if self._at is None else self._at
        begin = at + step if start is None else start
        places = range(max(begin, 0), len(self.items)) if step > 0 else range(begin, -1, -1)
        for place in places:
            if matches(self.items[place]):
                if not self.top <= place < self.top + self.size.height:
                    self._at, self._top = place, max(0, place - self.size.height // 2)
                self.go(place)
                return True
        return False

    def scroll_columns(self, columns: int) -> None:
        """Scroll to the right by `columns`, or to the left if negative."""
        self.left = min(max(self.left + columns, 0), MAX_COLUMNS)
        self.refresh()

    def move_to_end(self, *, first: bool) -> None:
        """Show the oldest lines, or the newest and follow."""
        if not first or self._at == 0:
            self.post_message(self.Edge(first=first))
        if first:
            self.go(0)
        else:
            self._at = None
            self.refresh()

    def render_line(self, y: int) -> Strip:
        """Return one line of the widget."""
        at = self.top + y
        if not self.items:
            return self.line_of([(f" {self._reason}", "dim")] if y == 0 else [], 0)
        if at >= len(self.items):
            return self.line_of([], self.left)
        item = self.items[at]
        spans = self._paint(item)
        if id(item) in self.marks:
            spans = [("*", "mark"), (spans[0][0][1:], spans[0][1]), *spans[1:]]
        return self.line_of(spans, self.left, "cursor" if at == self._at else "")

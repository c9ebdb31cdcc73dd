"""Widgets of painted lines: a canvas that repaints what has changed, and a log that follows."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from textual.geometry import Region, Size
from textual.scroll_view import ScrollView

from dorafleet.console.themes import Palette
from dorafleet.console.view.glyphs import UNICODE, glyphs
from dorafleet.console.view.rows import cut
from dorafleet.console.view.words import width
from dorafleet.console.widgets.paint import strip

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from typing import Any

    from textual.events import MouseScrollDown, MouseScrollUp
    from textual.strip import Strip

    from dorafleet.console.view.rows import Span

MAX_LINES = 10_000
"""Lines that a log keeps."""
MAX_LAYOUTS = 3
"""Layouts that a widget asks for until it has its height."""
WHEEL_ROWS = 3
"""Rows that one notch of a mouse wheel moves by."""
MAX_COLUMNS = 2000
"""Columns that a log can be scrolled to the right."""


class Painted(ScrollView):
    """A widget whose lines are spans with named styles."""

    DEFAULT_CSS = """
    Painted { scrollbar-size: 0 0; }
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

    def __init__(self, *, over: str = "", focusable: bool = False, **options: Any) -> None:
        """The style `over` is laid over all lines."""
        super().__init__(**options)
        self.can_focus = focusable
        self._over = over
        self._lines: list[list[Span]] = []

    @property
    def lines(self) -> Sequence[Sequence[Span]]:
        """What is shown."""
        return self._lines

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

    def render_line(self, y: int) -> Strip:
        """Return one line of the widget."""
        at = self.scroll_offset.y + y
        spans = self._lines[at] if at < len(self._lines) else []
        return self.line_of(spans, self.scroll_offset.x, self._over)


class LogView(Painted, can_focus=True):
    """Items that arrive, the newest at the bottom. It follows them until it is scrolled up.

    Only what is visible is made into lines.
    """

    def __init__(self, paint: Callable[[Any], list[Span]], **options: Any) -> None:
        """`paint` returns the line of an item."""
        super().__init__(**options)
        self._paint = paint
        self._kept: deque[Any] = deque(maxlen=MAX_LINES)
        self._reason = ""
        self.following = True
        self._top = 0
        self.left = 0
        """Columns that are scrolled out at the left."""

    @property
    def lines(self) -> Sequence[Sequence[Span]]:
        """All lines that are kept."""
        return [self._paint(item) for item in self._kept]

    @property
    def count(self) -> int:
        """Number of lines that are kept."""
        return len(self._kept)

    @property
    def top(self) -> int:
        """The index of the first visible line."""
        last = max(0, len(self._kept) - self.size.height)
        return last if self.following else min(self._top, last)

    @property
    def is_wide(self) -> bool:
        """Whether there is something to the right or to the left of what is shown."""
        shown = range(self.top, min(self.top + self.size.height, len(self._kept)))
        lines = (self._paint(self._kept[at]) for at in shown)
        return self.left > 0 or any(
            sum(width(text) for text, _ in line) > self.size.width for line in lines
        )

    def add(self, items: Sequence[Any]) -> None:
        """Add items at the bottom."""
        before = len(self._kept)
        self._kept.extend(items)
        lost = before + len(items) - len(self._kept)
        if not self.following:
            self._top = max(0, self._top - lost)
        if items and (self.following or before < self.top + self.size.height or lost > self._top):
            self.refresh()

    def replace(self, items: Iterable[Any]) -> None:
        """Show only these items."""
        self._kept.clear()
        self._kept.extend(items)
        self.following, self._top = True, 0
        self.refresh()

    def explain(self, reason: str) -> None:
        """Show why there are no items, while there are none."""
        before, self._reason = self._reason, reason
        if reason != before and not self._kept:
            self.refresh()

    def move(self, rows: int) -> None:
        """Scroll down by `rows` lines, or up if negative."""
        last = max(0, len(self._kept) - self.size.height)
        self._top = min(max(self.top + rows, 0), last)
        self.following = self._top >= last
        self.refresh()

    def scroll_columns(self, columns: int) -> None:
        """Scroll to the right by `columns`, or to the left if negative."""
        self.left = min(max(self.left + columns, 0), MAX_COLUMNS)
        self.refresh()

    def scroll_to_end_of(self, *, top: bool) -> None:
        """Show the oldest lines, or the newest and follow."""
        self._top, self.following = 0, not top
        self.refresh()

    def render_line(self, y: int) -> Strip:
        """Return one line of the widget."""
        at = self.top + y
        if not self._kept:
            return self.line_of([(f" {self._reason}", "dim")] if y == 0 else [], 0)
        spans = self._paint(self._kept[at]) if at < len(self._kept) else []
        return self.line_of(spans, self.left)

"""A table that paints only the lines that have changed. Cursor and marks are ids, not numbers."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

from textual.events import Click
from textual.geometry import Region, Size
from textual.message import Message
from textual.strip import Strip

from dorafleet.console.model.order import RestingOrder
from dorafleet.console.view.glyphs import glyphs
from dorafleet.console.view.rows import (
    Column,
    Fitted,
    Row,
    Span,
    column_at,
    fitted,
    head,
    last_difference,
    line,
    plain,
)
from dorafleet.console.view.words import clean, longest
from dorafleet.console.widgets.lines import Painted
from dorafleet.console.widgets.paint import strip


class Grid(Painted, can_focus=True):
    """Rows under a line of titles."""

    class Chosen(Message):
        """A row was clicked twice."""

        def __init__(self, grid: Grid, id_: str) -> None:
            super().__init__()
            self.grid = grid
            self.id = id_

        @property
        def control(self) -> Grid:
            """The grid."""
            return self.grid

    class HeadingClicked(Message):
        """The title of a column was clicked."""

        def __init__(self, column: str) -> None:
            super().__init__()
            self.column = column

    def __init__(
        self, columns: Sequence[Column], *, ascii_only: bool = False, **options: Any
    ) -> None:
        super().__init__(**options)
        self._columns = columns
        self._ascii = ascii_only
        self._glyphs = glyphs(ascii_only=ascii_only)
        self._left_out: set[str] = set()
        self._longest: dict[str, int] = {}
        self._empty = ""
        self._fitted: list[Fitted] = []
        self._ids: list[str] = []
        self._row_of: Callable[[str], Row] = lambda id_: Row(id_, ())
        self._painted: dict[int, list[Span]] = {}
        self._heading: list[Span] | None = None
        self._rest = RestingOrder()
        self.cursor: str | None = None
        """The id of the row under the cursor."""
        self.marks: set[str] = set()
        self.dim = False
        """Whether all rows are out of date."""
        self._wanted: str | None = None
        """The row that gets the cursor when the first rows are shown."""
        self._held = False
        """Whether the cursor stays with its row; until the operator uses it, with its place."""
        self._height = 0

    @property
    def ids(self) -> Sequence[str]:
        """The rows in the order in which they are shown."""
        return self._ids

    @property
    def on_screen(self) -> Sequence[str]:
        """The rows that are on the screen."""
        top = self.scroll_offset.y
        return self._ids[top : top + max(0, self.size.height - 1)]

    def shows(self, *keys: str) -> bool:
        """Return True if there is room for one of these columns."""
        return any(each.column.key in keys for each in self._fitted)

    @property
    def chosen(self) -> list[str]:
        """The marked rows, or the one under the cursor."""
        marked = [each for each in self._ids if each in self.marks]
        return marked or ([self.cursor] if self.cursor is not None else [])

    def show(
        self,
        ids: Sequence[str],
        row_of: Callable[[str], Row],
        *,
        heading: list[Span] | None = None,
        dim: bool = False,
        empty: str = "",
    ) -> None:
        """Show these rows; `row_of` makes those that are visible. `heading` replaces the titles.

        Without any row, the text `empty` is shown. The cursor stays with its row once the operator
        has used it. If that is gone, it goes to the row in its place.
        """
        place = self._place
        arranged = self._rest.arrange(ids, time.monotonic())
        count = len(self._ids)
        self._ids, self._row_of = list(arranged), row_of
        self._heading, self.dim, self._empty = heading, dim, empty
        self.marks &= set(self._ids) if self.marks else set()
        if self._ids and self._wanted is not None:
            self.begin_at(self._wanted)
        if self._ids and not (self._held and self.cursor in set(self._ids)):
            self.cursor = self._ids[min(place or 0, len(self._ids) - 1)]
        if not self._ids:
            self.cursor = None
        if len(self._ids) != count:
            self.virtual_size = Size(self.size.width, len(self._ids) + 1)
        self.fit_height(self._lines_needed)
        self._repaint()

    @property
    def _place(self) -> int | None:
        if self.cursor is None:
            return None
        try:
            return self._ids.index(self.cursor)
        except ValueError:
            return None

    @property
    def cursor_line(self) -> int | None:
        """The visible line with the cursor."""
        place = self._place
        line = None if place is None else place - self.scroll_offset.y + 1
        return line if line is not None and 1 <= line < self.size.height else None

    def _repaint(self) -> None:
        """Paint the visible cells that differ from what is on the screen."""
        for y in range(self.size.height):
            before, now = self._painted.get(y), self._spans(y)
            if before == now:
                continue
            # The cursor changes the ground of its whole line.
            same = before is not None and before[:1] == now[:1]
            # Textual sends a line from its begin to the end of what has changed.
            end = last_difference(before, now) if same else 0
            self.refresh(Region(0, y, end or self.size.width, 1))

    def _spans(self, y: int) -> list[Span]:
        if y == 0:
            return self._heading if self._heading is not None else head(self._fitted)
        at = self.scroll_offset.y + y - 1
        if at >= len(self._ids):
            return [(f"  {clean(self._empty)}", "dim")] if at == 0 else []
        id_ = self._ids[at]
        here = id_ == self.cursor
        return line(
            self._row_of(id_),
            self._fitted,
            cursor=here and self.has_focus,
            marked=id_ in self.marks,
            dim=self.dim,
            ascii_only=self._ascii,
            more=self._more(y, at),
        )

    def _more(self, y: int, at: int) -> str:
        """Return what says that rows are above the first visible line, or below the last one."""
        if y == self.size.height - 1 and at + 1 < len(self._ids):
            return self._glyphs.below
        return self._glyphs.above if y == 1 and at else " "

    def get_content_height(self, container: Size, viewport: Size, width: int) -> int:
        """Return the height of all rows."""
        del container, viewport, width
        return self._lines_needed

    @property
    def _lines_needed(self) -> int:
        return max(len(self._ids), bool(self._empty)) + 1

    def leave_out(self, *keys: str) -> None:
        """Leave these columns out, because they would say nothing."""
        if set(keys) != self._left_out:
            self._left_out = set(keys)
            self.on_resize()

    def widen(self, **longest: int) -> None:
        """Make columns as wide as the longest of their texts, up to their limits."""
        if longest != self._longest:
            self._longest = longest
            self.on_resize()

    def on_resize(self) -> None:
        """Choose the columns that fit."""
        self._fitted = fitted(self._columns, self.size.width, self._left_out, self._longest)
        self._painted.clear()
        self.virtual_size = Size(self.size.width, len(self._ids) + 1)
        place, top = self._place, self.scroll_offset.y
        if place is not None and top <= place < top + self._height - 1:
            self.keep_visible()
        self._height = self.size.height
        self.refresh()

    def on_focus(self) -> None:
        """Show the cursor."""
        self._repaint()

    def on_blur(self) -> None:
        """Hide the cursor."""
        self._repaint()

    def watch_scroll_y(self, old_value: float, new_value: float) -> None:
        """Paint everything that has moved."""
        super().watch_scroll_y(old_value, new_value)
        self._painted.clear()

    def render_line(self, y: int) -> Strip:
        """Return one line of the widget."""
        spans = self._painted[y] = self._spans(y)
        at = self.scroll_offset.y + y - 1
        here = y > 0 and at < len(self._ids) and self._ids[at] == self.cursor and self.has_focus
        return strip(
            spans, self.size.width, self.palette, self.rich_style, "cursor" if here else ""
        )

    def move(self, rows: int) -> None:
        """Move the cursor down by `rows`, or up if negative."""
        if not self._ids:
            return
        place = self._place or 0
        self.jump(place + rows)

    def jump(self, place: int) -> None:
        """Move the cursor to a place, the last one if there are fewer."""
        if not self._ids:
            return
        self.hold_cursor()
        self._rest.moved(time.monotonic())
        self.cursor = self._ids[min(max(place, 0), len(self._ids) - 1)]
        self.keep_visible()
        self._repaint()

    def move_to_end(self, *, first: bool) -> None:
        """Move the cursor to the first row, or to the last."""
        self.jump(0 if first else len(self._ids))

    def begin_at(self, id_: str | None) -> None:
        """Put the cursor on this row, now or when the first rows are shown."""
        self._wanted = None if self._ids else id_
        if id_ in self._ids:
            self.jump(self._ids.index(id_))

    def hold_cursor(self) -> None:
        """Keep the cursor with its row from now on, wherever that goes."""
        self._held = True

    def as_text(self) -> list[str]:
        """Return the titles and all rows as lines, all columns as wide as their texts."""
        rows = [self._row_of(id_) for id_ in self._ids]
        columns = [
            Fitted(at, each, longest([each.title, *(row.cells[at].text for row in rows)]))
            for at, each in enumerate(self._columns)
            if each.key not in self._left_out
        ]
        titles = self._heading if self._heading is not None else head(columns)
        lines = (line(row, columns, ascii_only=self._ascii) for row in rows)
        return [plain(spans).rstrip() for spans in (titles, *lines)]

    def keep_visible(self) -> None:
        """Scroll so that the cursor is on the screen."""
        place, room = self._place, self.size.height - 1
        if place is None or room <= 0:
            return
        top = self.scroll_offset.y
        if place < top:
            self.scroll_to(y=place, animate=False, force=True)
        elif place >= top + room:
            self.scroll_to(y=place - room + 1, animate=False, force=True)

    def toggle_mark(self) -> None:
        """Mark the row under the cursor, or remove its mark; then go to the next row."""
        if self.cursor is None:
            return
        self.marks ^= {self.cursor}
        self.move(1)
        self._repaint()

    def on_click(self, event: Click) -> None:
        """Move the cursor to the row that was clicked; a second click opens it."""
        at = self.scroll_offset.y + event.y - 1
        if event.y == 0 and self._heading is None:
            column = column_at(self._fitted, event.x)
            if column is not None:
                self._rest = RestingOrder()
                self.post_message(self.HeadingClicked(column))
        if event.y < 1 or at >= len(self._ids):
            return
        again = self._ids[at] == self.cursor and event.chain > 1
        self.jump(at)
        if again and self.cursor is not None:
            self.post_message(self.Chosen(self, self.cursor))

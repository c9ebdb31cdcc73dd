"""A table, a log or a drawing: how keys move it, and its text."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

from dorafleet.console.widgets.grid import Grid
from dorafleet.console.widgets.lines import Canvas, LogView

if TYPE_CHECKING:
    from textual.widget import Widget

PAGE = 0.9
"""The part of a page that PgUp and PgDn move by."""

Scroller: TypeAlias = "Grid | LogView | Canvas"
SCROLLERS = (Grid, LogView, Canvas)


def text_of(widget: Widget) -> list[str]:
    """Return all of it as lines, also what is not visible; none of another widget."""
    match widget:
        case Grid() as grid:
            return grid.as_text()
        case LogView() | Canvas() as drawn:
            return ["".join(text for text, _ in spans) for spans in drawn.lines]
    return []


def move_pages(widget: Scroller | None, pages: int) -> None:
    """Move by pages."""
    if widget is not None:
        widget.move(pages * max(1, int(widget.size.height * PAGE)))


def move_to_end(widget: Scroller | None, *, first: bool) -> None:
    """Move to the first line, or to the last."""
    match widget:
        case Grid() as grid:
            grid.jump(0 if first else len(grid.ids))
        case LogView() as view:
            view.scroll_to_end_of(top=first)
        case Canvas() as canvas:
            canvas.scroll_to(
                y=0 if first else canvas.virtual_size.height, animate=False, force=True
            )

"""What the arrow keys do to the widget that has the focus: a table, a log or a drawing."""

from __future__ import annotations

from typing import TypeAlias

from dorafleet.console.widgets.grid import Grid
from dorafleet.console.widgets.lines import Canvas, LogView

PAGE = 0.9
"""The part of a page that PgUp and PgDn move by."""

Scroller: TypeAlias = "Grid | LogView | Canvas"


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

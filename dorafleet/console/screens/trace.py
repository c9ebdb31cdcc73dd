"""Screen Trace: says that the server offers no message traces, and what there is instead."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dorafleet.console.screens.base import ConsoleScreen
from dorafleet.console.view.bars import Crumbs
from dorafleet.console.widgets.lines import Canvas

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from textual.widget import Widget


class TraceScreen(ConsoleScreen):
    """Message traces."""

    NAME = "trace"
    AUTO_FOCUS = "#content"

    @classmethod
    def about(cls, words: Sequence[str]) -> ConsoleScreen | str:
        """Return the screen."""
        return "`trace` takes no words" if words else cls()

    def again(self) -> ConsoleScreen:
        """Return a new screen that shows the same."""
        return TraceScreen()

    def body(self) -> Iterable[Widget]:
        """Return the text."""
        yield Canvas(id="content", focusable=True)

    def crumbs(self) -> Crumbs:
        """Return the title."""
        return Crumbs("Trace")

    def paint(self, now: float) -> None:
        """Show what is missing."""
        del now
        server = self.server.link.server or "the server"
        self.query_one("#content", Canvas).show(
            [
                [(f" {server} does not offer `trace.list`.", "warn")],
                [],
                [(" Traces of messages are not part of this version.", "")],
                [(" Screen Top has the latency and the queue of each edge.", "")],
            ]
        )

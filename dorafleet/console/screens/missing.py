"""A screen for what the server does not offer: it says so, and what there is instead."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from dorafleet.console.screens.base import ConsoleScreen
from dorafleet.console.view.bars import Crumbs
from dorafleet.console.widgets.lines import Canvas

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from textual.widget import Widget


class MissingScreen(ConsoleScreen):
    """Says what is missing."""

    METHOD: ClassVar[str] = ""
    ABOUT: ClassVar[tuple[str, ...]] = ()
    AUTO_FOCUS = "#content"

    @classmethod
    def about(cls, words: Sequence[str]) -> ConsoleScreen | str:
        """Return the screen."""
        del words
        return cls()

    def again(self) -> ConsoleScreen:
        """Return a new screen that shows the same."""
        return type(self)()

    def body(self) -> Iterable[Widget]:
        """Return the text."""
        yield Canvas(id="content", focusable=True)

    def crumbs(self) -> Crumbs:
        """Name the screen."""
        return Crumbs(self.NAME.capitalize())

    def paint(self, now: float) -> None:
        """Say what is missing."""
        del now
        server = self.server.link.server or "the server"
        first = f" {server} does not offer `{self.METHOD}`."
        lines = [[(first, "warn")], [], *([(f" {text}", "")] for text in self.ABOUT)]
        self.query_one("#content", Canvas).show(lines)

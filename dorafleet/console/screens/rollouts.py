"""Screen Rollouts: the last rollouts, the newest first, and how each has ended."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dorafleet.console.link.streams import Feed, polled
from dorafleet.console.screens.base import ConsoleScreen
from dorafleet.console.view import rolloutrows, words
from dorafleet.console.view.bars import Crumbs
from dorafleet.console.widgets.grid import Grid
from dorafleet.console.widgets.lines import Canvas
from dorafleet.rollout.messages import ROLLOUT_LIST, RolloutList, RolloutRef

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from textual.widget import Widget

    from dorafleet.rollout.messages import RolloutSummary

EVERY_S = 5.0


class RolloutsScreen(ConsoleScreen):
    """The rollouts that the coordinator remembers."""

    NAME = "rollouts"
    FILTER_KEYS = rolloutrows.KEYS
    AUTO_FOCUS = "Grid"

    def __init__(self) -> None:
        super().__init__()
        self._found: list[RolloutSummary] | None = None
        self._shown: dict[str, RolloutSummary] = {}

    @classmethod
    def about(cls, words: Sequence[str]) -> ConsoleScreen | str:
        """Return the screen."""
        return "`rollouts` takes no words; `rollout 12` is about one" if words else cls()

    def again(self) -> ConsoleScreen:
        """Return a new screen that shows the same."""
        return RolloutsScreen()

    def body(self) -> Iterable[Widget]:
        """Return the table, and the rollout under the cursor in full."""
        yield Grid(rolloutrows.COLUMNS, ascii_only=self.ascii_only)
        yield Canvas(id="facts", classes="auto")

    def streams(self) -> list[Feed[Any]]:
        """Ask for the list again and again."""
        return [
            Feed(
                self.server,
                lambda c: polled(lambda: c.call(ROLLOUT_LIST, RolloutRef()), EVERY_S),
                self._take,
            )
        ]

    def _take(self, found: RolloutList) -> None:
        self._found = found.rollouts
        self.bring()

    def crumbs(self) -> Crumbs:
        """Return the title, with the number of rollouts."""
        known = self._found
        return Crumbs(
            "Rollouts", amount="" if known is None else f"{len(self._shown)} of {len(known)}"
        )

    def paint(self, now: float) -> None:
        """Show the rollouts, the newest first."""
        found = self._found or []
        self._shown = {
            str(each.rollout): each
            for each in rolloutrows.newest_first(found)
            if self.filter.matches(rolloutrows.cells(each, now))
        }
        shown = self._shown
        grid = self.query_one(Grid)
        grid.widen(
            state=words.longest(map(rolloutrows.state, found)),
            release=words.longest(each.name for each in found),
            by=words.longest(each.by for each in found),
        )
        grid.show(
            list(shown),
            lambda id_: rolloutrows.row(shown[id_]),
            dim=self.outdated,
            empty=self._empty(),
        )
        chosen = shown.get(grid.cursor or "")
        facts = [] if chosen is None else rolloutrows.lines(chosen, now, self.size.width)
        self.query_one("#facts", Canvas).show(facts)

    def _empty(self) -> str:
        if self.feeds.problem in ("unknown-method", "unsupported"):
            server = self.server.link.server or "the server"
            return f"{server} offers no rollouts: they need a coordinator"
        if self._found == []:
            return "no rollout yet; `:releases` leads to the plan of one"
        return self.empty_text("rollout", known=self._found is not None)

    def argv(self) -> Sequence[str]:
        """Return the command that prints the same."""
        return ("dorafleet", "rollout", "history")

    def can_open(self) -> bool:
        """Return True if there is a rollout."""
        return self.query_one(Grid).cursor is not None

    def open_chosen(self) -> None:
        """Open the rollout."""
        if number := self.query_one(Grid).cursor:
            self.console.open_about("rollout", [number])

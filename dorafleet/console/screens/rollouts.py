"""Screen Rollouts: the last rollouts, the newest first, and how each has ended."""

from collections.abc import Iterable, Sequence
from typing import Any

from textual.widget import Widget

from dorafleet.console.link.streams import Feed, polling
from dorafleet.console.screens.base import ConsoleScreen
from dorafleet.console.view import rolloutrows, words
from dorafleet.console.view.bars import Crumbs
from dorafleet.console.widgets.grid import Grid
from dorafleet.console.widgets.lines import Canvas
from dorafleet.rollout.messages import ROLLOUT_LIST, RolloutList, RolloutRef, RolloutSummary

EVERY_S = 5.0


class RolloutsScreen(ConsoleScreen):
    """The rollouts that the coordinator remembers."""

    NAME = "rollouts"
    FILTER_KEYS = rolloutrows.KEYS
    AUTO_FOCUS = "Grid"
    OPENS = True
    ABOUT_WORDS = "; `rollout 12` is about one"

    def __init__(self) -> None:
        super().__init__()
        self._found: list[RolloutSummary] | None = None
        self._shown: dict[str, RolloutSummary] = {}

    def body(self) -> Iterable[Widget]:
        """Return the table, and the rollout under the cursor in full."""
        yield Grid(rolloutrows.COLUMNS, ascii_only=self.ascii_only)
        yield Canvas(id="facts", classes="auto")

    def streams(self) -> list[Feed[Any]]:
        """Ask for the list again and again."""
        return [polling(self.server, ROLLOUT_LIST, RolloutRef(), EVERY_S, self._take)]

    def _take(self, listed: RolloutList) -> None:
        self._found = listed.rollouts
        self.bring()

    def crumbs(self) -> Crumbs:
        """Return the title, with the number of rollouts."""
        known = self._found
        return Crumbs(
            "Rollouts", amount="" if known is None else f"{len(self._shown)} of {len(known)}"
        )

    def paint(self, now: float) -> None:
        """Show the rollouts, the newest first."""
        rollouts = self._found or []
        self._shown = {
            str(each.rollout): each
            for each in rolloutrows.newest_first(rollouts)
            if self.filter.matches(rolloutrows.cells(each, now))
        }
        shown = self._shown
        grid = self.query_one(Grid)
        grid.widen(
            state=words.longest(map(rolloutrows.state, rollouts)),
            release=words.longest(each.name for each in rollouts),
            by=words.longest(each.by for each in rollouts),
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
        if lacking := self.lacking("offers no rollouts"):
            return lacking
        if self._found == []:
            return "no rollout yet; `:releases` leads to the plan of one"
        return self.empty_text("rollout", known=self._found is not None)

    def argv(self) -> Sequence[str]:
        """Return the command that prints the same."""
        return ("dorafleet", "rollout", "history")

    def open_chosen(self) -> None:
        """Open the rollout."""
        if number := self.query_one(Grid).cursor:
            self.console.open_about("rollout", [number])

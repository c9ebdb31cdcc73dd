"""Screen Releases: those that the coordinator has; each opens the plan of its rollout."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dorad.control.messages import Nothing
from dorafleet.console.link.streams import Feed, polled
from dorafleet.console.screens.base import ConsoleScreen
from dorafleet.console.view import releaserows, words
from dorafleet.console.view.bars import Crumbs
from dorafleet.console.widgets.grid import Grid
from dorafleet.rollout.messages import RELEASE_LIST, ReleaseList

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from textual.widget import Widget

    from dorafleet.rollout.messages import ReleaseInfo

EVERY_S = 5.0


class ReleasesScreen(ConsoleScreen):
    """The registered releases."""

    NAME = "releases"
    FILTER_KEYS = releaserows.KEYS
    AUTO_FOCUS = "Grid"

    def __init__(self) -> None:
        super().__init__()
        self._found: list[ReleaseInfo] | None = None
        self._shown: dict[str, ReleaseInfo] = {}

    @classmethod
    def about(cls, words: Sequence[str]) -> ConsoleScreen | str:
        """Return the screen."""
        return "`releases` takes no words" if words else cls()

    def again(self) -> ConsoleScreen:
        """Return a new screen that shows the same."""
        return ReleasesScreen()

    def body(self) -> Iterable[Widget]:
        """Return the table."""
        yield Grid(releaserows.COLUMNS, ascii_only=self.ascii_only)

    def streams(self) -> list[Feed[Any]]:
        """Ask for the list again and again."""
        return [
            Feed(
                self.server,
                lambda c: polled(lambda: c.call(RELEASE_LIST, Nothing()), EVERY_S),
                self._take,
            )
        ]

    def _take(self, found: ReleaseList) -> None:
        self._found = found.releases
        self.bring()

    def crumbs(self) -> Crumbs:
        """Return the title, with the number of releases."""
        known = self._found
        return Crumbs(
            "Releases", amount="" if known is None else f"{len(self._shown)} of {len(known)}"
        )

    def paint(self, now: float) -> None:
        """Show the releases, the newest first, and how many robots run each."""
        found = self._found or []
        users = releaserows.users(self.server.fleet.rows.values())
        self._shown = {
            each.id: each
            for each in found
            if self.filter.matches(releaserows.cells(each, users, now))
        }
        shown = self._shown
        grid = self.query_one(Grid)
        grid.widen(release=words.longest(map(releaserows.label, found)))
        grid.show(
            list(shown),
            lambda id_: releaserows.row(shown[id_], users, now),
            dim=self.outdated,
            empty=self._empty(),
        )

    def _empty(self) -> str:
        if self.feeds.problem in ("unknown-method", "unsupported"):
            server = self.server.link.server or "the server"
            return f"{server} has no releases: they need a coordinator"
        if self._found == []:
            return "no release yet; `dorafleet release build` makes one, and `push` registers it"
        return self.empty_text("release", known=self._found is not None)

    def argv(self) -> Sequence[str]:
        """Return the command that shows the plan of the release under the cursor."""
        info = self._shown.get(self.query_one(Grid).cursor or "")
        return ("dorafleet", "plan", releaserows.label(info) if info else "RELEASE")

    def can_open(self) -> bool:
        """Return True if there is a release."""
        return self.query_one(Grid).cursor is not None

    def open_chosen(self) -> None:
        """Show what a rollout of the release would do."""
        info = self._shown.get(self.query_one(Grid).cursor or "")
        if info is not None:
            self.console.open_about("plan", [releaserows.label(info)])

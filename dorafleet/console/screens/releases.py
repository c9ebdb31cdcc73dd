"""Screen Releases: those that the coordinator has; each opens the plan of its rollout."""

from collections.abc import Sequence
from typing import Any

from dorad.control.messages import Nothing
from dorafleet.console.link.streams import Feed, polling
from dorafleet.console.screens.base import ConsoleScreen
from dorafleet.console.view import releaserows, words
from dorafleet.console.view.bars import Crumbs
from dorafleet.console.widgets.grid import Grid
from dorafleet.coordinator.deploymentmessages import DEPLOYMENT_LIST, DeploymentList
from dorafleet.rollout.messages import RELEASE_LIST, ReleaseInfo, ReleaseList

EVERY_S = 5.0


class ReleasesScreen(ConsoleScreen):
    """The registered releases."""

    NAME = "releases"
    FILTER_KEYS = releaserows.KEYS
    COLUMNS = releaserows.COLUMNS
    AUTO_FOCUS = "Grid"
    OPENS = True

    def __init__(self) -> None:
        super().__init__()
        self._found: list[ReleaseInfo] | None = None
        self._deployed: dict[str, str] | None = None
        """Instances by release; None unless the server has deployments."""
        self._shown: dict[str, ReleaseInfo] = {}

    def streams(self) -> list[Feed[Any]]:
        """Ask for the list again and again."""
        return [
            polling(self.server, RELEASE_LIST, Nothing(), EVERY_S, self._take),
            polling(self.server, DEPLOYMENT_LIST, Nothing(), EVERY_S, self._take_deployments),
        ]

    def _take(self, listed: ReleaseList) -> None:
        self._found = listed.releases
        self.bring()

    def _take_deployments(self, listed: DeploymentList) -> None:
        self._deployed = releaserows.deployed(listed.deployments)
        self.bring()

    def crumbs(self) -> Crumbs:
        """Return the title, with the number of releases."""
        known = self._found
        return Crumbs(
            "Releases", amount="" if known is None else f"{len(self._shown)} of {len(known)}"
        )

    def paint(self, now: float) -> None:
        """Show the releases, the newest first, and how many robots run each."""
        releases = self._found or []
        users = releaserows.users(self.server.fleet.rows.values())
        instances = self._deployed or {}
        self._shown = {
            each.id: each
            for each in releases
            if self.filter.matches(releaserows.cells(each, users, instances, now))
        }
        shown = self._shown
        grid = self.query_one(Grid)
        grid.widen(
            release=words.longest(map(releaserows.label, releases)),
            instances=words.longest(instances.values()),
        )
        grid.leave_out(*(("instances",) if self._deployed is None else ()))
        grid.show(
            list(shown),
            lambda id_: releaserows.row(shown[id_], users, instances, now),
            dim=self.outdated,
            empty=self._empty(),
        )

    def _empty(self) -> str:
        if lacking := self.lacking("has no releases"):
            return lacking
        if self._found == []:
            return "no release yet; `dorafleet release build` makes one, and `push` registers it"
        return self.empty_text("release", known=self._found is not None)

    def argv(self) -> Sequence[str]:
        """Return the command that shows the plan of the release under the cursor."""
        info = self._shown.get(self.query_one(Grid).cursor or "")
        return ("dorafleet", "plan", releaserows.label(info) if info else "RELEASE")

    def open_chosen(self) -> None:
        """Show what a rollout of the release would do."""
        info = self._shown.get(self.query_one(Grid).cursor or "")
        if info is not None:
            self.console.open_about("plan", [releaserows.label(info)])

"""Screen Plan: what a rollout would do, robot by robot; its action starts it."""

from collections.abc import Iterable, Sequence
from typing import Any

import msgspec
from textual.widget import Widget

from dorafleet.console.link.streams import Feed, polling
from dorafleet.console.model.commands import selecting
from dorafleet.console.model.targets import Target
from dorafleet.console.screens.base import ConsoleScreen
from dorafleet.console.view import planlines, words
from dorafleet.console.view.bars import Crumbs
from dorafleet.console.view.rows import Row
from dorafleet.console.widgets.grid import Grid
from dorafleet.console.widgets.lines import Canvas
from dorafleet.rollout.messages import ROLLOUT_PLAN, RolloutNew, RolloutPlan

EVERY_S = 5.0


class PlanScreen(ConsoleScreen):
    """The plan of one rollout."""

    NAME = "plan"
    FILTER_KEYS = planlines.KEYS
    AUTO_FOCUS = "Grid"
    OPENS = True

    def __init__(self, request: RolloutNew) -> None:
        super().__init__()
        self._request = request
        self._plan: RolloutPlan | None = None

    @classmethod
    def about(cls, words: Sequence[str]) -> ConsoleScreen | str:
        """Return the screen about a release, and the robots or labels after it."""
        if not words or not all(words) or any(word.startswith("=") for word in words):
            return (
                "name a release, and robots or labels: `plan pick@4 arm017`, `plan pick zone=hall`"
            )
        release, *selection = words
        robots = [word for word in selection if "=" not in word]
        labels = dict(word.split("=", 1) for word in selection if "=" in word)
        return cls(RolloutNew(release=release, robots=robots, labels=labels))

    def again(self) -> ConsoleScreen:
        """Return a new screen that shows the same."""
        return PlanScreen(self._request)

    @property
    def subject(self) -> tuple[str | None, ...]:
        """What would be rolled out, and where."""
        return tuple(selecting(self._request))

    def body(self) -> Iterable[Widget]:
        """Return the summary and the robots."""
        yield Canvas(id="facts", classes="auto")
        yield Grid(planlines.COLUMNS, ascii_only=self.ascii_only)

    def streams(self) -> list[Feed[Any]]:
        """Ask for the plan again and again: what robots have changes it."""
        return [polling(self.server, ROLLOUT_PLAN, self._request, EVERY_S, self._take)]

    def _take(self, plan: RolloutPlan) -> None:
        self._plan = plan
        self.bring()

    def crumbs(self) -> Crumbs:
        """Name the release, and count the robots that would get it."""
        path = f"Plan > {self._request.release}"
        if self._plan is None:
            return Crumbs(path)
        size, known = len(planlines.switching(self._plan)), len(self._plan.robots)
        return Crumbs(path, amount=f"{size} of {words.counted(known, 'robot')} would switch")

    def paint(self, now: float) -> None:
        """Show what would change, and each robot."""
        plan = self._plan
        facts = [] if plan is None else planlines.lines(plan, now, *self.size)
        self.query_one("#facts", Canvas).show(facts)
        planned = [] if plan is None else planlines.in_order(plan.robots)
        rows = {each.robot: each for each in planned}
        ids = [
            id_
            for id_, each in rows.items()
            if plan is not None and self.filter.matches(planlines.cells(plan, each))
        ]
        grid = self.query_one(Grid)
        grid.widen(robot=words.longest(rows))
        empty = self.empty_text("robot", known=plan is not None)
        if self.feeds.problem and not self.stale:
            empty = "there is no plan"  # the line above the keys says why

        def row(id_: str) -> Row:
            assert plan is not None
            return planlines.row(plan, rows[id_])

        grid.show(ids, row, dim=self.outdated, empty=empty)

    def targets(self) -> list[Target]:
        """Return the rollout, as it is shown: the server starts no other one."""
        plan = self._plan
        if plan is None or self.outdated:
            return []
        robots = planlines.switching(plan)
        asked = msgspec.structs.replace(
            self._request, release=plan.release.id, if_version=plan.version
        )
        name = plan.names.get(plan.release.id, self._request.release)
        title = f"{name} on {words.counted(len(robots), 'robot')}"
        return [Target(title=title, plan=asked, switches={"start-rollout": robots})]

    def target(self) -> Target:
        """Return the robot under the cursor, with the dataflow if it runs another release of it."""
        robot, plan = self.query_one(Grid).cursor, self._plan
        if robot is None or plan is None:
            return Target()
        runs = any(each.robot == robot and each.before for each in plan.robots)
        dataflow = self.server.named(robot, plan.release.name) if runs else ""
        return Target(dataflow, robot=robot, title=robot)

    def argv(self) -> Sequence[str]:
        """Return the command that prints the same."""
        return ("dorafleet", "plan", *selecting(self._request))

    def open_chosen(self) -> None:
        """Open the robot."""
        if robot := self.query_one(Grid).cursor:
            self.console.open_about("robot", [robot])

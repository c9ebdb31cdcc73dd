"""Screen Rollout: the waves of a rollout and its robots, those with trouble first."""

import logging
from collections.abc import Iterable, Sequence
from typing import Any

from textual.widget import Widget

from dorad.control.asyncclient import AsyncClient, AsyncStream
from dorad.control.errors import ControlError
from dorafleet.console.link.streams import Feed
from dorafleet.console.model.targets import Target, on_rollout
from dorafleet.console.screens.base import ConsoleScreen
from dorafleet.console.screens.rollouts import RolloutsScreen
from dorafleet.console.view import rolloutlines, words
from dorafleet.console.view.bars import Crumbs
from dorafleet.console.view.rows import Span
from dorafleet.console.widgets.grid import Grid
from dorafleet.console.widgets.lines import Canvas
from dorafleet.rollout.messages import (
    ROLLOUT_STATUS,
    ROLLOUT_WATCH,
    RolloutRef,
    RolloutRobot,
    RolloutSummary,
    RolloutUpdate,
    RolloutWatch,
)

_log = logging.getLogger(__name__)


class RolloutScreen(ConsoleScreen):
    """One rollout, by default the newest that has not ended."""

    NAME = "rollout"
    FILTER_KEYS = rolloutlines.KEYS
    AUTO_FOCUS = "Grid"
    OPENS = True

    def __init__(self, number: int | None) -> None:
        super().__init__()
        self.number = number
        self._rollouts: dict[int, RolloutSummary] = {}
        self._robots: dict[int, dict[str, RolloutRobot]] = {}
        self._answered = False
        self._is_first = True
        """Whether the next update is the first of its stream, which lists all rollouts that run."""

    @classmethod
    def about(cls, words: Sequence[str]) -> ConsoleScreen | str:
        """Return the screen about a rollout."""
        if len(words) > 1 or (words and not words[0].isdecimal()):
            return "name a rollout by its number: `rollout 12`; `plan RELEASE` leads to a new one"
        return cls(int(words[0]) if words else None)

    def again(self) -> ConsoleScreen:
        """Return a new screen that shows the same."""
        return RolloutScreen(self.number)

    def body(self) -> Iterable[Widget]:
        """Return the summary, the robots, and the reason of one if it is long."""
        yield Canvas(id="facts", classes="auto")
        yield Grid(rolloutlines.COLUMNS, ascii_only=self.ascii_only)
        yield Canvas(id="chosen", classes="auto")

    def streams(self) -> list[Feed[Any]]:
        """Follow the rollouts."""
        return [Feed(self.server, self._opened, self._take)]

    def _opened(self, client: AsyncClient) -> AsyncStream[RolloutUpdate]:
        self._is_first = True
        return client.stream(ROLLOUT_WATCH, RolloutWatch(rollout=self.number))

    def _take(self, update: RolloutUpdate) -> None:
        if self._is_first:
            self._is_first = False
            listed = {each.rollout for each in update.rollouts}
            for number, each in self._rollouts.items():
                if not each.over and number not in listed:
                    self.console.in_background(self._ask_about(number))
            if not listed and not self._rollouts:
                self.console.in_background(self._ask_about(None))
        self._answered = True
        self._keep(update.rollouts, update.robots)

    def _keep(self, rollouts: Iterable[RolloutSummary], robots: Iterable[RolloutRobot]) -> None:
        self._rollouts.update((each.rollout, each) for each in rollouts)
        for robot in robots:
            self._robots.setdefault(robot.rollout, {})[robot.robot] = robot
        self.bring()

    async def _ask_about(self, number: int | None) -> None:
        """Ask how a rollout ended that is no longer followed; None is the newest."""
        try:
            detail = await self.server.call(ROLLOUT_STATUS, RolloutRef(rollout=number))
        except ControlError as error:
            _log.debug("the end of rollout %s is not known: %s", number, error)
            if number is not None:
                self._rollouts.pop(number, None)
            self.bring()
        else:
            self._keep([detail.summary], detail.robots)

    @property
    def _shown(self) -> RolloutSummary | None:
        number = self.number or max(self._rollouts, default=0)
        return self._rollouts.get(number)

    def crumbs(self) -> Crumbs:
        """Name the rollout."""
        shown = self._shown
        path = "Rollouts" if shown is None else f"Rollouts > {shown.rollout}"
        if shown is None:
            return Crumbs(path, amount="none" if self._answered else "")
        amount = f"{len(self.query_one(Grid).ids)} of {shown.size} robots"
        instances = {each.instance for each in self._robots.get(shown.rollout, {}).values()} - {""}
        if instances:
            amount += f" in {words.counted(len(instances), 'instance')}"
        return Crumbs(path, amount=amount)

    def paint(self, now: float) -> None:
        """Show the rollout and its robots."""
        shown = self._shown
        robots = {} if shown is None else self._robots.get(shown.rollout, {})
        others = [x for x in self._rollouts.values() if not x.over and x is not shown]
        facts = (
            self._nothing()
            if shown is None
            else rolloutlines.lines(shown, now, self.size.width, others)
        )
        self.query_one("#facts", Canvas).show(facts)
        ids = [
            each.robot
            for each in rolloutlines.worst_first(robots.values())
            if self.filter.matches(rolloutlines.cells(each, now))
        ]
        grid = self.query_one(Grid)
        instances = [each.instance for each in robots.values() if each.instance]
        grid.widen(robot=words.longest(robots), instance=words.longest(instances))
        grid.leave_out(*(() if instances else ("instance",)))
        empty = self.empty_text("robot", known=shown is not None) if shown is not None else ""
        grid.show(
            ids, lambda id_: rolloutlines.row(robots[id_], now), dim=self.outdated, empty=empty
        )
        lines = rolloutlines.chosen(robots.get(grid.cursor or ""), self.size.width)
        self.query_one("#chosen", Canvas).show(lines)

    def _nothing(self) -> list[list[Span]]:
        if self._answered:
            return [[(" no rollout yet; `:releases` leads to the plan of one", "dim")]]
        if lacking := self.lacking("offers no rollouts"):
            return [[(f" {lacking}", "warn")]]
        return [[(f" {self.empty_text('rollout', known=False)}", "dim")]]

    def target(self) -> Target:
        """Return the robot under the cursor."""
        robot, shown = self.query_one(Grid).cursor, self._shown
        if robot is None or shown is None:
            return Target()
        named = self.server.named(robot, shown.dataflow)
        return Target(named, "", robot, title=f"{robot}: {shown.dataflow}")

    def targets(self) -> list[Target]:
        """Return the rollout; all actions but one are done to it, not to what is at the cursor."""
        shown = self._shown
        if shown is None:
            return []
        robots = rolloutlines.by_wave(self._robots.get(shown.rollout, {}).values())
        return [on_rollout(shown, robots, self.query_one(Grid).cursor)]

    def argv(self) -> Sequence[str]:
        """Return the command that prints the same."""
        shown = self._shown
        argv = ["dorafleet", "rollout", "status"]
        return argv if shown is None else [*argv, str(shown.rollout)]

    def action_back(self) -> None:
        """Remove the filter, then go to the list of rollouts, also if another screen led here."""
        below = self.console.screen_stack[-2]
        if self.filter or not self._rollouts or isinstance(below, RolloutsScreen):
            super().action_back()
        else:
            self.console.replace_screen(RolloutsScreen())

    def open_chosen(self) -> None:
        """Open the robot."""
        if robot := self.query_one(Grid).cursor:
            self.console.open_about("robot", [robot])

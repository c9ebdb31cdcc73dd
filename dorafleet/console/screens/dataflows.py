"""Screen Dataflows: those that the server and robots run, and those that can begin again."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dorad.control.messages import DATAFLOW_LIST, DataflowList, Nothing
from dorafleet.console.link.streams import Feed, polled
from dorafleet.console.model.targets import Target
from dorafleet.console.screens.base import ConsoleScreen
from dorafleet.console.view import flowrows, words
from dorafleet.console.view.bars import Crumbs
from dorafleet.console.widgets.grid import Grid

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from textual.widget import Widget

    from dorad.control.messages import DataflowInfo
    from dorafleet.console.view.flowrows import RobotFlow

EVERY_S = 2.0


class DataflowsScreen(ConsoleScreen):
    """The dataflows of the server."""

    NAME = "dataflows"
    FILTER_KEYS = flowrows.KEYS
    AUTO_FOCUS = "Grid"

    def __init__(self) -> None:
        super().__init__()
        self._found: DataflowList | None = None
        self._count = 0
        self._shown: dict[str, DataflowInfo] = {}
        self._of_robots: dict[str, RobotFlow] = {}

    @classmethod
    def about(cls, words: Sequence[str]) -> ConsoleScreen | str:
        """Return the screen."""
        return "`dataflows` takes no words" if words else cls()

    def again(self) -> ConsoleScreen:
        """Return a new screen that shows the same."""
        return DataflowsScreen()

    def body(self) -> Iterable[Widget]:
        """Return the table."""
        yield Grid(flowrows.COLUMNS, ascii_only=self.ascii_only)

    def streams(self) -> list[Feed[Any]]:
        """Ask for the list again and again."""
        return [
            Feed(
                self.server,
                lambda c: polled(lambda: c.call(DATAFLOW_LIST, Nothing()), EVERY_S),
                self._take,
            )
        ]

    def _take(self, found: DataflowList) -> None:
        self._found = found
        self.bring()

    def crumbs(self) -> Crumbs:
        """Return the title, with the number of rows shown."""
        found = self._found
        count = len(self._shown) + len(self._of_robots)
        amount = "" if found is None else f"{count} of {self._count}"
        note = "" if found is None else words.no_answer(found.missing)
        return Crumbs("Dataflows", amount=amount, note=note)

    def paint(self, now: float) -> None:
        """Show the last list: what runs, on the server and on robots, then what has ended last."""
        found = [] if self._found is None else self._found.dataflows
        rows = self.server.fleet.rows.values() if self._found is not None else ()
        robots = flowrows.on_robots(rows, found)
        self._count = len(found) + len(robots)
        matching = [x for x in found if self.filter.matches(flowrows.cells(x, now))]
        self._shown = {each.uuid: each for each in flowrows.arranged(matching)}
        self._of_robots = {
            each.id: each for each in robots if self.filter.matches(flowrows.robot_cells(each))
        }
        shown, own = self._shown, self._of_robots
        ids = sorted([*shown, *own], key=lambda id_: id_ in shown and not shown[id_].active)
        grid = self.query_one(Grid)
        placed = bool(robots) or any(each.machines for each in found)
        grid.leave_out(*(() if placed else ("robots",)))
        names = [*map(flowrows.name, found), *(each.name for each in robots)]
        grid.widen(dataflow=words.longest(names))
        empty = self.empty_text("dataflow", known=self._found is not None)
        grid.show(
            ids,
            lambda id_: (
                flowrows.robot_row(own[id_]) if id_ in own else flowrows.row(shown[id_], now)
            ),
            dim=self.outdated,
            empty=empty,
        )

    def target(self) -> Target:
        """Return the dataflow under the cursor."""
        return self._target(self.query_one(Grid).cursor)

    def targets(self) -> list[Target]:
        """Return the marked dataflows, or the one under the cursor."""
        chosen = map(self._target, self.query_one(Grid).chosen)
        return [each for each in chosen if each.dataflow]

    def _target(self, id_: str | None) -> Target:
        if (own := self._of_robots.get(id_ or "")) is not None:
            return self._robot_target(own)
        info = self._shown.get(id_ or "")
        if info is None:
            return Target()
        # By its UUID: a name stands for the run that has not ended.
        return Target(info.uuid, title=flowrows.title(info), ended=not info.active)

    def _robot_target(self, flow: RobotFlow) -> Target:
        if len(flow.robots) > 1:
            return Target()
        (robot,) = flow.robots
        named = self.server.named(robot, flow.name)
        return Target(named, robot=robot, title=f"{robot}: {flow.name}")

    def argv(self) -> Sequence[str]:
        """Return the command that prints the same."""
        return ("dora", "list")

    def can_open(self) -> bool:
        """Return True if there is a dataflow."""
        return self.query_one(Grid).cursor is not None

    def can_mark(self) -> bool:
        """Return True: dataflows can be marked."""
        return True

    def open_chosen(self) -> None:
        """Open the graph; of a dataflow that has ended, its log; of several robots, those."""
        cursor = self.query_one(Grid).cursor or ""
        if (own := self._of_robots.get(cursor)) is not None:
            if target := self._robot_target(own).dataflow:
                self.console.open_about("graph", [target])
            else:
                self.console.open_about("fleet", [f"dataflow={own.name}"])
            return
        info = self._shown.get(cursor)
        if info is None:
            return
        if info.active:
            self.console.open_about("graph", [info.name or info.uuid])
        else:  # its name may be that of a later run
            self.console.open_about("logs", [info.uuid])

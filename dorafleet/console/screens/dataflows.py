"""Screen Dataflows: those that the server and robots run, and those that can begin again."""

from collections.abc import Sequence
from typing import Any

from dorad.control.messages import DATAFLOW_LIST, DataflowInfo, DataflowList, Nothing
from dorafleet.console.link.streams import Feed, polling
from dorafleet.console.model.targets import Target
from dorafleet.console.screens.base import ConsoleScreen
from dorafleet.console.view import flowrows, words
from dorafleet.console.view.bars import Crumbs
from dorafleet.console.view.flowrows import RobotFlow
from dorafleet.console.view.rows import Row
from dorafleet.console.widgets.grid import Grid
from dorafleet.coordinator.deploymentmessages import DEPLOYMENT_LIST, DeploymentList

EVERY_S = 2.0


class DataflowsScreen(ConsoleScreen):
    """The dataflows of the server."""

    NAME = "dataflows"
    FILTER_KEYS = flowrows.KEYS
    COLUMNS = flowrows.COLUMNS
    AUTO_FOCUS = "Grid"
    OPENS = MARKS = True

    def __init__(self) -> None:
        super().__init__()
        self._found: DataflowList | None = None
        self._released: dict[str, str] | None = None
        """The releases of deployments, by name; None unless the server has them."""
        self._count = 0
        self._shown: dict[str, DataflowInfo] = {}
        self._of_robots: dict[str, RobotFlow] = {}

    def streams(self) -> list[Feed[Any]]:
        """Ask for the list again and again."""
        return [
            polling(self.server, DATAFLOW_LIST, Nothing(), EVERY_S, self._take),
            polling(self.server, DEPLOYMENT_LIST, Nothing(), EVERY_S, self._take_deployments),
        ]

    def _take(self, listed: DataflowList) -> None:
        self._found = listed
        self.bring()

    def _take_deployments(self, listed: DeploymentList) -> None:
        self._released = flowrows.released(listed.deployments)
        self.bring()

    @property
    def _started(self) -> str:
        """Where the dataflows of the server come from; empty unless it has deployments."""
        return "" if self._released is None else "inline, unsigned"

    def _of_robot(self, flow: RobotFlow) -> str:
        """Where a dataflow of robots comes from; what they run without an order is local."""
        return "" if self._released is None else self._released.get(flow.name, "local")

    def crumbs(self) -> Crumbs:
        """Return the title, with the number of rows shown."""
        listed = self._found
        count = len(self._shown) + len(self._of_robots)
        amount = "" if listed is None else f"{count} of {self._count}"
        note = "" if listed is None else words.no_answer(listed.missing)
        return Crumbs("Dataflows", amount=amount, note=note)

    def paint(self, now: float) -> None:
        """Show the last list: what runs, on the server and on robots, then what has ended last."""
        dataflows = [] if self._found is None else self._found.dataflows
        rows = self.server.fleet.rows.values() if self._found is not None else ()
        robots = flowrows.on_robots(rows, dataflows)
        self._count = len(dataflows) + len(robots)
        matching = [
            each
            for each in dataflows
            if self.filter.matches(flowrows.cells(each, now, self._started))
        ]
        self._shown = {each.uuid: each for each in flowrows.arranged(matching)}
        self._of_robots = {
            each.id: each
            for each in robots
            if self.filter.matches(flowrows.robot_cells(each, self._of_robot(each)))
        }
        shown, own = self._shown, self._of_robots
        ids = sorted([*shown, *own], key=lambda id_: id_ in shown and not shown[id_].active)
        grid = self.query_one(Grid)
        placed = bool(robots) or any(each.machines for each in dataflows)
        absent = {"robots": not placed, "source": self._released is None}
        grid.leave_out(*(key for key, is_absent in absent.items() if is_absent))
        names = [*map(flowrows.name, dataflows), *(each.name for each in robots)]
        grid.widen(dataflow=words.longest(names))
        empty = self.empty_text("dataflow", known=self._found is not None)
        grid.show(
            ids,
            lambda id_: self._row(id_, now),
            dim=self.outdated,
            empty=empty,
        )

    def _row(self, id_: str, now: float) -> Row:
        if (own := self._of_robots.get(id_)) is not None:
            return flowrows.robot_row(own, self._of_robot(own))
        return flowrows.row(self._shown[id_], now, self._started)

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

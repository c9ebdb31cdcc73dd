"""Screen Robot: one robot in brief, what is wrong with it, and its nodes and edges."""

from collections.abc import Iterable, Sequence

from textual.widget import Widget

from dorad.control.messages import Finding
from dorafleet.console.model.commands import NODE_FAILED
from dorafleet.console.model.targets import Target
from dorafleet.console.screens.base import ConsoleScreen
from dorafleet.console.screens.fleet import with_alert
from dorafleet.console.screens.top import TopScreen
from dorafleet.console.view import robotlines
from dorafleet.console.widgets.grid import Grid
from dorafleet.console.widgets.lines import Canvas
from dorafleet.console.widgets.toptables import TopTables


class RobotScreen(TopScreen):
    """One robot."""

    NAME = "robot"

    @classmethod
    def about(cls, words: Sequence[str]) -> ConsoleScreen | str:
        """Return the screen about a robot."""
        if len(words) != 1:
            return "name a robot: `robot arm017`"
        return cls(words[0])

    def body(self) -> Iterable[Widget]:
        """Return the facts, what is wrong, then the tables."""
        yield Canvas(id="facts", classes="auto")
        yield Grid(robotlines.FINDINGS, ascii_only=self.ascii_only, id="findings")
        yield TopTables(ascii_only=self.ascii_only)
        yield Canvas(id="curves", classes="auto")

    @property
    def title_path(self) -> str:
        """Where this screen is."""
        return f"Fleet > {self.robot}"

    @property
    def _findings(self) -> dict[str, Finding]:
        row = self.server.fleet.rows.get(self.robot or "")
        return {} if row is None else {robotlines.finding_id(each): each for each in row.findings}

    @property
    def _finding(self) -> Finding | None:
        """The finding under the cursor, if the cursor is among them."""
        grid = self.query_one("#findings", Grid)
        return self._findings.get(grid.cursor or "") if grid.has_focus else None

    def target(self) -> Target:
        """Return what is under the cursor: the node of a finding, or a node."""
        finding = self._finding
        if finding is None:
            return super().target()
        named = self.server.named(self.robot, finding.dataflow or "")
        node = finding.node or ""
        title = "/".join(filter(None, (named, node))) or self.robot or ""
        ended = bool(node) and finding.cause == NODE_FAILED
        return Target(named, node, self.robot or "", title=title, ended=ended)

    def targets(self) -> list[Target]:
        """Return the chosen nodes; one of them, or the robot without any, with its alert."""
        chosen = [self.target()] if self._finding else super().targets()
        chosen = chosen or [Target(robot=self.robot or "", title=self.robot or "")]
        return [with_alert(chosen[0], self.server.alerts)] if len(chosen) == 1 else chosen

    def open_chosen(self) -> None:
        """Open the logs of what is wrong, or the graph around the node."""
        if self._finding is None:
            super().open_chosen()
        elif (target := self.target()).dataflow:
            self.console.go_about("logs", target)

    def paint(self, now: float) -> None:
        """Show the robot and its nodes."""
        row = self.server.fleet.rows.get(self.robot or "")
        stale = self.stale
        lines = robotlines.lines(row, self.robot or "", now, self.size.width, stale=stale)
        self.query_one("#facts", Canvas).show(lines)
        findings, grid = self._findings, self.query_one("#findings", Grid)
        grid.display = bool(findings)
        grid.show(list(findings), lambda id_: robotlines.finding_row(findings[id_], now), dim=stale)
        super().paint(now)

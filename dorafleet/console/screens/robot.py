"""Screen Robot: one robot in brief, what is wrong with it, and its nodes and edges."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dorafleet.console.model.targets import Target
from dorafleet.console.screens.fleet import with_alert
from dorafleet.console.screens.top import TopScreen
from dorafleet.console.view import robotlines
from dorafleet.console.widgets.lines import Canvas
from dorafleet.console.widgets.toptables import TopTables

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from textual.widget import Widget

    from dorafleet.console.screens.base import ConsoleScreen


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
        """Return the facts, then the tables."""
        yield Canvas(id="facts", classes="auto")
        yield TopTables(ascii_only=self.ascii_only)

    @property
    def title_path(self) -> str:
        """Where this screen is."""
        return f"Fleet > {self.robot}"

    def targets(self) -> list[Target]:
        """Return the chosen nodes; one of them, or the robot without any, with its alert."""
        found = super().targets() or [Target(robot=self.robot or "", title=self.robot or "")]
        return [with_alert(found[0], self.server.alerts)] if len(found) == 1 else found

    def paint(self, now: float) -> None:
        """Show the robot and its nodes."""
        row = self.server.fleet.rows.get(self.robot or "")
        stale = self.stale
        lines = robotlines.lines(row, self.robot or "", now, self.size.width, stale=stale)
        self.query_one("#facts", Canvas).show(lines)
        super().paint(now)

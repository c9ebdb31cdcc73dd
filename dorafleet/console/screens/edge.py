"""Screen Edge: the last ten minutes of one edge, its latency and its traffic."""

from collections.abc import Iterable, Sequence
from typing import Any

from textual.widget import Widget

from dorad.control.messages import TOP_HISTORY, EdgeCurves, History, TopHistory
from dorafleet.console.link.streams import Feed, polling
from dorafleet.console.model.targets import Target
from dorafleet.console.screens.base import ConsoleScreen
from dorafleet.console.view import curves, words
from dorafleet.console.view.bars import Crumbs
from dorafleet.console.view.plot import plot
from dorafleet.console.widgets.lines import Canvas

EVERY_S = 5.0
MAX_STEP_S = 3600.0
"""Longest time between two points; a robot may say anything."""


class EdgeScreen(ConsoleScreen):
    """One edge."""

    NAME = "edge"
    AUTO_FOCUS = "#content"

    def __init__(self, dataflow: str, source: str, target: str) -> None:
        super().__init__()
        self.dataflow, self.source, self.receiver = dataflow, source, target
        self._history: History | None = None

    @classmethod
    def about(cls, words: Sequence[str]) -> ConsoleScreen | str:
        """Return the screen about an edge."""
        if len(words) != 3:
            return "name an edge: `edge pick camera/image slam/image`"
        return cls(*words)

    def again(self) -> ConsoleScreen:
        """Return a new screen that shows the same."""
        return EdgeScreen(self.dataflow, self.source, self.receiver)

    def body(self) -> Iterable[Widget]:
        """Return the drawing of the latency, and below it that of the traffic."""
        yield Canvas(id="content", focusable=True)
        yield Canvas(id="traffic", classes="view")

    def streams(self) -> list[Feed[Any]]:
        """Ask for the curves again and again."""
        node = self.receiver.partition("/")[0]
        wanted = TopHistory(dataflow=self.dataflow, node=node)
        return [polling(self.server, TOP_HISTORY, wanted, EVERY_S, self._take)]

    def _take(self, history: History) -> None:
        self._history = history
        self.bring()

    @property
    def _curves(self) -> EdgeCurves | None:
        edges = [] if self._history is None else self._history.edges
        ends = (self.source, self.receiver)
        return next((each for each in edges if (each.source, each.target) == ends), None)

    def paint(self, now: float) -> None:
        """Draw the curves."""
        del now
        edge, history = self._curves, self._history
        above, below = self.query_one("#content", Canvas), self.query_one("#traffic", Canvas)
        if edge is None or history is None:
            known = history is not None
            above.show([[(f" {self.empty_text('such edge', known=known)}", "dim")]])
            below.show([])
            return
        thousand = [
            [None if value is None else value * 1e3 for value in points]
            for points in (edge.latency_p50, edge.latency_p99)
        ]
        latency = dict(zip(("p50 ms", "p99 ms"), thousand, strict=True))
        traffic = {"messages/s": edge.rate, "drops/s": edge.drop_rate}
        step = min(max(history.step, 0.1), MAX_STEP_S)
        for canvas, figures in ((above, latency), (below, traffic)):
            drawn = {name: curves.timed(points, step) for name, points in figures.items()}
            size, seconds = canvas.size, step * max(1, len(edge.rate) - 1)
            canvas.show(plot(drawn, size.width, size.height, seconds, ascii_only=self.ascii_only))

    def crumbs(self) -> Crumbs:
        """Return the title, and who did not answer."""
        path = f"{self.dataflow} > {self.source} -> {self.receiver}"
        missing = () if self._history is None else self._history.missing
        return Crumbs(path, amount="ten minutes", note=words.no_answer(missing))

    def target(self) -> Target:
        """Return the node that receives."""
        node = self.receiver.partition("/")[0]
        return Target(self.dataflow, node, title=f"{self.dataflow}/{node}")

    def argv(self) -> Sequence[str]:
        """Return the command that prints the same."""
        return ("dora", "topic", "info", "-d", self.dataflow, self.source)

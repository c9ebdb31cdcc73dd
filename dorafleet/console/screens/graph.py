"""Screen Dataflow: its nodes and edges as a graph, and the edges as a table, the worst first."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dorafleet.console.link.streams import Feed
from dorafleet.console.model.targets import Target
from dorafleet.console.model.topology import MANY, Topology, topology, worst_first, worst_node
from dorafleet.console.screens.base import ConsoleScreen
from dorafleet.console.view import tables, words
from dorafleet.console.view.bars import Crumbs
from dorafleet.console.view.graph import graph
from dorafleet.console.widgets.grid import Grid
from dorafleet.console.widgets.lines import Canvas

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from textual.widget import Widget

    from dorad.control.messages import EdgeStats, TopPart

EVERY_S = 0.5


class GraphScreen(ConsoleScreen):
    """One dataflow."""

    NAME = "graph"
    ORDERS = ("neighbours", "all")
    AUTO_FOCUS = "Grid"

    def __init__(self, dataflow: str, node: str | None = None) -> None:
        super().__init__()
        self.dataflow = dataflow
        self.node = node
        self.part: TopPart | None = None
        self._edges: dict[str, EdgeStats] = {}
        self._chosen_at: str | None = None
        """The edge under the cursor when `node` was chosen."""
        self._chose_order = False

    @classmethod
    def about(cls, words: Sequence[str]) -> ConsoleScreen | str:
        """Return the screen about a dataflow, around a node."""
        if not 1 <= len(words) <= 2:
            return "name a dataflow, and a node if it is large: `graph pick planner`"
        return cls(words[0], words[1] if len(words) == 2 and words[1] else None)

    def again(self) -> ConsoleScreen:
        """Return a new screen that shows the same."""
        return GraphScreen(self.dataflow, self.node)

    def body(self) -> Iterable[Widget]:
        """Return the drawing and the table."""
        yield Canvas(id="content", focusable=True)
        yield Grid(tables.EDGES, ascii_only=self.ascii_only, id="edges")

    def streams(self) -> list[Feed[Any]]:
        """Measure the dataflow."""
        return [
            Feed(
                self.server,
                lambda c: c.watch_top(dataflow=self.dataflow, interval=EVERY_S),
                self._take,
            )
        ]

    def _take(self, part: TopPart) -> None:
        self.part = part
        if not self._chose_order:
            self._chose_order = True
            self.order = "neighbours" if len(part.top.nodes) >= MANY else "all"
        self.bring()

    @property
    def whole(self) -> Topology:
        """All of the dataflow."""
        top = None if self.part is None else self.part.top
        return topology([] if top is None else top.nodes, [] if top is None else top.edges)

    def crumbs(self) -> Crumbs:
        """Return the title, with the size of the graph and what is wrong."""
        if self.part is None:
            amount = "" if self.feeds.error else "measuring"
            return Crumbs(f"Fleet > {self.dataflow}", amount=amount)
        edges = self.part.top.edges
        drops, broken = sum(e.drop_rate > 0 for e in edges), sum(e.broken for e in edges)
        nodes = words.counted(len(self.part.top.nodes), "node")
        text = f"{nodes}, {words.counted(len(edges), 'edge')}"
        text += f", {drops} drop" if drops else ""
        text += f", {broken} broken" if broken else ""
        notes = [words.no_answer(self.part.top.missing)]
        if self.order == "neighbours" and self.node:
            notes.append(f"neighbours of {self.node}")
        drawing = self.query_one("#content", Canvas)
        below = drawing.virtual_size.height - drawing.size.height - drawing.scroll_offset.y
        if below > 0:
            notes.append(f"{words.counted(below, 'line')} below (tab, arrows)")
        return Crumbs(f"Fleet > {self.dataflow}", amount=text, note=", ".join(filter(None, notes)))

    def paint(self, now: float) -> None:
        """Draw the graph, and list the edges."""
        del now
        whole = self.whole
        if whole.nodes and self.node not in whole.nodes:
            self.node = worst_node(whole)
        shown = whole
        if self.order == "neighbours" and self.node is not None:
            shown = whole.around(self.node)
        edges = worst_first(edge for arrow in shown.arrows for edge in arrow.edges)
        self._edges = {tables.edge_id(each): each for each in edges}
        machines = len({each.machine for each in edges}) > 1
        grid = self.query_one(Grid)
        grid.leave_out("dataflow", *(() if machines else ("robot",)))
        found = self._edges
        empty = self.empty_text("edge", known=self.part is not None)
        grid.show(
            list(found), lambda id_: tables.edge_row(found[id_]), dim=self.outdated, empty=empty
        )
        if self._chosen_at is None:
            self._chosen_at = grid.cursor
        lines = graph(shown, self.glyphs(), self._marked)
        if self.part is None and self.feeds.error:
            lines = []
        elif not whole.nodes:
            lines = [[(f" {self.empty_text('node', known=self.part is not None)}", "dim")]]
        self.query_one("#content", Canvas).show(lines)

    @property
    def _marked(self) -> str:
        """The node that is marked in the drawing, and that keys are about."""
        cursor = self.query_one(Grid).cursor
        return (self.node or "") if cursor == self._chosen_at else self._receiver

    @property
    def _receiver(self) -> str:
        """The node that gets the edge under the cursor."""
        edge = self._edges.get(self.query_one(Grid).cursor or "")
        return "" if edge is None else edge.target.partition("/")[0]

    def target(self) -> Target:
        """Return the node that is marked in the drawing."""
        node = self._marked
        return Target(self.dataflow, node, title=f"{self.dataflow}/{node}" if node else "")

    def argv(self) -> Sequence[str]:
        """Return the command that draws the same."""
        return ("dora", "graph", "-d", self.dataflow, "--open")

    def can_open(self) -> bool:
        """Return True if there is an edge."""
        return self.query_one(Grid).cursor is not None

    def open_chosen(self) -> None:
        """Mark the node that gets the edge, and draw its neighbours."""
        if self._receiver:
            self.node, self.order = self._receiver, "neighbours"
            self._chosen_at = self.query_one(Grid).cursor
            self.repaint()

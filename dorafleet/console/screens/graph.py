"""Screen Dataflow: its nodes and edges as a graph, and the edges as a table, the worst first."""

from collections.abc import Iterable, Sequence
from typing import Any

from textual.geometry import Region, Size
from textual.widget import Widget

from dorad.control.messages import EdgeStats, TopPart
from dorafleet.console.link.streams import Feed
from dorafleet.console.model.targets import Target
from dorafleet.console.model.topology import MANY, Topology, topology, worst_first, worst_node
from dorafleet.console.screens.base import ConsoleScreen
from dorafleet.console.view import tables, words
from dorafleet.console.view.bars import Crumbs
from dorafleet.console.view.graph import Drawing, graph, overview
from dorafleet.console.view.graphlayout import Box
from dorafleet.console.widgets.grid import Grid
from dorafleet.console.widgets.lines import Canvas

EVERY_S = 0.5


class GraphScreen(ConsoleScreen):
    """One dataflow."""

    NAME = "graph"
    ORDERS = ("overview", "neighbours", "all")
    FILTER_KEYS = ("node", "status")
    AUTO_FOCUS = "Grid"
    OPENS = True

    def __init__(self, dataflow: str, node: str | None = None) -> None:
        super().__init__()
        self.dataflow = dataflow
        self.node = node
        self.part: TopPart | None = None
        self._edges: dict[str, EdgeStats] = {}
        self._chosen_at: str | None = None
        """The edge under the cursor when `node` was chosen."""
        self._chose_order = False
        self._before: str | None = None
        """The node that the cursor was on before it went along an edge."""
        self._zoomed = False
        """Whether `enter` has led here from the overview."""
        self._drawing = Drawing([], {})
        self._scrolled_to: tuple[Box, Size] | None = None
        """The place of the chosen node, and the size of the drawing, when it was scrolled there."""

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
            if len(part.top.nodes) < MANY:
                self._zoom("all")
            else:
                self._zoom("neighbours" if self.node else "overview")
        self.bring()

    def _zoom(self, order: str) -> None:
        """Take an order; the arrow keys move between nodes in an overview, otherwise edges."""
        self.order = order
        self.on_order()

    def on_order(self) -> None:
        """Give the keys to what the order is about."""
        self._zoomed = False
        self.set_class(self.order == "overview", "-overview")
        self.take_focus()

    def take_focus(self) -> None:
        """Give the keys to the nodes of an overview, to the edges of a drawing."""
        if not self.typing:
            self.set_focus(self.query_one("#content" if self.order == "overview" else "Grid"))

    @property
    def subject(self) -> tuple[str | None, ...]:
        """The dataflow."""
        return (self.dataflow,)

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
        if self.filter and self.order == "overview":
            notes.append(f"{len(self._drawing.places)} match")
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
        if self.order == "overview":
            statuses = whole.nodes.items()
            shown = whole.only(
                node
                for node, status in statuses
                if self.filter.matches({"node": node, "status": status})
            )
            if shown.nodes and self.node not in shown.nodes:
                self.node = worst_node(shown)
        near = whole if self.node is None else whole.around(self.node)
        if self.order == "neighbours":
            shown = near
        edges = worst_first(
            edge
            for arrow in (whole if self.order == "all" else near).arrows
            for edge in arrow.edges
        )
        self._edges = {tables.edge_id(each): each for each in edges}
        machines = len({each.machine for each in edges}) > 1
        grid = self.query_one(Grid)
        grid.leave_out("dataflow", *tables.CURVES, *(() if machines else ("robot",)))
        drawn = self._edges
        empty = self.empty_text("edge", known=self.part is not None)
        grid.show(
            list(drawn), lambda id_: tables.edge_row(drawn[id_]), dim=self.outdated, empty=empty
        )
        if self._chosen_at is None:
            self._chosen_at = grid.cursor
        canvas = self.query_one("#content", Canvas)
        self._drawing = self._drawn(shown, canvas)
        canvas.show(self._drawing.lines)
        box = self._drawing.places.get(self._marked)
        if box is not None and (box, canvas.size) != self._scrolled_to:
            self._scrolled_to = box, canvas.size
            region = Region(box.x, box.y, box.wide, box.tall)
            canvas.scroll_to_region(region, animate=False, force=True, immediate=True)

    def _drawn(self, shown: Topology, canvas: Canvas) -> Drawing:
        if self.part is None and self.feeds.error:
            return Drawing([], {})
        if not shown.nodes:
            text = self.empty_text("node", known=self.part is not None)
            return Drawing([[(f" {text}", "dim")]], {})
        size, glyphs = canvas.size, self.glyphs()
        if self.order == "overview":
            return overview(shown, glyphs, self.node, size.width, size.height)
        return graph(shown, glyphs, self._marked, size.width)

    def on_filter(self) -> None:
        """Show the nodes that match: only the overview has all of them."""
        if self.filter and self.order != "overview":
            self._zoom("overview")

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """Return False for keys that do nothing now; a graph always has edges to go along."""
        return super().check_action("move" if action == "across" else action, parameters)

    def keys(self) -> list[tuple[str, str]]:
        """Say what the keys to the side do."""
        shown = super().keys()
        keys = [each for each in shown if each[0] != "left right"]
        return keys if self.typing else [*keys[:1], ("left right", "follow"), *keys[1:]]

    def action_across(self, columns: int) -> None:
        """Go along an edge: to a node that the chosen one sends to, or back to a source."""
        whole, forward = self.whole, columns > 0
        edge = self._edges.get(self.query_one(Grid).cursor or "")
        if edge is not None and self._follows_edge:
            self._go((edge.target if forward else edge.source).partition("/")[0])
            return
        ends = [] if self.node is None else (whole.targets if forward else whole.sources)(self.node)
        ends = [each for each in ends if each != self.node]
        if not ends:
            side = "sends to no other node" if forward else "gets nothing from another node"
            self.report(f"{self.node} {side}", "dim")
        else:
            self._go(self._before if self._before in ends else ends[0])

    def action_move(self, rows: int) -> None:
        """Move between nodes if the drawing has the keys, between edges otherwise."""
        if not self._move_nodes(rows):
            super().action_move(rows)

    def action_page(self, pages: float) -> None:
        """Move between nodes by pages, or between edges."""
        if not self._move_nodes(self.query_one("#content", Canvas).rows_of(pages)):
            super().action_page(pages)

    def action_ends(self, first: bool) -> None:
        """Move to the first node, or to the last; or so between edges."""
        if not self._move_nodes(-len(self._drawing.places) if first else len(self._drawing.places)):
            super().action_ends(first)

    def _move_nodes(self, steps: int) -> bool:
        """Move from node to node, down a column, then to the next; False if edges have the keys."""
        if isinstance(self.focused, Grid) or not self._drawing.places:
            return False
        boxes = self._drawing.places
        order = sorted(boxes, key=lambda each: (boxes[each].x, boxes[each].y))
        at = order.index(self._marked) if self._marked in boxes else 0
        self._go(order[min(max(at + steps, 0), len(order) - 1)])
        return True

    def _go(self, node: str) -> None:
        """Put the cursor on a node."""
        if node != self.node:
            self._before, self.node = self.node, node
        grid = self.query_one(Grid)
        self.repaint()
        self._chosen_at = grid.cursor
        self.repaint()

    @property
    def _follows_edge(self) -> bool:
        """Whether keys are about the edge under the cursor, not about the chosen node."""
        grid = self.query_one(Grid)
        return grid.cursor != self._chosen_at and not isinstance(self.focused, Canvas)

    @property
    def _marked(self) -> str:
        """The node that is marked in the drawing, and that keys are about."""
        return self._receiver if self._follows_edge else self.node or ""

    @property
    def _receiver(self) -> str:
        """The node that gets the edge under the cursor."""
        edge = self._edges.get(self.query_one(Grid).cursor or "")
        return "" if edge is None else edge.target.partition("/")[0]

    def edge(self) -> tuple[str, str, str] | None:
        """Return the edge under the cursor."""
        edge = self._edges.get(self.query_one(Grid).cursor or "")
        return None if edge is None else (self.dataflow, edge.source, edge.target)

    def target(self) -> Target:
        """Return the node that is marked in the drawing."""
        node = self._marked
        return Target(self.dataflow, node, title=f"{self.dataflow}/{node}" if node else "")

    def argv(self) -> Sequence[str]:
        """Return the command that draws the same."""
        return ("dora", "graph", "-d", self.dataflow, "--open")

    def open_chosen(self) -> None:
        """Draw the neighbours of the node that gets the edge, or of the one under the cursor."""
        node = self.node if isinstance(self.focused, Canvas) else self._receiver
        if node:
            zoomed = self._zoomed or self.order == "overview"
            self._zoom("neighbours")
            self._zoomed = zoomed
            self._go(node)

    def can_open(self) -> bool:
        """Return True if there is a node to zoom in on."""
        return bool(self.node if isinstance(self.focused, Canvas) else self._receiver)

    def action_back(self) -> None:
        """Zoom out to the overview if `enter` has led here from there, else as usual."""
        if self._zoomed and self.order == "neighbours":
            self._zoom("overview")
            self.repaint()
        else:
            super().action_back()

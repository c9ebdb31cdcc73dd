"""Screens Top and Robot: nodes and edges, of everything or of one robot."""

from collections.abc import Iterable, Sequence
from typing import Any, ClassVar, cast

from textual.binding import BindingType
from textual.widget import Widget

from dorad.control.messages import EdgeStats, NodeInfo, TopOrder, TopPart
from dorafleet.console.link.curves import CurveReader
from dorafleet.console.link.streams import Feed
from dorafleet.console.model.commands import ENDED
from dorafleet.console.model.targets import Target
from dorafleet.console.screens.base import ConsoleScreen
from dorafleet.console.screens.workingkeys import in_order
from dorafleet.console.view import curves, words
from dorafleet.console.view.bars import Crumbs
from dorafleet.console.view.rows import Span
from dorafleet.console.view.tables import interface_lines
from dorafleet.console.widgets.lines import Canvas
from dorafleet.console.widgets.toptables import KEYS, TopTables

LIMIT = 200
"""Nodes and edges that the server sends; the worst or first ones of the order."""


class TopScreen(ConsoleScreen):
    """Nodes and edges, measured again and again."""

    NAME = "top"
    ORDERS = ("worst", "name", "cpu", "memory", "rate", "drops", "latency")
    BINDINGS: ClassVar[list[BindingType]] = in_order(
        *((key, f"sort('{order}')", order) for key, order in zip("wncmrdL", ORDERS, strict=True))
    )
    FILTER_KEYS = KEYS
    AUTO_FOCUS = "#nodes"
    MARKS = True

    def __init__(self, robot: str | None = None) -> None:
        super().__init__()
        self.robot = robot
        self.part: TopPart | None = None
        self._curves = CurveReader(
            lambda work: self.console.in_background(work), self.bring, self._named
        )

    @classmethod
    def about(cls, words: Sequence[str]) -> ConsoleScreen | str:
        """Return the screen about a robot, or about all."""
        return cls(words[0] if words else None)

    def again(self) -> ConsoleScreen:
        """Return a new screen that shows the same."""
        return type(self)(self.robot)

    @property
    def subject(self) -> tuple[str | None, ...]:
        """The robot."""
        return (self.robot,)

    def body(self) -> Iterable[Widget]:
        """Return the tables, and the last ten minutes of what is under the cursor."""
        yield TopTables(ascii_only=self.ascii_only)
        yield Canvas(id="interfaces", classes="auto")
        yield Canvas(id="curves", classes="auto")

    def streams(self) -> list[Feed[Any]]:
        """Measure on the server, which sends only what is wanted."""
        order = cast("TopOrder", self.order)
        wanted = "" if any(term.pattern for term in self.filter.terms) else self.filter.text
        return [
            Feed(
                self.server,
                lambda client: client.watch_top(
                    order=order,
                    limit=LIMIT,
                    filter=wanted,
                    interval=self.console.options.interval,
                    machine=self.robot,
                ),
                self._take,
            )
        ]

    def _take(self, part: TopPart) -> None:
        self.part = part
        self.bring()

    def action_sort(self, order: str) -> None:
        """Sort by this figure."""
        self.order = order
        self.on_order()
        self.repaint()

    def on_order(self) -> None:
        """Let the server sort."""
        self.feeds.restart()

    def on_filter_entered(self) -> None:
        """Let the server filter; while it is typed, only what has come is filtered."""
        self.feeds.restart()

    @property
    def tables(self) -> TopTables:
        """The two tables."""
        return self.query_one(TopTables)

    def crumbs(self) -> Crumbs:
        """Return the title, with the number of rows shown."""
        nodes, edges = self.tables.counts
        part = self.part
        of = "" if part is None else f"{nodes} of {part.nodes} nodes, {edges} of {part.edges} edges"
        note = "" if part is None else words.no_answer(part.top.missing)
        return Crumbs(self.title_path, amount=of or "measuring", note=note)

    @property
    def title_path(self) -> str:
        """Where this screen is."""
        return "Top" if self.robot is None else f"Top > {self.robot}"

    def paint(self, now: float) -> None:
        """Show the last measurement."""
        del now
        if self.order == "worst" and self.feeds.problem == "bad-request":
            # An older server does not know this order.
            self.order = "name"
            self.feeds.restart()
        known = self.part is not None
        empty = (self.empty_text("node", known=known), self.empty_text("edge", known=known))
        tables = self.tables
        tables.show(self.part, self.filter, self._curves, dim=self.outdated, empty=empty)
        interfaces = () if self.part is None else self.part.top.interfaces
        for canvas in self.query("#interfaces").results(Canvas):  # Robot has no room for them
            canvas.show(interface_lines(interfaces))
        chosen = tables.edge or tables.node
        shown = [*([chosen] if chosen is not None else []), *tables.on_screen]
        self._curves.want(self.server, shown)
        self.query_one("#curves", Canvas).show(self._curve_line())

    def empty_text(self, what: str, *, known: bool) -> str:
        """Return why a table has no rows; robots that do not answer are no reason to say `no`."""
        silent = () if self.part is None or self.feeds.error else self.part.top.missing
        said = words.no_answer(silent)
        return f"no {what} is known ({said})" if said else super().empty_text(what, known=known)

    def edge(self) -> tuple[str, str, str] | None:
        """Return the edge under the cursor, if the cursor is among the edges."""
        edge = self.tables.edge
        return None if edge is None else (self._named(edge), edge.source, edge.target)

    def _named(self, row: NodeInfo | EdgeStats) -> str:
        """Return how the server is asked about the dataflow of a row."""
        return self.server.named(row.machine, row.dataflow_name or row.dataflow)

    def _curve_line(self) -> list[list[Span]]:
        """Return the last ten minutes of the node or the edge under the cursor."""
        edge, node = self.tables.edge, self.tables.node
        figures: list[curves.Figure] = []
        name = ""
        if edge is not None:
            name = edge.target
            if (of_edge := self._curves.of_edge(edge)) is not None:
                figures = curves.of_edge(of_edge)
        elif node is not None:
            name = node.node
            if (of_node := self._curves.of_node(node)) is not None:
                figures = curves.of_node(of_node)
        line = curves.line(name, figures, self.size.width, ascii_only=self.ascii_only)
        return [line] if line else []

    def target(self) -> Target:
        """Return the node under the cursor, or the target of the edge."""
        edge, info = self.tables.edge, self.tables.node
        if edge is not None and self.part is not None:
            id_ = edge.target.partition("/")[0]
            nodes = [n for n in self.part.top.nodes if (n.dataflow, n.node) == (edge.dataflow, id_)]
            info = nodes[0] if nodes else info
        if info is None:
            return Target()
        return self._target_of(info)

    def targets(self) -> list[Target]:
        """Return the chosen nodes; while the cursor is on an edge, the node that gets it."""
        if self.tables.edge is not None:
            return [self.target()]
        return [self._target_of(info) for info in self.tables.chosen]

    def _target_of(self, info: NodeInfo) -> Target:
        named = self._named(info)
        return Target(
            named,
            info.node,
            info.machine or "",
            title=f"{named}/{info.node}",
            ended=info.status in ENDED,
        )

    def argv(self) -> Sequence[str]:
        """Return the command that shows the same tables; by SSH, which has no terminal, as JSON."""
        named = self.robot is not None and not self.server.is_daemon
        once = ["--once"] if self.server.host else []
        return ["dora", "top", *once, *(["--machine", self.robot or ""] if named else [])]

    def can_open(self) -> bool:
        """Return True if there is a node."""
        return any(self.target())

    def open_chosen(self) -> None:
        """Open the graph around the node."""
        target = self.target()
        if target.dataflow:
            self.console.open_about("graph", [target.dataflow, target.node])

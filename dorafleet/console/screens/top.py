"""Screens Top and Robot: nodes and edges, of everything or of one robot."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, cast

from dorafleet.console.link.streams import Feed
from dorafleet.console.model.commands import ENDED
from dorafleet.console.model.targets import Target
from dorafleet.console.screens.base import ConsoleScreen
from dorafleet.console.screens.workingkeys import in_order
from dorafleet.console.view import words
from dorafleet.console.view.bars import Crumbs
from dorafleet.console.widgets.toptables import KEYS, TopTables

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from textual.binding import BindingType
    from textual.widget import Widget

    from dorad.control.messages import NodeInfo, TopOrder, TopPart

LIMIT = 200
"""Nodes and edges that the server sends; the worst or first ones of the order."""


class TopScreen(ConsoleScreen):
    """Nodes and edges, measured again and again."""

    NAME = "top"
    ORDERS = ("name", "cpu", "memory", "rate", "drops", "latency")
    BINDINGS: ClassVar[list[BindingType]] = in_order(
        *((key, f"sort('{order}')", order) for key, order in zip("ncmrdL", ORDERS, strict=True))
    )
    FILTER_KEYS = KEYS
    AUTO_FOCUS = "#nodes"

    def __init__(self, robot: str | None = None) -> None:
        super().__init__()
        self.robot = robot
        self.part: TopPart | None = None

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
        """Return the tables."""
        yield TopTables(ascii_only=self.ascii_only)

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
        known = self.part is not None
        empty = (self.empty_text("node", known=known), self.empty_text("edge", known=known))
        self.tables.show(self.part, self.filter, dim=self.outdated, empty=empty)

    def empty_text(self, what: str, *, known: bool) -> str:
        """Return why a table has no rows; robots that do not answer are no reason to say `no`."""
        silent = () if self.part is None or self.feeds.error else self.part.top.missing
        said = words.no_answer(silent)
        return f"no {what} is known ({said})" if said else super().empty_text(what, known=known)

    def target(self) -> Target:
        """Return the node under the cursor, or the target of the edge."""
        edge, info = self.tables.edge, self.tables.node
        if edge is not None and self.part is not None:
            id_ = edge.target.partition("/")[0]
            found = [n for n in self.part.top.nodes if (n.dataflow, n.node) == (edge.dataflow, id_)]
            info = found[0] if found else info
        if info is None:
            return Target()
        return self._target_of(info)

    def targets(self) -> list[Target]:
        """Return the chosen nodes; while the cursor is on an edge, the node that gets it."""
        if self.tables.edge is not None:
            return [self.target()]
        return [self._target_of(info) for info in self.tables.chosen]

    def _target_of(self, info: NodeInfo) -> Target:
        dataflow = info.dataflow_name or info.dataflow
        named = self.server.named(info.machine, dataflow)
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

    def can_mark(self) -> bool:
        """Return True: nodes can be marked."""
        return True

    def open_chosen(self) -> None:
        """Open the graph around the node."""
        target = self.target()
        if target.dataflow:
            self.console.open_about("graph", [target.dataflow, target.node])

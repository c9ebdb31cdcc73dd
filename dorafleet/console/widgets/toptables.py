"""Nodes and edges, one table above the other: the Top screen, and `dora top`."""

from textual.app import ComposeResult
from textual.containers import Vertical

from dorad.control.filters import Filter
from dorad.control.messages import EdgeStats, NodeInfo, TopPart
from dorad.control.topparts import EDGE_KEYS, NODE_KEYS, edge_cells, node_cells
from dorafleet.console.link.curves import MAX_DATAFLOWS, CurveReader
from dorafleet.console.view import tables, words
from dorafleet.console.widgets.grid import Grid

KEYS = tuple(dict.fromkeys((*NODE_KEYS, *EDGE_KEYS)))
"""Columns that a filter may name."""


class TopTables(Vertical):
    """Two grids."""

    DEFAULT_CSS = "TopTables { height: 1fr; }"

    def __init__(self, *, ascii_only: bool = False) -> None:
        super().__init__()
        self._ascii = ascii_only
        self._shown_nodes: dict[str, NodeInfo] = {}
        self._shown_edges: dict[str, EdgeStats] = {}

    def compose(self) -> ComposeResult:
        """Put the nodes above the edges."""
        yield Grid(tables.NODES, ascii_only=self._ascii, id="nodes")
        yield Grid(tables.EDGES, ascii_only=self._ascii, id="edges")

    def show(
        self,
        part: TopPart | None,
        wanted: Filter,
        curves: CurveReader,
        *,
        dim: bool,
        empty: tuple[str, str],
    ) -> None:
        """Show a measurement, without the rows that the filter leaves out.

        `curves` has the last ten minutes of what is shown. `empty` are the texts for a table
        without nodes, and for one without edges.
        """
        if not self.query("#edges"):
            return  # not composed yet
        top = None if part is None else part.top
        nodes = [] if top is None else top.nodes
        edges = [] if top is None else top.edges
        only_edges = bool(wanted.keys) and wanted.keys <= set(EDGE_KEYS) - set(NODE_KEYS)
        only_nodes = bool(wanted.keys) and wanted.keys <= set(NODE_KEYS) - {"node", *EDGE_KEYS}
        self._shown_nodes = {
            tables.node_id(each): each
            for each in nodes
            if only_edges or wanted.matches(node_cells(each))
        }
        self._shown_edges = {
            tables.edge_id(each): each
            for each in edges
            if only_nodes or wanted.matches(edge_cells(each))
        }
        flows = {each.dataflow for each in nodes} | {each.dataflow for each in edges}
        machines = {info.machine or "" for info in nodes} | {edge.machine or "" for edge in edges}
        left_out = [] if len(machines) > 1 else ["robot"]
        left_out += [] if len(flows) > 1 else ["dataflow"]
        # Those of many dataflows are not read: most rows would have none.
        runs = {(each.machine, each.dataflow) for each in nodes}
        runs |= {(each.machine, each.dataflow) for each in edges}
        left_out += tables.CURVES if len(runs) > MAX_DATAFLOWS else ()
        names = (info.node for info in nodes)
        widths = {"node": words.longest(names), "robot": words.longest(machines)}
        grid = self.query_one("#nodes", Grid)
        grid.leave_out(*left_out)
        grid.widen(**widths)
        shown = self._shown_nodes
        grid.show(
            list(shown),
            lambda id_: tables.node_row(
                shown[id_], curves.of_node(shown[id_]), ascii_only=self._ascii
            ),
            dim=dim,
            empty=empty[0],
        )
        grid = self.query_one("#edges", Grid)
        grid.leave_out(*left_out)
        grid.widen(robot=widths["robot"])
        links = self._shown_edges
        grid.show(
            list(links),
            lambda id_: tables.edge_row(
                links[id_], curves.of_edge(links[id_]), ascii_only=self._ascii
            ),
            dim=dim,
            empty=empty[1],
        )

    @property
    def counts(self) -> tuple[int, int]:
        """How many nodes and edges are shown."""
        return len(self._shown_nodes), len(self._shown_edges)

    @property
    def on_screen(self) -> list[NodeInfo | EdgeStats]:
        """The nodes and edges that are on the screen with bars."""
        rows: list[NodeInfo | EdgeStats] = []
        for grid in self.query(Grid):
            if grid.shows(*tables.CURVES):
                ids = grid.on_screen
                rows += [self._shown_nodes[id_] for id_ in ids if id_ in self._shown_nodes]
                rows += [self._shown_edges[id_] for id_ in ids if id_ in self._shown_edges]
        return rows

    @property
    def node(self) -> NodeInfo | None:
        """The node under the cursor."""
        if not self.query("#nodes"):
            return None
        return self._shown_nodes.get(self.query_one("#nodes", Grid).cursor or "")

    @property
    def chosen(self) -> list[NodeInfo]:
        """The marked nodes, or the one under the cursor."""
        if not self.query("#nodes"):
            return []
        chosen = self.query_one("#nodes", Grid).chosen
        return [self._shown_nodes[id_] for id_ in chosen if id_ in self._shown_nodes]

    @property
    def edge(self) -> EdgeStats | None:
        """The edge under the cursor, if the cursor is among the edges."""
        if not self.query("#edges"):
            return None
        grid = self.query_one("#edges", Grid)
        return self._shown_edges.get(grid.cursor or "") if grid.has_focus else None

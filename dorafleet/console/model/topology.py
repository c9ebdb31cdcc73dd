"""A dataflow as nodes and the edges between them, from what is measured."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from dorad.natural import natural

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from dorad.control.messages import EdgeStats, NodeInfo

MANY = 15
"""Number of nodes from which on only one with its neighbours is drawn."""


@dataclass(frozen=True, slots=True)
class Arrow:
    """All edges from one node to another."""

    source: str
    target: str
    edges: tuple[EdgeStats, ...]

    @property
    def rate(self) -> float:
        """Messages a second over all its edges."""
        return sum(each.rate for each in self.edges)

    @property
    def drops(self) -> float:
        """Dropped messages a second over all its edges."""
        return sum(each.drop_rate for each in self.edges)

    @property
    def broken(self) -> bool:
        """Whether one of its edges is broken."""
        return any(each.broken for each in self.edges)


@dataclass(frozen=True, slots=True)
class Topology:
    """Nodes in their order, with their status, and arrows between them."""

    nodes: Mapping[str, str]
    arrows: tuple[Arrow, ...]

    @property
    def shape(self) -> tuple[tuple[str, ...], tuple[tuple[str, str], ...]]:
        """What a layout depends on."""
        return tuple(self.nodes), tuple((each.source, each.target) for each in self.arrows)

    def around(self, node: str) -> Topology:
        """Return a node with its neighbours, and the arrows that touch it."""
        arrows = tuple(each for each in self.arrows if node in (each.source, each.target))
        near = {node} | {end for each in arrows for end in (each.source, each.target)}
        return Topology({id_: s for id_, s in self.nodes.items() if id_ in near}, arrows)


def topology(nodes: Iterable[NodeInfo], edges: Iterable[EdgeStats]) -> Topology:
    """Return the topology of one dataflow. Ends that no node has are added as nodes."""
    status = {info.node: str(info.status) for info in nodes}
    found: dict[tuple[str, str], list[EdgeStats]] = {}
    for edge in sorted(edges, key=lambda each: (each.source, each.target)):
        ends = edge.source.partition("/")[0], edge.target.partition("/")[0]
        for end in ends:
            status.setdefault(end, "")
        found.setdefault(ends, []).append(edge)
    return Topology(status, tuple(Arrow(*ends, tuple(several)) for ends, several in found.items()))


def worst_first(edges: Iterable[EdgeStats]) -> list[EdgeStats]:
    """Return edges: broken ones, then those that drop most, then by name.

    Figures that always change, such as the latency, would make the rows jump.
    """
    return sorted(
        edges,
        key=lambda e: (
            not e.broken,
            -round(e.drop_rate),
            -e.dropped,
            natural(e.source),
            natural(e.target),
            natural(e.machine or ""),
        ),
    )


def worst_node(found: Topology) -> str | None:
    """Return the node that needs a look first: a failed one, or the end of the worst edge."""
    for status in ("failed", "restarting", "degraded"):
        for node, each in found.nodes.items():
            if each == status:
                return node
    edges = worst_first(edge for arrow in found.arrows for edge in arrow.edges)
    if edges:
        return edges[0].target.partition("/")[0]
    return next(iter(found.nodes), None)

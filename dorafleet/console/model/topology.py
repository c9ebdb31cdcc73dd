"""A dataflow as nodes and the edges between them, from what is measured."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache

from dorad.control.messages import EdgeStats, NodeInfo
from dorad.dataflow.layers import Link, ranks, without_cycles
from dorad.natural import natural

MANY = 15
"""Number of nodes from which on the overview comes first, or one node with its neighbours."""


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

    def sources(self, node: str) -> list[str]:
        """Return the nodes that a node gets messages from, that of the worst arrow first."""
        return [each.source for each in _worst_arrows(self.arrows) if each.target == node]

    def targets(self, node: str) -> list[str]:
        """Return the nodes that get messages from a node, that of the worst arrow first."""
        return [each.target for each in _worst_arrows(self.arrows) if each.source == node]

    def only(self, kept: Iterable[str]) -> Topology:
        """Return some of the nodes, and the arrows between them."""
        nodes = {node: self.nodes[node] for node in kept}
        arrows = (each for each in self.arrows if {each.source, each.target} <= nodes.keys())
        return Topology(nodes, tuple(arrows))

    def around(self, node: str) -> Topology:
        """Return a node with its neighbours, and the arrows that touch it."""
        arrows = tuple(each for each in self.arrows if node in (each.source, each.target))
        near = {node} | {end for each in arrows for end in (each.source, each.target)}
        return Topology({id_: s for id_, s in self.nodes.items() if id_ in near}, arrows)


def topology(nodes: Iterable[NodeInfo], edges: Iterable[EdgeStats]) -> Topology:
    """Return the topology of one dataflow. Ends that no node has are added as nodes."""
    status = {info.node: str(info.status) for info in nodes}
    edges_between: dict[tuple[str, str], list[EdgeStats]] = {}
    for edge in sorted(edges, key=lambda each: (each.source, each.target)):
        ends = edge.source.partition("/")[0], edge.target.partition("/")[0]
        for end in ends:
            status.setdefault(end, "")
        edges_between.setdefault(ends, []).append(edge)
    return Topology(
        status, tuple(Arrow(*ends, tuple(several)) for ends, several in edges_between.items())
    )


def _worst_arrows(arrows: Iterable[Arrow]) -> list[Arrow]:
    return sorted(arrows, key=lambda each: (not each.broken, -round(each.drops)))


@lru_cache(64)
def flow_order(
    nodes: tuple[str, ...], arrows: tuple[tuple[str, str], ...]
) -> Mapping[str, tuple[int, int]]:
    """Return nodes in the order in which messages pass them, with the rank and place of each.

    A rank is below all that it gets messages from; in it a node stands near its sources.
    """
    forward, backward = without_cycles(nodes, [Link(*ends) for ends in arrows])
    downward = forward | {Link(link.target, link.source) for link in backward}
    rank = ranks(nodes, sorted(downward))
    lowest = min(rank.values(), default=0)
    sources: dict[str, list[str]] = {}
    for link in downward:
        sources.setdefault(link.target, []).append(link.source)
    place: dict[str, tuple[int, int]] = {}
    for level in range(lowest, max(rank.values(), default=-1) + 1):
        here = [node for node in nodes if rank[node] == level]
        middle = {
            node: sum(place[each][1] for each in above) / len(above)
            for node in here
            if (above := sources.get(node))
        }
        here.sort(key=lambda node: (middle.get(node, 0.0), natural(node)))
        place |= {node: (level - lowest, at) for at, node in enumerate(here)}
    return place


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


def worst_node(drawn: Topology) -> str | None:
    """Return the node that needs a look first: a failed one, or the end of the worst edge."""
    for status in ("failed", "restarting", "degraded"):
        for node, each in drawn.nodes.items():
            if each == status:
                return node
    edges = worst_first(edge for arrow in drawn.arrows for edge in arrow.edges)
    if edges:
        return edges[0].target.partition("/")[0]
    return next(iter(drawn.nodes), None)

"""The position of each box, label and edge of a drawing: the second half of a layout.

Boxes are in even rows and labels in odd ones. A label is a point of its edge and takes part in the
ordering, so that nothing is drawn over anything else.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

from dorad.dataflow.columns import GAP, Size, columns
from dorad.dataflow.layers import Link, ordered, ranks, without_cycles

ROW_GAP = 30.0
"""Distance between a row of boxes and the row of labels below it, pixels."""
EMPTY_GAP = 19.0
"""The same if no edge has a label."""
PORT_SPACING = 18.0
"""Preferred distance between the ends of edges along a box's border."""
LOOP_WIDTH = 34.0
"""Width of an edge from a box to itself."""
MAX_POINTS = 20_000
"""Boxes and points of edges that are ordered; a larger drawing gets straight edges."""


class Point(NamedTuple):
    """A position, pixels from the top left corner; y grows downwards."""

    x: float
    y: float


@dataclass(frozen=True, slots=True)
class Edge:
    """An edge to place; `label` is the size of its label, (0, 0) for none."""

    source: str
    target: str
    label: Size


@dataclass(frozen=True, slots=True)
class EdgePath:
    """An edge with a position: a smooth line from its source to its target."""

    points: tuple[Point, ...]
    """From the border of the source to the border of the target."""
    label: Point
    """The centre of its label."""
    backward: bool
    """Whether it runs upwards and closes a cycle."""
    loop: bool = False
    """Whether it leads from a box to itself."""


@dataclass(frozen=True, slots=True)
class Layout:
    """All positions of a drawing: centres of boxes by key, routes in the order of the edges."""

    width: float
    height: float
    centres: Mapping[str, Point]
    routes: tuple[EdgePath, ...]


def layout(boxes: Mapping[str, Size], edges: Sequence[Edge]) -> Layout:
    """Place boxes and edges from top to bottom; `edges` has each (source, target) once."""
    keys = list(boxes)
    forward, backward = without_cycles(keys, (Link(edge.source, edge.target) for edge in edges))
    downward = forward | {Link(link.target, link.source) for link in backward}
    rank = ranks(keys, sorted(downward), step=2)
    sizes = dict(boxes)
    loops = {edge.source for edge in edges if edge.source == edge.target}
    for edge in edges:
        if edge.source == edge.target:
            wide = boxes[edge.source].width + 2 * (LOOP_WIDTH + edge.label.width)
            sizes[edge.source] = Size(wide, boxes[edge.source].height)
    if len(keys) + sum(abs(rank[e.source] - rank[e.target]) for e in edges) > MAX_POINTS:
        return _plain(boxes, edges, rank, sizes, backward)
    chains = [_chain(index, edge, rank, sizes) for index, edge in enumerate(edges)]
    rows = _rows(keys, rank, chains)
    links = list(dict.fromkeys(Link(a, b) for chain in chains for a, b in pairwise(chain)))
    rows = ordered(rows, links)
    x = columns(rows, links, sizes, chains)
    lines = _lines(rows, sizes)
    left = min((x[key] - sizes[key].width / 2 for row in rows for key in row), default=0.0)
    right = max((x[key] + sizes[key].width / 2 for row in rows for key in row), default=0.0)
    positions = {key: Point(x[key] - left, sum(lines[key]) / 2) for row in rows for key in row}
    ports = _ports(chains, positions, boxes)
    routes = tuple(
        _loop(edge, positions, boxes)
        if edge.source in loops and edge.source == edge.target
        else _route(
            edge, Link(edge.source, edge.target) in backward, chain, positions, lines, ports, boxes
        )
        for edge, chain in zip(edges, chains, strict=True)
    )
    height = max((bottom for _, bottom in lines.values()), default=0.0)
    return Layout(right - left, height, {key: positions[key] for key in keys}, routes)


def _plain(
    boxes: Mapping[str, Size],
    edges: Sequence[Edge],
    rank: Mapping[str, int],
    sizes: Mapping[str, Size],
    backward: AbstractSet[Link],
) -> Layout:
    """Place the boxes of a drawing that is too large to be ordered; edges may cross everything."""
    rows = [row for row in _rows(list(boxes), rank, ()) if row]
    positions: dict[str, Point] = {}
    top = right = 0.0
    for row in rows:
        bottom = top + max(sizes[key].height for key in row)
        left = 0.0
        for key in row:
            positions[key] = Point(left + sizes[key].width / 2, (top + bottom) / 2)
            left += sizes[key].width + GAP
        top, right = bottom + 2 * ROW_GAP, max(right, left - GAP)
    routes = tuple(
        _loop(edge, positions, boxes)
        if edge.source == edge.target
        else _straight(edge, positions, boxes, upward=Link(edge.source, edge.target) in backward)
        for edge in edges
    )
    return Layout(right, max(top - 2 * ROW_GAP, 0.0), positions, routes)


def _straight(
    edge: Edge, positions: Mapping[str, Point], boxes: Mapping[str, Size], *, upward: bool
) -> EdgePath:
    sign = -1 if upward else 1
    start, end = positions[edge.source], positions[edge.target]
    first = Point(start.x, start.y + sign * boxes[edge.source].height / 2)
    last = Point(end.x, end.y - sign * boxes[edge.target].height / 2)
    half = Point((first.x + 3 * last.x) / 4, (first.y + 3 * last.y) / 4)
    return EdgePath((first, last), half, backward=upward)


def _chain(
    index: int, edge: Edge, rank: Mapping[str, int], sizes: dict[str, Size]
) -> tuple[str, ...]:
    """Return the keys an edge runs through, top to bottom, and record the size of each point."""
    if edge.source == edge.target:
        return ()
    top, bottom = sorted((edge.source, edge.target), key=lambda key: rank[key])
    between = range(rank[top] + 1, rank[bottom])
    # Next to the target: edges from one output have spread there, so labels do not collide.
    middle = between[0] if rank[edge.source] > rank[edge.target] else between[-1]
    chain = [top]
    for row in between:
        key = f"/{index}/{row}"
        sizes[key] = edge.label if row == middle else Size(0.0, 0.0)
        chain.append(key)
    return (*chain, bottom)


def _rows(
    keys: Sequence[str], rank: Mapping[str, int], chains: Sequence[tuple[str, ...]]
) -> list[list[str]]:
    rows: list[list[str]] = [[] for _ in range(max(rank.values(), default=-1) + 1)]
    for key in keys:
        rows[rank[key]].append(key)
    for chain in chains:
        for offset, key in enumerate(chain[1:-1], start=1):
            rows[rank[chain[0]] + offset].append(key)
    return rows


def _lines(
    rows: Sequence[Sequence[str]], sizes: Mapping[str, Size]
) -> dict[str, tuple[float, float]]:
    """Return the top and bottom y of every key's row."""
    tallest = [max((sizes[key].height for key in row), default=0.0) for row in rows]
    lines: dict[str, tuple[float, float]] = {}
    top = 0.0
    for index, row in enumerate(rows):
        bottom = top + tallest[index]
        lines.update(dict.fromkeys(row, (top, bottom)))
        labels = tallest[index] if index % 2 else tallest[min(index + 1, len(rows) - 1)]
        top = bottom + (ROW_GAP if labels else EMPTY_GAP)
    return lines


def _ports(
    chains: Sequence[tuple[str, ...]], positions: Mapping[str, Point], boxes: Mapping[str, Size]
) -> dict[tuple[str, str], float]:
    """Return the x at which each chain touches a box, by (box, neighbour in the chain).

    The ends of a box's edges spread along its border in the order of their other ends.
    """
    sides: dict[tuple[str, bool], list[str]] = {}
    for chain in chains:
        if chain:
            sides.setdefault((chain[0], True), []).append(chain[1])
            sides.setdefault((chain[-1], False), []).append(chain[-2])
    ports: dict[tuple[str, str], float] = {}
    for (key, _), others in sides.items():
        others.sort(key=lambda other: positions[other].x)
        room = boxes[key].width - 24.0
        spacing = min(PORT_SPACING, room / max(1, len(others) - 1))
        for index, other in enumerate(others):
            ports[key, other] = positions[key].x + (index - (len(others) - 1) / 2) * spacing
    return ports


def _route(
    edge: Edge,
    backward: bool,
    chain: tuple[str, ...],
    positions: Mapping[str, Point],
    lines: Mapping[str, tuple[float, float]],
    ports: Mapping[tuple[str, str], float],
    boxes: Mapping[str, Size],
) -> EdgePath:
    top, bottom = chain[0], chain[-1]
    label = positions[chain[1 if backward else -2]]
    start, end = ports[top, chain[1]], ports[bottom, chain[-2]]
    points = [Point(start, positions[top].y + boxes[top].height / 2), Point(start, lines[top][1])]
    for key in chain[1:-1]:
        # Straight down through the whole row, so that it does not touch its neighbours.
        points += [Point(positions[key].x, y) for y in lines[key]]
    points.append(Point(end, lines[bottom][0]))
    points.append(Point(end, positions[bottom].y - boxes[bottom].height / 2))
    return EdgePath(tuple(reversed(points)) if backward else tuple(points), label, backward)


def _loop(edge: Edge, positions: Mapping[str, Point], boxes: Mapping[str, Size]) -> EdgePath:
    size, centre = boxes[edge.source], positions[edge.source]
    side, out = centre.x + size.width / 2, size.height / 4
    points = (Point(side, centre.y + out), Point(side, centre.y - out))
    label = Point(side + LOOP_WIDTH + edge.label.width / 2 - 4.0, centre.y)
    return EdgePath(points, label, backward=True, loop=True)

"""Where the boxes and lines of a graph are, in characters. From left to right."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from typing import NamedTuple

from dorad.dataflow.layers import Link, ordered, ranks, without_cycles
from dorafleet.console.view.words import width

LABEL = 12
"""Columns for the label of an arrow."""
MAX_NAME = 24


class Box(NamedTuple):
    """A node: its place, and its size with the frame."""

    x: int
    y: int
    wide: int
    tall: int


class Route(NamedTuple):
    """A line of an arrow: corners from left to right, and where its label begins."""

    corners: tuple[tuple[int, int], ...]
    label: tuple[int, int]
    backward: bool
    """Whether its head is at the left end: it closes a cycle."""


@dataclass(frozen=True, slots=True)
class Layout:
    """All places; routes are in the order of the arrows, None for one from a node to itself."""

    wide: int
    tall: int
    boxes: Mapping[str, Box]
    routes: tuple[Route | None, ...]


class _Segment(NamedTuple):
    arrow: int
    left: str
    right: str
    last: bool
    """Whether the label is on it."""


@lru_cache(64)
def layout(
    nodes: tuple[str, ...], arrows: tuple[tuple[str, str], ...], max_name: int = MAX_NAME
) -> Layout:
    """Return the places of nodes and arrows. Depends on nothing else, so it is kept.

    A box has room for `max_name` columns of its name.
    """
    links = [Link(*ends) for ends in arrows]
    forward, backward = without_cycles(nodes, links)
    downward = forward | {Link(link.target, link.source) for link in backward}
    rank = ranks(nodes, sorted(downward))
    columns: list[list[str]] = [[] for _ in range(max(rank.values(), default=-1) + 1)]
    for node in nodes:
        columns[rank[node]].append(node)
    segments, chains = _segments(links, backward, rank, columns)
    pairs = [Link(each.left, each.right) for each in segments]
    columns = ordered(columns, list(dict.fromkeys(pairs)))
    real = set(nodes)
    ins, outs = _ports(segments, columns)
    tall = {
        key: max(len(ins.get(key, ())), len(outs.get(key, ())), 1) + 2 if key in real else 1
        for column in columns
        for key in column
    }
    y = _rows(columns, segments, tall, real)
    boxes, gaps, wide = _columns(columns, segments, tall, y, real, ins, outs, max_name)
    routes: list[Route | None] = [None] * len(arrows)
    for at, chain in chains.items():
        routes[at] = _route(chain, gaps, links[at] in backward)
    height = max((y[key] + tall[key] for column in columns for key in column), default=0)
    return Layout(wide, height, {key: boxes[key] for key in nodes}, tuple(routes))


def _segments(
    links: Sequence[Link],
    backward: set[Link],
    rank: Mapping[str, int],
    columns: list[list[str]],
) -> tuple[list[_Segment], dict[int, list[_Segment]]]:
    """Split arrows at each column that they cross."""
    segments: list[_Segment] = []
    chains: dict[int, list[_Segment]] = {}
    for at, link in enumerate(links):
        if link.source == link.target:
            continue
        left, right = sorted((link.source, link.target), key=lambda key: rank[key])
        keys = [left]
        for column in range(rank[left] + 1, rank[right]):
            key = f"/{at}/{column}"
            columns[column].append(key)
            keys.append(key)
        keys.append(right)
        steps = list(pairwise(keys))
        label_at = 0 if link in backward else len(steps) - 1
        chains[at] = [_Segment(at, a, b, n == label_at) for n, (a, b) in enumerate(steps)]
        segments += chains[at]
    return segments, chains


def _ports(
    segments: Sequence[_Segment], columns: Sequence[Sequence[str]]
) -> tuple[dict[str, list[_Segment]], dict[str, list[_Segment]]]:
    """Return the segments that enter and leave each key, from top to bottom."""
    place = {key: at for column in columns for at, key in enumerate(column)}
    ins: dict[str, list[_Segment]] = {}
    outs: dict[str, list[_Segment]] = {}
    for each in segments:
        ins.setdefault(each.right, []).append(each)
        outs.setdefault(each.left, []).append(each)
    for several in ins.values():
        several.sort(key=lambda each: place[each.left])
    for several in outs.values():
        several.sort(key=lambda each: place[each.right])
    return ins, outs


def _rows(
    columns: Sequence[Sequence[str]],
    segments: Sequence[_Segment],
    tall: Mapping[str, int],
    real: set[str],
) -> dict[str, int]:
    """Return the first line of each key: below the one above it, level with its sources."""
    y: dict[str, int] = {}
    for column in columns:
        line = 0
        for key in column:
            before = [y[e.left] + tall[e.left] // 2 for e in segments if e.right == key]
            wanted = round(sum(before) / len(before)) - tall[key] // 2 if before else line
            y[key] = max(line, wanted)
            line = y[key] + tall[key] + (0 if key in real else 1)
    lowest = min(y.values(), default=0)
    return {key: at - lowest for key, at in y.items()}


def _columns(
    columns: Sequence[Sequence[str]],
    segments: Sequence[_Segment],
    tall: Mapping[str, int],
    y: Mapping[str, int],
    real: set[str],
    ins: Mapping[str, list[_Segment]],
    outs: Mapping[str, list[_Segment]],
    max_name: int,
) -> tuple[dict[str, Box], dict[_Segment, tuple[int, int, int, int, int]], int]:
    """Return boxes, and for each segment: left x, left y, lane x, right x, right y."""
    boxes: dict[str, Box] = {}
    gaps: dict[_Segment, tuple[int, int, int, int, int]] = {}
    x = 0
    for number, column in enumerate(columns):
        wide = max((_wide(key, max_name) for key in column if key in real), default=1)
        for key in column:
            boxes[key] = Box(x, y[key], wide, tall[key])
        right = x + wide
        here = [each for each in segments if each.left in column]
        if number == len(columns) - 1 or not here:
            x = right + 2
            continue
        lefts = {e: _port(e, outs[e.left], e.left, y, real) for e in here}
        rights = {e: _port(e, ins[e.right], e.right, y, real) for e in here}
        lanes = _lanes(here, lefts, rights)
        across = max(lanes.values(), default=0) + 1
        x = right + across + 2 + LABEL + 2
        for each in here:
            gaps[each] = (right, lefts[each], right + 1 + lanes[each], x - 1, rights[each])
    return boxes, gaps, x


def _wide(key: str, max_name: int) -> int:
    return min(width(key), max_name) + 5


def _port(
    segment: _Segment, several: Sequence[_Segment], key: str, y: Mapping[str, int], real: set[str]
) -> int:
    """Return the line at which a segment touches a key."""
    return y[key] + 1 + several.index(segment) if key in real else y[key]


def _lanes(
    here: Sequence[_Segment], lefts: Mapping[_Segment, int], rights: Mapping[_Segment, int]
) -> dict[_Segment, int]:
    """Return the vertical lane of each bent segment, so that no two lines lie on each other.

    A segment that leaves at a line where another one arrives needs a lane further left.
    """
    bent = [each for each in here if lefts[each] != rights[each]]
    lanes = dict.fromkeys(here, 0)
    placed: list[_Segment] = []
    waiting = sorted(bent, key=lambda e: (rights[e] < lefts[e], -lefts[e]))
    while waiting:
        free = [
            each
            for each in waiting
            if not any(lefts[o] == rights[each] for o in waiting if o is not each)
        ]
        each = (free or waiting)[0]
        waiting.remove(each)
        lanes[each] = len(placed)
        placed.append(each)
    return lanes


def _route(
    chain: Sequence[_Segment],
    gaps: Mapping[_Segment, tuple[int, int, int, int, int]],
    backward: bool,
) -> Route:
    corners: list[tuple[int, int]] = []
    label = (0, 0)
    for each in chain:
        left, top, lane, right, bottom = gaps[each]
        corners += [(left, top), (lane, top), (lane, bottom), (right, bottom)]
        if each.last:
            label = (right - LABEL - 1, bottom)
    return Route(tuple(dict.fromkeys(corners)), label, backward)

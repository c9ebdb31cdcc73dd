"""The x position of each box and each point of an edge, given the order of every row."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from statistics import median
from typing import NamedTuple

from dorad.dataflow.layers import Link, passes

GAP = 28.0
"""Minimum distance between neighbours in a row, pixels."""
THIN_GAP = 16.0
"""The same if one of them is only a passing edge."""
PASSES = 40
"""Passes over the rows that move them under their neighbours."""
MIN_PASSES = 6
PASS_WORK = 200_000
"""Keys that all passes together handle, after the first ones."""
STRAIGHTENINGS = 4
"""Passes over the edges that make them straight."""


class Size(NamedTuple):
    """Width and height, pixels."""

    width: float
    height: float


def columns(
    rows: Sequence[Sequence[str]],
    links: Sequence[Link],
    sizes: Mapping[str, Size],
    chains: Sequence[Sequence[str]],
) -> dict[str, float]:
    """Return the x of every key's centre: near its neighbours, no two too close.

    `chains` are the keys each edge runs through, from box to box. Each pass moves one row after
    the other to the weighted mean of its neighbours' positions, first looking only up or only
    down, later both ways; `settle` keeps the distances. The last step makes long edges straight.
    """
    points = {key for chain in chains for key in chain[1:-1]}
    near: dict[str, list[tuple[str, float]]] = {key: [] for row in rows for key in row}
    row_of = {key: index for index, row in enumerate(rows) for key in row}
    for a, b in links:
        # Long edges pull harder: they should be straight, and boxes can give way.
        pull = 8.0 if a in points and b in points else 2.0
        near[a].append((b, pull))
        near[b].append((a, pull))
    x: dict[str, float] = {}
    for row in rows:
        at = 0.0
        for key in row:
            x[key] = at + sizes[key].width / 2
            at += sizes[key].width + GAP
    turns = passes(PASSES, MIN_PASSES, PASS_WORK, len(x))
    for turn in range(turns):
        order = range(len(rows)) if turn % 2 == 0 else range(len(rows) - 1, -1, -1)
        both = turn >= turns // 3
        for index in order:
            _pull(rows[index], index, near, row_of, x, sizes, None if both else turn % 2 == 0)
    at_of = {key: at for row in rows for at, key in enumerate(row)}
    for _ in range(STRAIGHTENINGS):
        for chain in chains:
            _straighten(chain[1:-1], rows, row_of, at_of, x, sizes)
    return x


def _straighten(
    points: Sequence[str],
    rows: Sequence[Sequence[str]],
    row_of: Mapping[str, int],
    at_of: Mapping[str, int],
    x: dict[str, float],
    sizes: Mapping[str, Size],
) -> None:
    """Give each run of an edge's points the same x, if the neighbours leave room for it."""
    run: list[str] = []
    low, high = float("-inf"), float("inf")
    for key in points:
        left, right = _room(at_of[key], rows[row_of[key]], x, sizes)
        if max(low, left) > min(high, right):
            _line_up(run, low, high, x)
            run, low, high = [], float("-inf"), float("inf")
        run.append(key)
        low, high = max(low, left), min(high, right)
    _line_up(run, low, high, x)


def _line_up(run: Sequence[str], low: float, high: float, x: dict[str, float]) -> None:
    if run:
        middle = min(max(median(x[key] for key in run), low), high)
        x.update(dict.fromkeys(run, middle))


def _room(
    at: int, row: Sequence[str], x: Mapping[str, float], sizes: Mapping[str, Size]
) -> tuple[float, float]:
    """Return the minimum and maximum x of a place in a row that do not move its neighbours."""
    key = row[at]
    left = x[row[at - 1]] + _gap(sizes[row[at - 1]], sizes[key]) if at else float("-inf")
    if at + 1 == len(row):
        return left, float("inf")
    return left, x[row[at + 1]] - _gap(sizes[key], sizes[row[at + 1]])


def _gap(left: Size, right: Size) -> float:
    """Return the minimum distance between the centres of two neighbours."""
    space = GAP if left.width and right.width else THIN_GAP
    return (left.width + right.width) / 2 + space


def _pull(
    row: Sequence[str],
    index: int,
    near: Mapping[str, Sequence[tuple[str, float]]],
    row_of: Mapping[str, int],
    x: dict[str, float],
    sizes: Mapping[str, Size],
    down: bool | None,
) -> None:
    """Move one row towards the row above (`down`), below (not `down`) or both (None)."""
    wanted: list[tuple[float, float]] = []
    for key in row:
        pulls = [
            (x[other], pull)
            for other, pull in near[key]
            if down is None or (row_of[other] < index) == down
        ]
        weight = sum(pull for _, pull in pulls)
        mean = sum(at * pull for at, pull in pulls) / weight if weight else x[key]
        wanted.append((mean, weight or 0.01))
    gaps = [_gap(sizes[a], sizes[b]) for a, b in pairwise(row)]
    for key, at in zip(row, settle(wanted, gaps), strict=True):
        x[key] = at


def settle(wanted: Sequence[tuple[float, float]], gaps: Sequence[float]) -> list[float]:
    """Return positions nearest the wanted ones (position, weight) that keep their order and gaps.

    Least weighted squares under order constraints: subtracting the gaps makes it isotonic
    regression, which pooling adjacent violators solves exactly.
    """
    offset = 0.0
    offsets = []
    blocks: list[tuple[float, float, int]] = []
    for index, (at, weight) in enumerate(wanted):
        if index:
            offset += gaps[index - 1]
        offsets.append(offset)
        mean, total, count = at - offset, weight, 1
        while blocks and blocks[-1][0] > mean:
            before, weight_before, count_before = blocks.pop()
            mean = (mean * total + before * weight_before) / (total + weight_before)
            total += weight_before
            count += count_before
        blocks.append((mean, total, count))
    flat = [mean for mean, _, count in blocks for _ in range(count)]
    return [at + shift for at, shift in zip(flat, offsets, strict=True)]

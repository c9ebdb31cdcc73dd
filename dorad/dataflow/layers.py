"""The row of each box of a drawing and its order in the row: the first half of a layout.

The method is Sugiyama's: reverse the edges that close a cycle, give every box a row below all its
sources, add a point to an edge in each row that it crosses, then order each row so that few edges
cross. Pure functions over hashable keys.
"""

from __future__ import annotations

from bisect import bisect_right, insort
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from typing import NamedTuple

SWEEPS = 24
"""Passes over the rows while ordering them; the number of crossings settles much earlier."""
SWEEP_WORK = 120_000
"""Keys that all passes together handle, after the first ones: a large drawing gets fewer passes."""
MIN_SWEEPS = 4
MAX_PAIRS = 1000
"""Pairs of links of two neighbours that are compared; two hubs with more keep their order."""


class Link(NamedTuple):
    """A directed edge between two keys."""

    source: str
    target: str


def without_cycles(keys: Sequence[str], links: Iterable[Link]) -> tuple[set[Link], set[Link]]:
    """Split links into (forward, backward), so that forward has no cycle once all
    backward ones are reversed. Links from a key to itself are in neither.

    Depth first in the given order, so a file written along the flow keeps its direction.
    """
    following: dict[str, list[str]] = {key: [] for key in keys}
    entered: dict[str, int] = dict.fromkeys(keys, 0)
    unique = list(dict.fromkeys(link for link in links if link.source != link.target))
    for link in unique:
        following[link.source].append(link.target)
        entered[link.target] += 1
    backward: set[Link] = set()
    done: set[str] = set()
    for root in sorted(keys, key=lambda key: entered[key] > 0):
        if root in done:
            continue
        trail = {root: iter(following[root])}
        while trail:
            key, rest = next(reversed(trail.items()))
            target = next(rest, None)
            if target is None:
                del trail[key]
                done.add(key)
            elif target in trail:
                backward.add(Link(key, target))
            elif target not in done:
                trail[target] = iter(following[target])
    return set(unique) - backward, backward


def ranks(keys: Sequence[str], links: Iterable[Link], step: int = 1) -> dict[str, int]:
    """Return the row of each key, from 0: at least `step` below every source (longest path).

    Keys without sources then move down to just above their nearest target, so that a timer
    stands next to the node it drives. `links` must have no cycle.
    """
    sources: dict[str, list[str]] = {key: [] for key in keys}
    targets: dict[str, list[str]] = {key: [] for key in keys}
    for link in links:
        sources[link.target].append(link.source)
        targets[link.source].append(link.target)
    rank: dict[str, int] = {}
    waiting = {key: len(sources[key]) for key in keys}
    ready = [key for key in keys if not waiting[key]]
    for key in ready:
        rank[key] = max((rank[source] + step for source in sources[key]), default=0)
        for target in targets[key]:
            waiting[target] -= 1
            if not waiting[target]:
                ready.append(target)
    for key in reversed(ready):
        if not sources[key] and targets[key]:
            rank[key] = min(rank[target] for target in targets[key]) - step
    return rank


def ordered(rows: Sequence[Sequence[str]], links: Iterable[Link]) -> list[list[str]]:
    """Return the rows reordered for few crossings. Links join neighbouring rows only.

    Sweeps down and up, sorting each row by the barycentre of its neighbours in the row before;
    the best order seen is kept.
    """
    above: dict[str, list[str]] = {key: [] for row in rows for key in row}
    below: dict[str, list[str]] = {key: [] for row in rows for key in row}
    for link in links:
        above[link.target].append(link.source)
        below[link.source].append(link.target)
    current = [list(row) for row in rows]
    best = [list(row) for row in current]
    fewest = crossings(best, below)
    for sweep in range(passes(SWEEPS, MIN_SWEEPS, SWEEP_WORK, len(above))):
        if not fewest:
            break
        down = sweep % 2 == 0
        indices = range(1, len(current)) if down else range(len(current) - 2, -1, -1)
        for index in indices:
            before = current[index - 1] if down else current[index + 1]
            _sort(current[index], before, above if down else below, stable=sweep % 4 < 2)
        _swap_neighbours(current, above, below)
        count = crossings(current, below)
        if count < fewest:
            fewest = count
            best = [list(row) for row in current]
    return best


def passes(most: int, least: int, work: int, keys: int) -> int:
    """Return how many passes a drawing with so many keys gets, so that it takes seconds at most."""
    return max(least, min(most, work // max(keys, 1)))


def crossings(rows: Sequence[Sequence[str]], below: Mapping[str, Sequence[str]]) -> int:
    """Count the pairs of links that cross between neighbouring rows."""
    total = 0
    for upper, lower in pairwise(rows):
        index_of = {key: index for index, key in enumerate(lower)}
        seen: list[int] = []
        for key in upper:
            ends = [index_of[target] for target in below[key]]
            total += sum(len(seen) - bisect_right(seen, end) for end in ends)
            for end in ends:
                insort(seen, end)
    return total


def _sort(
    row: list[str], before: Sequence[str], neighbours: Mapping[str, Sequence[str]], *, stable: bool
) -> None:
    """Sort a row by barycentre; a key without neighbours keeps its place.

    Equal barycentres keep their order, or swap it when not `stable`: that gets a sweep out of
    an order that is a local optimum.
    """
    index_of = {key: index for index, key in enumerate(before)}
    sign = 1 if stable else -1
    centre = {
        key: sum(index_of[n] for n in neighbours[key]) / len(neighbours[key])
        for key in row
        if neighbours[key]
    }
    movable = [key for key in row if key in centre]
    position = {key: index for index, key in enumerate(row)}
    movable.sort(key=lambda key: (centre[key], sign * position[key]))
    moved = iter(movable)
    row[:] = [next(moved) if key in centre else key for key in row]


def _swap_neighbours(
    rows: list[list[str]], above: Mapping[str, Sequence[str]], below: Mapping[str, Sequence[str]]
) -> None:
    """Swap neighbours in a row if that reduces the crossings above and below it in total."""
    for index, row in enumerate(rows):
        upper = {key: i for i, key in enumerate(rows[index - 1])} if index else {}
        lower = {key: i for i, key in enumerate(rows[index + 1])} if index + 1 < len(rows) else {}
        for i in range(len(row) - 1):
            left, right = row[i], row[i + 1]
            if max(len(n[left]) * len(n[right]) for n in (above, below)) > MAX_PAIRS:
                continue
            kept = _pair(left, right, above, upper) + _pair(left, right, below, lower)
            swapped = _pair(right, left, above, upper) + _pair(right, left, below, lower)
            if swapped < kept:
                row[i], row[i + 1] = right, left


def _pair(
    left: str, right: str, neighbours: Mapping[str, Sequence[str]], index_of: Mapping[str, int]
) -> int:
    """Count crossings between the links of two keys, `left` standing left of `right`."""
    return sum(
        1
        for a in neighbours[left]
        for b in neighbours[right]
        if index_of and index_of[b] < index_of[a]
    )

"""Match messages of several inputs by their times. Pure: times in, positions out."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Sequence


class Match(NamedTuple):
    """The result of a search for a set.

    The first `passed[i]` messages of input i match nothing, now or later. If `found`, the next
    message of each input belongs to the set.
    """

    passed: tuple[int, ...]
    found: bool


def match(waiting: Sequence[Sequence[int]], tolerance: int) -> Match:
    """Search for the first set of one message from each input, all sent within `tolerance`.

    `waiting` holds the times of the queued messages of each input, oldest first, in the unit of
    `tolerance`. The oldest message of a set is skipped if its successor makes the set tighter.
    """
    at = [0] * len(waiting)
    while all(place < len(times) for place, times in zip(at, waiting, strict=True)):
        fronts = [times[place] for place, times in zip(at, waiting, strict=True)]
        oldest = min(range(len(fronts)), key=fronts.__getitem__)
        spread = max(fronts) - fronts[oldest]
        if spread > tolerance or _is_tighter(fronts, oldest, waiting[oldest], at[oldest], spread):
            # The input with the newest message only gets newer ones.
            at[oldest] += 1
            continue
        return Match(tuple(at), True)
    return Match(tuple(at), False)


def _is_tighter(
    fronts: Sequence[int], oldest: int, times: Sequence[int], place: int, spread: int
) -> bool:
    """Return True if the set is tighter with the successor of its oldest message."""
    if place + 1 == len(times):
        return False
    others = [front for index, front in enumerate(fronts) if index != oldest]
    after = [*others, times[place + 1]]
    return max(after) - min(after) < spread

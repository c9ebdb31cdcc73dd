"""Which messages of several inputs belong together. Pure: times in, positions out."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Sequence


class Match(NamedTuple):
    """What to do with what waits on each input.

    The first `passed[i]` messages of input i match nothing, now or later. If `found`, the next one
    of each input makes the set.
    """

    passed: tuple[int, ...]
    found: bool


def match(waiting: Sequence[Sequence[int]], tolerance: int) -> Match:
    """Find the first set of one message from each input, all sent within `tolerance`.

    `waiting` has for each input when its messages were sent, in order of sending, in the unit of
    `tolerance`. Of the messages that wait, the nearest are chosen: the oldest of a set is passed
    over if the one after it makes the set tighter.
    """
    at = [0] * len(waiting)
    while all(place < len(times) for place, times in zip(at, waiting, strict=True)):
        fronts = [times[place] for place, times in zip(at, waiting, strict=True)]
        oldest = min(range(len(fronts)), key=fronts.__getitem__)
        spread = max(fronts) - fronts[oldest]
        if spread > tolerance or _is_tighter(fronts, oldest, waiting[oldest], at[oldest], spread):
            # Whatever comes on the input with the newest one is newer still.
            at[oldest] += 1
            continue
        return Match(tuple(at), True)
    return Match(tuple(at), False)


def _is_tighter(
    fronts: Sequence[int], oldest: int, times: Sequence[int], place: int, spread: int
) -> bool:
    """Whether the set is tighter with the next message of the input that has the oldest."""
    if place + 1 == len(times):
        return False
    others = [front for index, front in enumerate(fronts) if index != oldest]
    after = [*others, times[place + 1]]
    return max(after) - min(after) < spread

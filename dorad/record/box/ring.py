"""The ring of a black box: short recordings of the last minutes; the oldest are removed.

    FOLDER/ring/        segments, each a complete recording
    FOLDER/marks/       requests to keep an incident, one JSON file each
    FOLDER/incidents/   a folder for each incident: incident.json, and links to its segments

Segments are numbered in the order in which they were made: the wall clock may be set meanwhile.
"""

from __future__ import annotations

import os
import re
from itertools import islice, pairwise
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

RING = "ring"
SEGMENT_S = 3.0
"""Seconds of one segment."""

KEPT = 2
"""The newest segments, which are never removed: one is being written, and the other may be."""

_SEGMENT = re.compile(r"(\d{8})_(\d{19})\.mcap")


class Segment(NamedTuple):
    """One segment; it begins at `start_ns`, which is in ns since 1970."""

    number: int
    start_ns: int
    path: Path


def segment_name(number: int, start_ns: int) -> str:
    """Return the file name of a segment, which sorts by its number."""
    return f"{number:08}_{start_ns:019}.mcap"


def segments(folder: Path, most: int | None = None) -> list[Segment]:
    """Return the segments in a folder in the order in which they were made.

    Only `most` of the folder's entries are read: a node may have written there.
    """
    try:
        names = [entry.name for entry in islice(os.scandir(folder), most)]
    except FileNotFoundError:
        return []
    matches = ((name, _SEGMENT.fullmatch(name)) for name in sorted(names))
    return [Segment(int(m[1]), int(m[2]), folder / name) for name, m in matches if m]


def overlapping(known: Sequence[Segment], start_ns: int, end_ns: int) -> list[Segment]:
    """Return the segments that hold messages between two moments; the last one still grows.

    A segment lasts until the next one begins. If the clock was set back between them, it may hold
    any moment between both starts.
    """
    within = [
        each
        for each, following in pairwise(known)
        if min(each.start_ns, following.start_ns) <= end_ns
        and max(each.start_ns, following.start_ns) > start_ns
    ]
    if known and known[-1].start_ns <= end_ns:
        within.append(known[-1])
    return within


def gone_between(known: Sequence[Segment]) -> int:
    """Return how many segments are missing between the first and the last of these."""
    numbers = {each.number for each in known}
    return max(numbers) - min(numbers) + 1 - len(numbers) if numbers else 0


def surplus(
    known: Sequence[Segment],
    sizes: Mapping[Path, int],
    ages: Mapping[Path, float],
    keep_s: float,
    max_bytes: int | None,
) -> list[Segment]:
    """Return the segments to remove, the oldest first: old ones, and those beyond `max_bytes`.

    `ages` are the seconds since the end of each segment.
    """
    total = sum(sizes.values())
    over = []
    for each in known[:-KEPT]:
        old = ages.get(each.path, 0.0) > keep_s
        if not old and (max_bytes is None or total <= max_bytes):
            break
        over.append(each)
        total -= sizes.get(each.path, 0)
    return over


def size_of(path: Path) -> int:
    """Return the bytes of a file, 0 if it is gone."""
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0

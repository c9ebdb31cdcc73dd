"""Cutting what is there of a stream into lines of bounded length."""

from __future__ import annotations

from itertools import accumulate
from typing import NamedTuple

MAX_LINE = 1 << 20
"""Bytes of a line that are kept; the rest is dropped."""
MAX_LINES = 1000
"""Lines that are cut off at a time: what one node may keep the others waiting for."""
CUT_MARKER = " … [line cut at 1 MiB]".encode()


class Cut(NamedTuple):
    """The lines at the beginning of some bytes, and how far they reach."""

    lines: list[bytes]
    """Without newlines, and without the carriage return before one."""
    used: int
    """Bytes that are done with."""
    more: bool
    """Whether there are more complete lines; else what follows begins one that is not."""
    skipping: bool
    """Whether the next byte belongs to the dropped rest of a line that was cut."""
    start: int
    """Where the first line begins: after the rest of an earlier one that was cut."""
    pieces: list[bytes]
    """The lines before they were shortened, without their newlines."""

    def ends(self) -> list[int]:
        """Return where each line ends, its newline included."""
        sizes = (len(piece) + 1 for piece in self.pieces)
        return [min(end, self.used) for end in accumulate(sizes, initial=self.start)][1:]


def cut_lines(data: bytes, skipping: bool, *, final: bool = False) -> Cut:
    """Cut complete lines off `data`, 1000 at most.

    `skipping` says that `data` begins inside the dropped rest of a line. What is longer than 1 MiB
    is given out as soon as that is clear, cut and marked. `final` says that nothing will follow, so
    that a last line without a newline is complete, too.
    """
    start = 0
    if skipping:
        start = data.find(b"\n") + 1
        if not start:
            return Cut([], len(data), False, not final, len(data), [])
    pieces = (data[start:] if start else data).split(b"\n", MAX_LINES)
    rest = pieces.pop()
    used = len(data) - len(rest)
    more = len(pieces) == MAX_LINES and b"\n" in rest
    too_long = not more and len(rest) > MAX_LINE
    if rest and not more and (final or too_long):
        pieces.append(rest)
        used = len(data)
    lines = pieces
    if len(data) > MAX_LINE or b"\r" in data:
        lines = [_complete(piece) for piece in pieces]
    return Cut(lines, used, more, too_long and not final, start, pieces)


def _complete(line: bytes) -> bytes:
    if len(line) > MAX_LINE:
        return line[:MAX_LINE] + CUT_MARKER
    return line.removesuffix(b"\r")

"""Cutting the bytes of a stream into lines of bounded length."""

from __future__ import annotations

from itertools import accumulate
from typing import NamedTuple

MAX_LINE = 1 << 20
"""Maximum number of bytes kept of a line; the rest is dropped."""
MAX_LINES = 1000
"""Maximum number of lines cut off at a time, so that one node does not delay others."""
CUT_MARKER = " … [line cut at 1 MiB]".encode()


class Cut(NamedTuple):
    """The complete lines at the beginning of some bytes, and where they end."""

    lines: list[bytes]
    """Lines without newlines and carriage returns."""
    used: int
    """Number of bytes that these lines took."""
    more: bool
    """Whether more complete lines follow."""
    skipping: bool
    """Whether the next byte belongs to the dropped rest of a line that was cut."""
    start: int
    """Where the first line begins, after the dropped rest of an earlier one."""
    pieces: list[bytes]
    """The lines before shortening, without newlines."""

    def ends(self) -> list[int]:
        """Return where each line ends, its newline included."""
        sizes = (len(piece) + 1 for piece in self.pieces)
        return [min(end, self.used) for end in accumulate(sizes, initial=self.start)][1:]


def cut_lines(data: bytes, skipping: bool, *, final: bool = False) -> Cut:
    """Cut complete lines off `data`, at most 1000.

    `skipping` means that `data` begins inside the dropped rest of a line. A line longer than 1 MiB
    is returned at once, cut and marked. `final` means that no more data follows, so a last line
    without a newline is complete, too.
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

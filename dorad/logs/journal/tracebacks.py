"""Grouping the lines of one Python traceback on stderr into one entry of the journal."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Sequence

_HEADER = re.compile(r"(?:  \+ Exception Group )?Traceback \(most recent call last\):")
_JOINERS = (
    "During handling of the above exception, another exception occurred:",
    "The above exception was the direct cause of the following exception:",
)


class Span(NamedTuple):
    """Lines from `begin` up to `end` that belong together."""

    begin: int
    end: int
    open: bool = False
    """Whether lines that have not arrived yet may belong to the span."""


def spans(lines: Sequence[str]) -> list[Span]:
    """Group lines into spans: a traceback with its causes is one span, any other line is another.

    A traceback has a header, indented lines and one unindented line with the error; an exception
    group has indented lines only. A blank line and a joiner sentence continue it with the next
    traceback.
    """
    found = []
    at = 0
    while at < len(lines):
        starts = _HEADER.fullmatch(lines[at])
        span = _traceback(lines, at) if starts else Span(at, at + 1)
        found.append(span)
        at = span.end
    return found


def _traceback(lines: Sequence[str], begin: int) -> Span:
    at = begin
    while True:
        group = lines[at].startswith(" ")
        at += 1
        while at < len(lines) and lines[at].startswith(" "):
            at += 1
        if at == len(lines):
            return Span(begin, at, open=True)
        if not group:
            at += 1
        following = lines[at : at + 4]
        if following[:1] not in ([], [""]):
            return Span(begin, at)
        continued = following[1:2] == [] or following[1] in _JOINERS
        if not continued or following[2:3] not in ([], [""]):
            return Span(begin, at)
        if len(following) < 4:
            return Span(begin, at, open=True)
        if not _HEADER.fullmatch(following[3]):
            return Span(begin, at)
        at += 3

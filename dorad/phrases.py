"""Words, sizes and times as messages of every part write them."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime


def first_of(texts: Iterable[str], limit: int, between: str = ", ") -> str:
    """Return the first `limit` texts, and the number of the others."""
    listed = list(texts)
    more = len(listed) - limit
    shown = between.join(listed[:limit])
    return f"{shown}{between.rstrip(' ,')} and {more} more" if more > 0 else shown


def shorten(text: str, limit: int = 60) -> str:
    """Return the text on one line, cut to `limit` characters."""
    line = text if text.isprintable() else repr(text)[1:-1]
    return line if len(line) <= limit else f"{line[: limit - 1]}…"


def count_text(count: int, word: str) -> str:
    """Return a number with its word, in the plural unless it is one."""
    return f"{count} {word}" if count == 1 else f"{count} {word}s"


def size_text(count: float) -> str:
    """Return bytes as text; units are powers of 1000."""
    if count < 1000:
        return f"{count:.0f} B"
    for unit, size in (("GB", 1e9), ("MB", 1e6)):
        if count >= size:
            return f"{count / size:.1f} {unit}"
    return f"{count / 1e3:.1f} kB"


def moment_text(moment: int) -> str:
    """Return a time in ns since 1970 as local date and time."""
    return datetime.fromtimestamp(moment / 1e9).isoformat(" ", "milliseconds")

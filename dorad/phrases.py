"""Words that messages of every part have in common."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable


def first_of(texts: Iterable[str], limit: int, between: str = ", ") -> str:
    """Return the first `limit` texts, and the number of the others."""
    found = list(texts)
    more = len(found) - limit
    shown = between.join(found[:limit])
    return f"{shown}{between.rstrip(' ,')} and {more} more" if more > 0 else shown


def shorten(text: str, limit: int = 60) -> str:
    """Return the text on one line, cut to `limit` characters."""
    line = text if text.isprintable() else repr(text)[1:-1]
    return line if len(line) <= limit else f"{line[: limit - 1]}…"

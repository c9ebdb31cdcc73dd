"""How many letters two words differ by."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

MOST = 2
"""Letters by which a word may differ from one that was meant."""


def distance(a: str, b: str) -> int:
    """The least number of letters to insert, remove or change (Levenshtein)."""
    before = list(range(len(b) + 1))
    for row, left in enumerate(a, 1):
        now = [row]
        for column, right in enumerate(b, 1):
            now.append(min(before[column] + 1, now[-1] + 1, before[column - 1] + (left != right)))
        before = now
    return before[-1]


def near(word: str, words: Iterable[str]) -> str | None:
    """The word that differs least, by two letters at most and less than half of them."""
    folded = word.lower()
    close = [
        (distance(folded, candidate.lower()), candidate)
        for candidate in words
        if abs(len(candidate) - len(word)) <= MOST
    ]
    least = min(close, key=lambda found: found[0], default=None)
    if least is None or least[0] > MOST or 2 * least[0] >= len(word):
        return None
    return least[1]

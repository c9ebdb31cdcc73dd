"""The nearest known word to a misspelt one."""

from __future__ import annotations

from collections.abc import Iterable

MAX_WORD = 500
"""Maximum characters of a word that is compared: longer ones would take seconds."""

MAX_DISTANCE = 2
"""Maximum number of letters that a typing error changes."""


def nearest(word: str, words: Iterable[str]) -> str | None:
    """Return the word most similar to `word`, or None; case, `-` and `_` hardly count."""
    if len(word) > MAX_WORD:
        return None
    import difflib  # here, because only a wrong file should pay for it

    folded = {_fold(candidate): candidate for candidate in words}
    close = difflib.get_close_matches(_fold(word), folded, n=1, cutoff=0.6)
    return folded[close[0]] if close else None


def did_you_mean(word: str, words: Iterable[str]) -> str | None:
    """Return a hint with the nearest word, or None."""
    near = nearest(word, words)
    return f"did you mean `{near}`?" if near is not None else None


def distance(a: str, b: str) -> int:
    """Return the number of letters to insert, remove or change (Levenshtein)."""
    before = list(range(len(b) + 1))
    for row, left in enumerate(a, 1):
        now = [row]
        for column, right in enumerate(b, 1):
            now.append(min(before[column] + 1, now[-1] + 1, before[column - 1] + (left != right)))
        before = now
    return before[-1]


def near(word: str, words: Iterable[str]) -> str | None:
    """Return the word that differs least, by at most two letters and less than half of them.

    Stricter than `nearest`, for names that look alike, such as those of types.
    """
    if len(word) > MAX_WORD:
        return None
    folded = word.lower()
    close = [
        (distance(folded, candidate.lower()), candidate)
        for candidate in words
        if abs(len(candidate) - len(word)) <= MAX_DISTANCE
    ]
    best = min(close, key=lambda pair: pair[0], default=None)
    if best is None or best[0] > MAX_DISTANCE or 2 * best[0] >= len(word):
        return None
    return best[1]


def _fold(word: str) -> str:
    return word.lower().replace("-", "_").replace(" ", "_")

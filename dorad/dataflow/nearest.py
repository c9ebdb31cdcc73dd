"""The nearest right word to a misspelt one."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable


def nearest(word: str, words: Iterable[str]) -> str | None:
    """The word most alike to `word`, or None if none is; case, `-` and `_` count little."""
    import difflib  # here, because only a wrong file should pay for it

    folded = {_fold(candidate): candidate for candidate in words}
    close = difflib.get_close_matches(_fold(word), folded, n=1, cutoff=0.6)
    return folded[close[0]] if close else None


def did_you_mean(word: str, words: Iterable[str]) -> str | None:
    """A hint that names the nearest word, or None."""
    found = nearest(word, words)
    return f"did you mean `{found}`?" if found is not None else None


def _fold(word: str) -> str:
    return word.lower().replace("-", "_").replace(" ", "_")

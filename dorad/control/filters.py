"""Filters of rows: `word`, `!word`, `key=v`, `key!=v`, `key>n`, `key<n`, `key~regex`, `since<10m`.

All terms must match. A term with spaces is quoted. Text is compared without regard to case.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TypeAlias

Value: TypeAlias = "str | float | bool | tuple[str, ...] | None"
"""A cell of a row: text, a number (times are ages in seconds), or several texts."""

MAX_LENGTH = 500
"""Characters of a filter."""
MAX_COMPARED = 300
"""Characters of a text that a regular expression looks at."""

_TERM = re.compile(r"(?P<key>[A-Za-z_][\w.%-]*)(?P<how>!=|>=|<=|=|>|<|~)(?P<value>.*)", re.DOTALL)
_NUMBER = re.compile(r"(?P<number>-?\d+(?:\.\d+)?)(?P<unit>[a-zA-Z%]*)")
_UNITS = {
    "": 1.0,
    "%": 1.0,
    "ms": 1e-3,
    "s": 1.0,
    "m": 60.0,
    "h": 3600.0,
    "d": 86400.0,
    "k": 1e3,
    "K": 1e3,
    "M": 1e6,
    "G": 1e9,
}


@dataclass(frozen=True, slots=True)
class Term:
    """One condition on a row."""

    key: str
    """Empty for a word that any cell may contain."""
    how: str
    value: str
    number: float | None = None
    pattern: re.Pattern[str] | None = None
    negated: bool = False


@dataclass(frozen=True, slots=True)
class Filter:
    """Conditions that a row must meet, all of them."""

    text: str = ""
    terms: tuple[Term, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.terms)

    def matches(self, row: Mapping[str, Value]) -> bool:
        """Return True if a row meets all conditions."""
        return all(_meets(term, row) for term in self.terms)

    @property
    def keys(self) -> set[str]:
        """The columns that it names."""
        return {term.key for term in self.terms if term.key}


def parse(text: str, keys: Iterable[str] = (), *, expressions: bool = True) -> Filter:
    """Return the filter that a text describes.

    `keys` are the columns that a term may name, beside `label.NAME`; none allows any. Without
    `expressions`, `key~regex` is refused: a regular expression can take very long.

    Raises:
        ValueError: a term is invalid; the message says what is wrong and what is possible.
    """
    if len(text) > MAX_LENGTH:
        raise ValueError(f"a filter has at most {MAX_LENGTH} characters")
    lexer = shlex.shlex(text, posix=True)
    # A backslash belongs to a regular expression.
    lexer.whitespace_split, lexer.commenters, lexer.escape = True, "", ""
    try:
        words = list(lexer)
    except ValueError:
        raise ValueError("a quotation mark is missing") from None
    known = tuple(keys)
    return Filter(text.strip(), tuple(_term(word, known, expressions) for word in words if word))


def number(text: str) -> float | None:
    """Return a number with an optional unit (`50`, `1.5k`, `10m`, `200ms`), or None."""
    match = _NUMBER.fullmatch(text)
    if match is None or match["unit"] not in _UNITS:
        return None
    return float(match["number"]) * _UNITS[match["unit"]]


def _term(word: str, keys: tuple[str, ...], expressions: bool) -> Term:
    match = _TERM.fullmatch(word)
    if match is None:
        negated = word.startswith("!") and len(word) > 1
        return Term("", "in", word[negated:].lower(), negated=negated)
    key, how, value = match["key"].lower(), match["how"], match["value"]
    if keys and key not in keys and not key.startswith("label."):
        raise ValueError(f"there is no column `{key}`; there are {', '.join(keys)}")
    if how == "~":
        if not expressions:
            raise ValueError("the server takes no regular expressions; use `key=` or a word")
        try:
            return Term(key, how, value, pattern=re.compile(value, re.IGNORECASE))
        except re.error as error:
            raise ValueError(f"`{value}` is not a regular expression: {error}") from None
    amount = number(value)
    if how in ("<", ">", "<=", ">=") and amount is None:
        raise ValueError(f"`{value}` after `{key}{how}` is not a number such as 50, 1.5k or 10m")
    return Term(key, "=" if how == "!=" else how, value.lower(), amount, negated=how == "!=")


def _meets(term: Term, row: Mapping[str, Value]) -> bool:
    if not term.key:
        meets = any(term.value in text.lower() for cell in row.values() for text in _texts(cell))
    else:
        meets = _compare(term, row.get(term.key))
    return meets is not term.negated


def _compare(term: Term, cell: Value) -> bool:
    if term.pattern is not None:
        return any(term.pattern.search(text[:MAX_COMPARED]) for text in _texts(cell))
    if isinstance(cell, int | float) and term.number is not None:
        amount = float(cell)
        match term.how:
            case "=":
                return amount == term.number
            case ">":
                return amount > term.number
            case "<":
                return amount < term.number
            case ">=":
                return amount >= term.number
            case _:
                return amount <= term.number
    if term.how != "=":
        return False  # not a number, so neither more nor less
    return any(term.value == text.lower() for text in _texts(cell))


def _texts(cell: Value) -> tuple[str, ...]:
    if cell is None:
        return ("",)
    if isinstance(cell, tuple):
        return cell
    if isinstance(cell, bool):
        return ("yes" if cell else "no",)
    return (f"{cell:g}" if isinstance(cell, float) else str(cell),)

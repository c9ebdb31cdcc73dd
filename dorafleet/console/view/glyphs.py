"""Characters for states and lines, with plain ASCII ones beside them."""

from collections.abc import Mapping
from dataclasses import dataclass

STATES: Mapping[str, tuple[str, str]] = {
    "fail": ("x", "FAIL"),
    "warn": ("!", "WARN"),
    "unreach": ("?", "UNREACH"),
    "stale": ("~", "STALE"),
    "update": ("=", "UPDATE"),
    "busy": ("-", "BUSY"),
    "ok": ("+", "OK"),
}
"""The letter and the word of each state. A style has the name of the state."""


@dataclass(frozen=True, slots=True)
class Glyphs:
    """The characters that lines are made of."""

    ascii: bool
    rule: str
    cursor: str
    mark: str
    horizontal: str
    vertical: str
    corners: tuple[str, str, str, str]
    """Upper left, upper right, lower left, lower right."""
    left: str
    """Arrow heads."""
    right: str
    above: str
    """Says that there are rows above."""
    below: str
    more: str
    """Ends a line that is longer."""


UNICODE = Glyphs(False, "─", ">", "*", "─", "│", ("┌", "┐", "└", "┘"), "◀", "▶", "↑", "↓", "…")
ASCII = Glyphs(True, "-", ">", "*", "-", "|", ("+", "+", "+", "+"), "<", ">", "^", "v", "~")


def glyphs(*, ascii_only: bool) -> Glyphs:
    """Return the characters for a terminal."""
    return ASCII if ascii_only else UNICODE

"""Short texts for cells: ages, rates, sizes; and their width on a terminal."""

from __future__ import annotations

import math
import unicodedata
from functools import lru_cache

from dorad.terminal import visible

ELLIPSIS = "…"
MAX_DAYS = 99_999
"""Longest age that is shown; what a robot says of its times may be anything."""


def clean(text: str) -> str:
    """Return a text on one line that cannot control the terminal, without tabs."""
    return visible(text).replace("\t", " ")


@lru_cache(4096)
def width(text: str) -> int:
    """Return how many columns a text takes on a terminal."""
    if text.isascii():
        return len(text)
    return sum(map(_char_width, text))


def _char_width(char: str) -> int:
    if unicodedata.combining(char) or unicodedata.category(char) in ("Mn", "Me", "Cf"):
        return 0
    return 2 if unicodedata.east_asian_width(char) in "WF" else 1


def fit(text: str, columns: int, *, right: bool = False, ascii_only: bool = False) -> str:
    """Return a text that takes exactly so many columns; one that is cut ends in an ellipsis."""
    if columns <= 0:
        return ""
    wide = width(text)
    if wide > columns:
        text = _cut(text, columns, "~" if ascii_only else ELLIPSIS)
        wide = width(text)
    space = " " * (columns - wide)
    return space + text if right else text + space


def _cut(text: str, columns: int, mark: str) -> str:
    return crop(text, columns - 1) + mark


def crop(text: str, columns: int) -> str:
    """Return the beginning of a text that takes at most so many columns."""
    if text.isascii():
        return text[: max(columns, 0)]
    kept = []
    for char in text:
        columns -= _char_width(char)
        if columns < 0:
            break
        kept.append(char)
    return "".join(kept)


def age(seconds: float | None) -> str:
    """Return a time span in at most six characters: `7s`, `3m10s`, `6h02m`, `6d02h`, `400d`.

    From a minute on, seconds are given in steps of ten: what changes each second costs bytes.
    """
    if seconds is None or not math.isfinite(seconds):
        return "-"
    whole = max(0, int(seconds))
    if whole < 60:
        return f"{whole}s"
    if whole < 600:
        return f"{whole // 60}m{whole % 60 // 10 * 10:02}s"
    if whole < 3600:
        return f"{whole // 60}m"
    if whole < 86400:
        return f"{whole // 3600}h{whole % 3600 // 60:02}m"
    if whole < 100 * 86400:
        return f"{whole // 86400}d{whole % 86400 // 3600:02}h"
    return f"{min(whole // 86400, MAX_DAYS)}d"


def count(value: float | None) -> str:
    """Return a count in at most six characters: `0`, `9120`, `1.2M`; `>999P` for more."""
    if value is None or not math.isfinite(value):
        return "-"
    if abs(value) < 10_000:
        return f"{value:.0f}"
    for unit in ("k", "M", "G", "T", "P"):
        value /= 1000
        if abs(value) < 1000:
            return f"{value:.1f}{unit}" if abs(value) < 100 else f"{value:.0f}{unit}"
    return ">999P" if value > 0 else "<-999P"


def counted(number: int, what: str) -> str:
    """Return a number of things: `1 edge`, `2 edges`."""
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def rate(value: float | None) -> str:
    """Return a rate a second with one decimal, in at most six characters."""
    if value is None or not math.isfinite(value):
        return "-"
    return f"{value:.1f}" if abs(value) < 1000 else count(value)


def percent(value: float | None) -> str:
    """Return a percentage without a sign."""
    return count(value)


def milliseconds(seconds: float | None) -> str:
    """Return a short time with its unit: `0.3ms`, `12.1ms`, `1.20s`."""
    if seconds is None or not math.isfinite(seconds):
        return "-"
    if seconds >= 100:
        return age(seconds)
    if seconds >= 1:
        return f"{seconds:.2f}s"
    return f"{max(seconds, -1.0) * 1e3:.1f}ms"

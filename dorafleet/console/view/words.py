"""Short texts for cells: ages, rates, sizes; and their width on a terminal."""

import math
import unicodedata
from collections.abc import Collection, Iterable
from functools import lru_cache

from dorad.natural import natural
from dorad.terminal import local_time, visible

ELLIPSIS = "…"
MAX_TEXT = 4000
"""Characters of a text that are shown; more than most screens have."""
MAX_DAYS = 99_999
"""Longest age that is shown; what a robot says of its times may be anything."""


_PRESENTATION = dict.fromkeys((0xFE0E, 0xFE0F))
"""Selectors of text or emoji, which only some terminals make wider: they are left out."""


MAX_NAMED = 2
"""Robots without an answer that are named; of more only their number is shown."""


def no_answer(robots: Collection[str]) -> str:
    """Return which robots did not answer; empty if all did."""
    if not robots:
        return ""
    named = (
        ", ".join(sorted(robots, key=natural))
        if len(robots) <= MAX_NAMED
        else f"{len(robots)} robots"
    )
    return f"no answer: {named}"


def clean(text: str) -> str:
    r"""Return a text on one line in which every character is visible, without tabs.

    Characters that control the terminal or that it hides are escaped, such as `\x1b` or `\u200b`:
    they could make two names look the same, and terminals disagree about their width. What is
    longer than a screen is cut: a robot may send megabytes.
    """
    if len(text) > MAX_TEXT:
        text = text[:MAX_TEXT] + ELLIPSIS
    if text.isascii() and text.isprintable():
        return text
    return visible(text.translate(_PRESENTATION)).replace("\t", " ")


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
    """Return a text that takes exactly `columns`; one that is cut ends in an ellipsis."""
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
    """Return the beginning of a text that takes at most `columns`."""
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


def moment(seconds: float) -> str:
    """Return a local time of the last days, such as `11-27 14:02:11`."""
    return local_time(seconds, "%m-%d %H:%M:%S")


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


def longest(texts: Iterable[str]) -> int:
    """Return how many columns the longest of these texts takes."""
    return max((width(clean(text)) for text in texts), default=0)


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

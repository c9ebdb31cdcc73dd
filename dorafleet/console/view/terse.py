"""The same picture in fewer bytes: only lines that differ, and only what changes in a style."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

_TO = re.compile(r"\x1b\[(\d+);(\d+)H")
"""Moves the cursor to a line and a column."""
_STYLE = re.compile(r"(\x1b\[0m)?\x1b\[([0-9;]+)m")
_PARTS = re.compile(r"(?:[34]8;5;\d+|[34]8;2;\d+;\d+;\d+|\d+)")
_GROUND = ("4", "10")
"""How the parts begin that are a colour of the ground, among those of two or three digits."""
_ENDS = {"1": "22", "2": "22", "3": "23", "4": "24", "5": "25", "7": "27", "9": "29"}
"""What ends bold, dim, and so on; bold and dim end together."""


class ShownLines:
    """What was written last to each line of a terminal.

    Textual paints a new screen several times.
    """

    def __init__(self) -> None:
        self._last: dict[str, tuple[str, str]] = {}
        self._cursor = ("", "")

    def forget(self) -> None:
        """Take nothing for shown."""
        self._last.clear()

    def new(self, frame: str) -> str:
        """Return a frame without the parts that the terminal shows already."""
        begin, *rest = _TO.split(frame)
        found = [begin]
        for line, column, text in zip(*[iter(rest)] * 3, strict=True):
            part = (column, text.rstrip("\r\n"))
            if not part[1] and (found != [""] or self._cursor != (line, column)):
                self._cursor = (line, column)
            elif not part[1] or self._last.get(line) == part:
                continue
            else:
                self._last[line] = part
            found.append(f"\x1b[{line};{column}H{text}")
        return "".join(found)


def terse(frame: str) -> str:
    r"""Return what a terminal shows as it shows `frame`, with shorter styles.

    In `frame` each run of one style begins with all of its parts, and ends with `\x1b[0m`.
    """
    return _STYLE.sub(_shortener(), frame)


def _shortener() -> Callable[[re.Match[str]], str]:
    before: str | None = None

    def shorter(match: re.Match[str]) -> str:
        nonlocal before
        reset, style = match.groups()
        old, before = before, None if style == "0" else style
        if reset is None or old is None or style == "0":
            return match[0]
        return _change(old, style)

    return shorter


@lru_cache(4096)
def _change(old: str, new: str) -> str:
    """Return the sequence that leads from one style to another."""
    if old == new:
        return ""
    (was, colours_before), (now, colours) = _parts(old), _parts(new)
    ends = {_ENDS.get(part, "0") for part in was - now}
    whole = f"\x1b[0;{new}m"
    if "0" in ends or colours_before.keys() - colours.keys():
        return whole
    begins = {part for part in now if part not in was or _ENDS.get(part) in ends}
    changed = [colours[key] for key in colours if colours_before.get(key) != colours[key]]
    return min(whole, f"\x1b[{';'.join((*sorted(ends), *sorted(begins), *changed))}m", key=len)


def _parts(style: str) -> tuple[set[str], dict[str, str]]:
    """Return what a style has beside colours, and the colours of text and ground."""
    others, colours = set(), {}
    for part in _PARTS.findall(style):
        if len(part) == 1:
            others.add(part)
        else:
            colours["ground" if part.startswith(_GROUND) else "text"] = part
    return others, colours

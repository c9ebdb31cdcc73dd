"""The same picture in fewer bytes: only cells that differ, and only what changes in a style."""

import re
from collections.abc import Iterator
from functools import lru_cache
from typing import TypeAlias

Cell: TypeAlias = "tuple[str, str]"
"""A character of one column, and its style as the terminal is told it."""

_TO = re.compile(r"\x1b\[(\d+);(\d+)H")
"""Moves the cursor to a line and a column."""
_TOKEN = re.compile(r"\x1b\[([0-9;]+)m|([ -~\u2026\u2190-\u2193\u2500-\u25ff\u2800-\u28ff]+)")
"""A style, or characters that take one column on every terminal."""
_STYLE = re.compile(r"(\x1b\[0m)?\x1b\[([0-9;]+)m")
_PARTS = re.compile(r"(?:[34]8;5;\d+|[34]8;2;\d+;\d+;\d+|\d+)")
_GROUND = ("4", "10")
"""How the parts begin that are a colour of the ground, among those of two or three digits."""
_ENDS = {"1": "22", "2": "22", "3": "23", "4": "24", "5": "25", "7": "27", "9": "29"}
"""What ends bold, dim, and so on; bold and dim end together."""
MAX_GAP = 6
"""Columns that are cheaper to write again than to pass over."""


class ShownCells:
    """What a terminal shows, by what was written to it.

    In a frame each run of one style begins with all parts of the style, and ends with `ESC[0m`.
    """

    def __init__(self) -> None:
        self._cells: dict[int, list[Cell]] = {}
        """The cells of each line whose characters all take one column."""
        self._texts: dict[int, tuple[int, str]] = {}
        """The column and the text that were written last to each other line."""
        self._cursor = (0, 0)

    def forget(self) -> None:
        """Take nothing for shown."""
        self._cells.clear()
        self._texts.clear()

    def new(self, frame: str) -> str:
        """Return a frame that shows the same, without what the terminal shows already."""
        begin, *rest = _TO.split(frame)
        parts, style = [begin], ""
        for to_line, to_column, text in zip(*[iter(rest)] * 3, strict=True):
            line, column = int(to_line), int(to_column)
            text = text.rstrip("\r\n")
            if not text:
                if parts != [""] or self._cursor != (line, column):
                    parts.append(f"\x1b[{line};{column}H")
                self._cursor = (line, column)
            elif (cells := _cells(text)) is not None:
                for at, run in self._differing(line, column - 1, cells):
                    parts.append(f"\x1b[{line};{at + 1}H")
                    style = _write(parts, run, style)
            elif self._texts.get(line) != (column, text):
                self._cells.pop(line, None)
                self._texts[line] = column, text
                ends, style = ("\x1b[0m" if style else ""), ""
                parts.append(f"{ends}\x1b[{line};{column}H{_shorter(text)}")
        if style:
            parts.append("\x1b[0m")
        return "".join(parts)

    def _differing(
        self, line: int, start: int, cells: tuple[Cell, ...]
    ) -> Iterator[tuple[int, tuple[Cell, ...]]]:
        """Yield the runs of cells that differ, with their columns; take them for shown."""
        self._texts.pop(line, None)
        shown = self._cells.setdefault(line, [])
        end = start + len(cells)
        shown += [("", "")] * (end - len(shown))
        before, shown[start:end] = shown[start:end], cells
        at, size = 0, len(cells)
        while at < size:
            if before[at] == cells[at]:
                at += 1
                continue
            last = at
            for place in range(at + 1, size):
                if before[place] != cells[place]:
                    last = place
                elif place - last > MAX_GAP:
                    break
            yield start + at, cells[at : last + 1]
            at = last + 1


@lru_cache(1024)
def _cells(text: str) -> tuple[Cell, ...] | None:
    """Return the cells of a text; None if a character may take none or two columns."""
    cells: list[Cell] = []
    style, at = "", 0
    while at < len(text):
        match = _TOKEN.match(text, at)
        if match is None:
            return None
        at = match.end()
        if match[2] is not None:
            cells += [(char, style) for char in match[2]]
        else:
            style = "" if match[1] == "0" else match[1]
    return tuple(cells)


def _write(parts: list[str], cells: tuple[Cell, ...], style: str) -> str:
    """Add cells to what is written, after `style`; return the style of the last one."""
    for char, wanted in cells:
        if wanted != style:
            parts.append(_change(style, wanted))
            style = wanted
        parts.append(char)
    return style


def _shorter(text: str) -> str:
    """Return a text with shorter styles."""
    style = ""

    def shorter(match: re.Match[str]) -> str:
        nonlocal style
        before, style = style, "" if match[2] == "0" else match[2]
        return _change(before if match[1] else "", style) if style else match[0]

    return _STYLE.sub(shorter, text)


@lru_cache(4096)
def _change(old: str, new: str) -> str:
    """Return the sequence that leads from one style to another; empty is no style."""
    if old == new:
        return ""
    if not new:
        return "\x1b[0m"
    if not old:
        return f"\x1b[{new}m"
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

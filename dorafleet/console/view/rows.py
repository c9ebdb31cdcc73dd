"""Tables as lines of spans: which columns fit, how wide they are, and what is in them."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from operator import itemgetter
from types import MappingProxyType
from typing import NamedTuple, TypeAlias

from dorafleet.console.view.words import clean, crop, fit, width

Span: TypeAlias = "tuple[str, str]"
"""A text and the name of its style."""

GAP = 1
"""Columns between two cells."""
GROWTH = 2
"""Maximum growth of a column, in multiples of its usual width."""
MIN_TEXT = 8
"""Width down to which the longest text of a row is cut."""
PREFIX = 2
"""Columns before the first cell: the cursor and the mark."""


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a table."""

    key: str
    title: str
    wide: int
    """Usual width."""
    right: bool = False
    grow: int = 0
    """Its share of the columns that are left over; 0 keeps its width."""
    drop: int = 0
    """The column with the highest number is left out first; 0 is never left out."""
    most: int = 0
    """Width up to which it is as wide as its longest text needs; 0 for a name that may be cut."""
    spare: int = 0
    """It is shown only if so many columns are left over beside all others, for longer texts."""


class Cell(NamedTuple):
    """The text of a cell, and the name of its style."""

    text: str
    style: str = ""
    short: str = ""
    """Stands for a text that does not fit; by default its beginning does."""


class Row(NamedTuple):
    """A row of a table."""

    id: str
    """Names the row while it moves and changes."""
    cells: tuple[Cell, ...]
    """One for each column, in the order of all columns."""
    style: str = ""
    """For cells without one."""


class Fitted(NamedTuple):
    """A column that fits, with its place among all columns and its width."""

    at: int
    column: Column
    wide: int


def fitted(
    columns: Sequence[Column],
    space: int,
    left_out: Collection[str] = (),
    longest: Mapping[str, int] = MappingProxyType({}),
) -> list[Fitted]:
    """Return the table columns that fit into `columns` of the terminal, with their widths.

    `longest` has the width of the longest text of some columns, by their keys.
    """
    kept = [at for at, column in enumerate(columns) if column.key not in left_out]
    usual = [max(column.wide, min(longest.get(column.key, 0), column.most)) for column in columns]

    def needed() -> int:
        return PREFIX + sum(usual[at] + GAP for at in kept)

    while needed() > space and any(columns[at].drop for at in kept):
        kept.remove(max(kept, key=lambda at: (columns[at].drop, at)))
    for at in sorted(kept, key=lambda at: -columns[at].drop):
        if columns[at].spare and columns[at].spare > space - needed():
            kept.remove(at)
    for at in kept:
        # Not even without all those columns: names are cut as usual.
        usual[at] -= min(max(0, needed() - space), usual[at] - columns[at].wide)
    if needed() > space:
        # The terminal would cut the last columns, without a mark: rather the longest text.
        text = max(kept, key=lambda at: columns[at].grow)
        usual[text] = max(MIN_TEXT, usual[text] - (needed() - space))
    left = max(0, space - needed())
    shares = sum(columns[at].grow for at in kept)
    columns_shown: list[Fitted] = []
    for at in kept:
        extra = left * columns[at].grow // shares if shares else 0
        # Figures stay near the name that they belong to.
        extra = min(extra, GROWTH * columns[at].wide)
        columns_shown.append(Fitted(at, columns[at], usual[at] + extra))
    return columns_shown


def head(shown: Sequence[Fitted]) -> list[Span]:
    """Return the line of titles."""
    spans: list[Span] = [(" " * PREFIX, "head")]
    for each in shown:
        title = fit(each.column.title, each.wide, right=each.column.right)
        spans.append((title + " " * GAP, "head"))
    return spans


def column_at(shown: Sequence[Fitted], x: int) -> str | None:
    """Return the key of the column whose title is at `x`; None beside all of them."""
    left = PREFIX
    for each in shown:
        if left <= x < left + each.wide:
            return each.column.key
        left += each.wide + GAP
    return None


def line(
    row: Row,
    shown: Sequence[Fitted],
    *,
    cursor: bool = False,
    marked: bool = False,
    dim: bool = False,
    ascii_only: bool = False,
    more: str = " ",
) -> list[Span]:
    """Return the line of a row; `dim` is for what is out of date.

    `more` stands before it unless the cursor does, and says that other rows are above or below.
    """
    usual = "dim" if dim else row.style
    spans: list[Span] = [((">" if cursor else more) + ("*" if marked else " "), "mark")]
    for each in shown:
        cell = row.cells[each.at]
        text = clean(cell.text)
        if cell.short and width(text) > each.wide:
            text = cell.short
        text = fit(text, each.wide, right=each.column.right, ascii_only=ascii_only)
        spans.append((text, "dim" if dim else cell.style or usual))
        spans.append((" " * GAP, usual))
    return spans


def last_difference(before: Sequence[Span] | None, now: Sequence[Span]) -> int:
    """Return the columns up to the end of the last cell that differs; 0 if the form differs."""
    if before is None or len(before) != len(now):
        return 0
    end = x = 0
    for old, new in zip(before, now, strict=True):
        wide = width(new[0])
        if width(old[0]) != wide:
            return 0
        x += wide
        if old != new:
            end = x
    return end


def cut(spans: Sequence[Span], columns: int) -> list[Span]:
    """Return spans that take at most `columns`."""
    kept: list[Span] = []
    for text, style in spans:
        wide = width(text)
        if wide > columns:
            if columns > 0:
                kept.append((crop(text, columns), style))
            break
        kept.append((text, style))
        columns -= wide
    return kept


def merged(spans: Iterable[Span]) -> list[Span]:
    """Return spans with neighbours of one style made into one."""
    return [
        ("".join(text for text, _ in several), style)
        for style, several in groupby(spans, key=itemgetter(1))
    ]


def plain(spans: Sequence[Span]) -> str:
    """Return the text of a line."""
    return "".join(text for text, _ in spans)

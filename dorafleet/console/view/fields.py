"""The values of a message as rows of a tree, and a list of structs as a table."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from numbers import Real
from typing import Any, NamedTuple

from dorafleet.console.view.rows import Cell, Column, Row, Span
from dorafleet.console.view.words import clean, fit, width

MAX_FIELDS = 500
"""Rows of a tree."""
MAX_DEPTH = 12
MAX_INNER = 16
"""Elements of a list that have rows of their own; of a longer one the first are in its row."""
MAX_TEXT = 400
MAX_RECORDS = 200
"""Lines of a table."""
MAX_COLUMN = 24
"""Width of a column of a table."""

COLUMNS = (
    Column("plot", " ", 1),
    Column("field", "FIELD", 28, grow=2),
    Column("value", "VALUE", 40, grow=3),
)


class Field(NamedTuple):
    """One row of the tree."""

    path: str
    """Names it, such as `pose.x` or `[3]`."""
    depth: int
    name: str
    text: str
    number: float | None = None
    is_table: bool = False
    """Whether it is a list of structs."""


def fields(value: Any) -> list[Field]:
    """Return the rows of a value of a message: of a struct its members, of a list its elements."""
    rows: list[Field] = []
    more = 0
    for row in _inside(value, "", 0):
        if len(rows) < MAX_FIELDS:
            rows.append(row)
        else:
            more += 1
            if more == MAX_FIELDS:
                break
    if more:
        known = f"{more} more" if more < MAX_FIELDS else f"{more} and more"
        rows.append(Field("…", 0, "…", f"{known} fields are not shown"))
    return rows


def _inside(value: Any, path: str, depth: int) -> Iterator[Field]:
    if isinstance(value, dict):
        for name, inner in value.items():
            yield from _rows(inner, f"{path}.{name}" if path else str(name), str(name), depth)
    elif isinstance(value, list):
        for at, inner in enumerate(value):
            yield from _rows(inner, f"{path}[{at}]", f"[{at}]", depth)


def _rows(value: Any, path: str, name: str, depth: int) -> Iterator[Field]:
    if depth == MAX_DEPTH:
        yield Field(path, depth, name, "… deeper than is shown")
    elif isinstance(value, dict):
        yield Field(path, depth, name, "" if value else "{}")
        yield from _inside(value, path, depth + 1)
    elif isinstance(value, list):
        table = is_table(value)
        what = "structs" if table else "values"
        text = f"{len(value)} {what}" + ("" if table else f": {text_of(value)}" if value else "")
        yield Field(path, depth, name, text, is_table=table)
        if len(value) <= MAX_INNER and not table:
            yield from _inside(value, path, depth + 1)
    else:
        yield Field(path, depth, name, text_of(value), _number(value))


def _number(value: Any) -> float | None:
    if not isinstance(value, Real):
        return None
    try:
        return float(value)
    except OverflowError:
        return None


def is_table(value: Any) -> bool:
    """Return True for a list of several structs."""
    return isinstance(value, list) and len(value) > 1 and all(isinstance(x, dict) for x in value)


def at(value: Any, path: str) -> Any:
    """Return what `fields` names by a path; None if there is nothing like that now."""
    for row_path, inner in _lists(value, "", 0):
        if row_path == path:
            return inner
    return None


def _lists(value: Any, path: str, depth: int) -> Iterator[tuple[str, list[Any]]]:
    if isinstance(value, list) and is_table(value):
        yield path, value
    elif depth < MAX_DEPTH and isinstance(value, dict):
        for name, inner in value.items():
            yield from _lists(inner, f"{path}.{name}" if path else str(name), depth + 1)
    elif depth < MAX_DEPTH and isinstance(value, list) and len(value) <= MAX_INNER:
        for number, inner in enumerate(value):
            yield from _lists(inner, f"{path}[{number}]", depth + 1)


def text_of(value: Any) -> str:
    """Return a value on one line, cut."""
    if isinstance(value, float):
        # Of a time in seconds since 1970 the last digits are those that change.
        return f"{value:.13g}" if 1e6 <= abs(value) < 1e10 else f"{value:.6g}"
    if isinstance(value, dict):
        parts = (f"{name}: {text_of(each)}" for name, each in value.items())
        return "{" + _joined(parts)[: MAX_TEXT - 2] + "}"
    if isinstance(value, list):
        return _joined(map(text_of, value))
    return (repr(value) if isinstance(value, str | bytes) else str(value))[:MAX_TEXT]


def _joined(parts: Iterable[str]) -> str:
    """Join as many parts as fit."""
    text = ""
    for part in parts:
        if len(text) > MAX_TEXT:
            return f"{text[:MAX_TEXT]}…"
        text += f", {part}" if text else part
    return text


def row(field: Field, curve: int | None = None) -> Row:
    """Return the row of a field; `curve` is the number of its curve if it is plotted."""
    plotted = "" if curve is None else str(curve + 1)
    style = "" if curve is None else f"line{curve % 4 + 1}"
    return Row(
        field.path,
        (
            Cell(plotted, style),
            Cell("  " * field.depth + field.name, style or "name"),
            Cell(field.text, style or ("key" if field.is_table else "")),
        ),
    )


def table(records: Sequence[Mapping[str, Any]], *, ascii_only: bool = False) -> list[list[Span]]:
    """Return a list of structs as lines: a title line, then one for each struct."""
    shown = [_flat(record) for record in records[:MAX_RECORDS]]
    names = list(dict.fromkeys(name for record in shown for name in record))[:MAX_FIELDS]
    cells = [[str(at) for at in range(len(shown))]]
    cells += [
        [text_of(record[name]) if name in record else "" for record in shown] for name in names
    ]
    numeric = [True] + [
        all(_number(record.get(name, 0)) is not None for record in shown) for name in names
    ]
    titles = ["#", *names]
    wide = [
        min(MAX_COLUMN, max(map(width, map(clean, (title, *column)))))
        for title, column in zip(titles, cells, strict=True)
    ]

    def line_of(texts: Sequence[str]) -> str:
        parts = zip(texts, wide, numeric, strict=True)
        return "  ".join(
            fit(clean(text), columns, right=right, ascii_only=ascii_only)
            for text, columns, right in parts
        )

    lines: list[list[Span]] = [[(f" {line_of(titles)}", "head")]]
    lines += [[(f" {line_of(texts)}", "")] for texts in zip(*cells, strict=True)]
    if len(records) > MAX_RECORDS:
        lines.append([(f" {len(records) - MAX_RECORDS} more structs are not shown", "warn")])
    return lines


def _flat(record: Mapping[str, Any]) -> dict[str, Any]:
    """Return the members of a struct, those of structs in it by `outer.inner`."""
    flat: dict[str, Any] = {}
    for name, value in record.items():
        if isinstance(value, dict):
            flat.update({f"{name}.{inner}": each for inner, each in value.items()})
        else:
            flat[str(name)] = value
    return flat

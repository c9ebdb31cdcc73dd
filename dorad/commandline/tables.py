"""Output of commands: tables for people, JSON for programs, numbers with units."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Any

import click

from dorad.terminal import visible, visible_json

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from rich.console import RenderableType

format_option = click.option(
    "-f",
    "--format",
    "style",
    type=click.Choice(["table", "json"]),
    default="table",
    help="Format of the output.",
)

_GAP = "  "


def table_lines(
    columns: Sequence[str], rows: Iterable[Sequence[str]], *, colour: bool = False
) -> list[str]:
    """Return the lines of a table without frames; `colour` makes its head bold.

    Control characters in cells are escaped. Lines may be wider than the terminal.
    """
    table = [tuple(columns), *(tuple(map(visible, row)) for row in rows)]
    widths = [max(map(_width, column)) for column in zip(*table, strict=True)]
    head, *lines = (
        _GAP.join(
            cell + " " * (width - _width(cell)) for cell, width in zip(row, widths, strict=True)
        ).rstrip()
        for row in table
    )
    return [f"\x1b[1m{head}\x1b[0m" if colour else head, *lines]


def _width(text: str) -> int:
    """Return the width of a text on a terminal, in columns."""
    if text.isascii():
        return len(text)
    from rich.cells import cell_len

    return cell_len(text)


def print_table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Print a table to standard output; its head is bold on a terminal."""
    for line in table_lines(columns, rows, colour=colours()):
        click.echo(line)


def screen_lines(lines: Iterable[str], *, head: int = 0) -> RenderableType:
    """Return lines for a live display, cropped to the terminal; the first `head` are bold."""
    from rich.console import Group
    from rich.text import Text

    return Group(
        *(
            Text(line, style="bold" if place < head else "", no_wrap=True, overflow="crop")
            for place, line in enumerate(lines)
        )
    )


def colours() -> bool:
    """Return True if standard output is a terminal and colours are allowed."""
    return sys.stdout.isatty() and not os.environ.get("NO_COLOR")


def print_lines(objects: Iterable[object]) -> None:
    """Print JSON Lines: one object on each line."""
    import json

    for shown in objects:
        click.echo(visible_json(json.dumps(shown, ensure_ascii=False, separators=(",", ":"))))


def print_object(shown: object) -> None:
    """Print one JSON value, indented."""
    import json

    click.echo(visible_json(json.dumps(shown, ensure_ascii=False, indent=2)))


def plain(message: Any) -> Any:
    """Return a struct of the control API as dicts and lists."""
    import msgspec

    return msgspec.to_builtins(message)


def percent(cpu: float) -> str:
    """Return a share of one core as text, in percent."""
    return f"{cpu:.1f}%"


def megabytes(count: float) -> str:
    """Return bytes as text: in GB from 10^9 bytes on, else in MB."""
    if count >= 1e9:
        return f"{count / 1e9:.2f} GB"
    return f"{count / 1e6:.0f} MB"


def rate(count: float) -> str:
    """Return bytes a second as text, in the unit with one to three digits before the point."""
    for unit in ("B/s", "kB/s", "MB/s"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B/s" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} GB/s"


def milliseconds(seconds: float | None) -> str:
    """Return seconds as ms with three decimals, `-` for None."""
    return "-" if seconds is None else f"{seconds * 1e3:.3f}"


def in_ms(seconds: float | None) -> float | None:
    """Return seconds as a number of ms, for JSON."""
    return None if seconds is None else seconds * 1e3


def age(seconds: float) -> str:
    """Return a time span in its two largest units, such as `3d 4h` or `12m 5s`."""
    whole = max(0, int(seconds))
    parts: list[str] = []
    for unit, size in (("d", 86400), ("h", 3600), ("m", 60), ("s", 1)):
        count, whole = divmod(whole, size)
        if count or (unit == "s" and not parts):
            parts.append(f"{count}{unit}")
    return " ".join(parts[:2])

"""The help of the whole `dora` command, laid out as click lays out that of its commands.

It has to be there at once, so this module imports neither click nor anything of size.
"""

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

MAX_WIDTH, MIN_WIDTH = 100, 50


class CommandEntry:
    """One row of a table of commands: where the command is, and its line in the help."""

    __slots__ = ("help", "hidden", "target")

    def __init__(self, target: str, help: str, hidden: bool = False) -> None:  # noqa: A002
        """`hidden` leaves it out of help and completion: another name of a listed command."""
        self.target = target
        self.help = help
        self.hidden = hidden


OPTIONS = {
    "-V, --version": "Show the version and exit.",
    "-h, --help": "Show this message and exit.",
}
"""Options of the whole command."""


def help_page(
    program: str, about: str, commands: "Mapping[str, CommandEntry]", epilog: str, width: int
) -> str:
    """Return the help of a command whose only options are those for help and version.

    Paragraphs of the epilog that begin with a line `\\b` keep their lines.
    """
    width = max(min(width, MAX_WIDTH) - 2, MIN_WIDTH)
    listed = {name: entry.help for name, entry in commands.items() if not entry.hidden}
    lines = [f"Usage: {program} [OPTIONS] COMMAND [ARGS]...", "", *_wrapped(about, width, "  ")]
    lines += ["", "Options:", *_columns(OPTIONS, width)]
    lines += ["", "Commands:", *_columns(listed, width)]
    for paragraph in epilog.strip().split("\n\n"):
        lines.append("")
        if paragraph.startswith("\b\n"):
            lines += [f"  {line}" for line in paragraph.splitlines()[1:]]
        else:
            lines += _wrapped(paragraph, width, "  ")
    return "\n".join(lines)


def terminal_width() -> int:
    """Return the columns of the terminal: $COLUMNS if it says so, 80 where there is none."""
    try:
        columns = int(os.environ.get("COLUMNS", "0"))
    except ValueError:
        columns = 0
    if columns <= 0:
        try:
            columns = os.get_terminal_size(1).columns
        except OSError:
            columns = 0
    return columns or 80


def _columns(rows: "Mapping[str, str]", width: int) -> "Iterable[str]":
    first = max(map(len, rows)) + 4
    for name, text in rows.items():
        head, *rest = _wrapped(text, width, " " * first)
        yield f"  {name}".ljust(first) + head[first:]
        yield from rest


def _wrapped(text: str, width: int, indent: str) -> list[str]:
    """Return the lines of a text of which none is wider than `width`, if its words allow."""
    lines: list[str] = []
    line = ""
    for word in text.split():
        if line and len(indent) + len(line) + 1 + len(word) > width:
            lines.append(indent + line)
            line = word
        else:
            line = f"{line} {word}" if line else word
    return [*lines, indent + line]

"""The overview of `dora --help`, laid out like click's help of single commands.

It must appear at once, so this module imports neither click nor any other large module.
"""

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

MAX_WIDTH, MIN_WIDTH = 100, 50


class CommandEntry:
    """A row of a table of commands: where to import the command, and its line in the help."""

    __slots__ = ("hidden", "server", "summary", "target")

    def __init__(
        self, target: str, summary: str, *, server: bool = False, hidden: bool = False
    ) -> None:
        """`server` adds the options that choose the daemon that the command talks to.

        `hidden` excludes an alias of a listed command from help and completion.
        """
        self.target = target
        self.summary = summary
        self.server = server
        self.hidden = hidden


OPTIONS = {
    "-V, --version": "Show the version and exit.",
    "-h, --help": "Show this message and exit.",
}
"""Options of the program itself."""


def help_page(
    program: str, about: str, commands: "Mapping[str, CommandEntry]", epilog: str, width: int
) -> str:
    """Return the help of a program whose only options are those for help and version.

    Paragraphs of the epilog that start with a line `\\b` keep their lines.
    """
    width = max(min(width, MAX_WIDTH) - 2, MIN_WIDTH)
    listed = {name: entry.summary for name, entry in commands.items() if not entry.hidden}
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
    """Return the width of the terminal: $COLUMNS if set, 80 without a terminal."""
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
    """Return a text wrapped to lines of at most `width` columns, unless a word is longer."""
    lines: list[str] = []
    line = ""
    for word in text.split():
        if line and len(indent) + len(line) + 1 + len(word) > width:
            lines.append(indent + line)
            line = word
        else:
            line = f"{line} {word}" if line else word
    return [*lines, indent + line]

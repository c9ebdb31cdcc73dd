"""Screen Help: keys, screens, actions and the grammar of filters."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING

from dorafleet.console.model.commands import ACTIONS
from dorafleet.console.model.places import PLACES
from dorafleet.console.screens.base import ConsoleScreen
from dorafleet.console.view.bars import Crumbs
from dorafleet.console.view.glyphs import STATES
from dorafleet.console.widgets.lines import Canvas

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from textual.widget import Widget

    from dorafleet.console.view.glyphs import Glyphs
    from dorafleet.console.view.rows import Span

KEYS = (
    ("arrows j k  PgUp PgDn  Home End G", "move; ctrl+b and ctrl+f are pages, too"),
    ("left right", "scroll a drawing or a log to the side"),
    ("enter", "open what is under the cursor"),
    ("esc", "remove marks, then the filter, then go back"),
    ("tab shift+tab", "go to the next table, to the one before"),
    ("/", "filter this screen"),
    (": or ctrl+p", "go to another screen"),
    ("l  g  t  e", "logs, graph, top, topics of what is under the cursor"),
    ("P", "parameters of the node under the cursor, or of the marked nodes"),
    ("v", "on Topic: another view"),
    ("space", "mark a row"),
    ("a", "actions: the only key that can change anything, after a dialog"),
    ("y", "show the command that shows the same, and copy it if the terminal allows that"),
    ("|", "give what is shown to a program, such as less"),
    ("o", "next order"),
    ("n c m r d L", "on Top and Robot: by name, cpu, memory, rate, drops, latency"),
    ("p", "pause, resume"),
    ("-", "open the screen again that was shown before this one"),
    ("?", "this page"),
    ("ctrl+l", "paint everything again, after another program has written to the terminal"),
    ("ctrl+z", "stop the console; the shell's fg resumes it"),
    ("q or ctrl+c", "quit; everything keeps running"),
    ("mouse", "a click chooses a row, another opens it; shift selects text"),
)
FILTERS = (
    ("word  !word", "rows with, without this text"),
    ("key=v  key!=v", "a column with, without this value"),
    ("key>n  key<n", "numbers with units: memory>90M latency>4ms; ages: since<10m"),
    ("key~regex", "a regular expression"),
    ("label.zone=hall", "a label of a robot, on Fleet; zone=hall is enough"),
)


class HelpScreen(ConsoleScreen):
    """Keys and words."""

    NAME = "help"
    AUTO_FOCUS = "#content"

    @classmethod
    def about(cls, words: Sequence[str]) -> ConsoleScreen | str:
        """Return the screen."""
        del words
        return cls()

    def again(self) -> ConsoleScreen:
        """Return a new screen that shows the same."""
        return HelpScreen()

    def body(self) -> Iterable[Widget]:
        """Return the page."""
        yield Canvas(id="content", focusable=True)

    def crumbs(self) -> Crumbs:
        """Name the page."""
        page = self.query_one("#content", Canvas)
        below = page.virtual_size.height - page.size.height - page.scroll_offset.y
        return Crumbs("Help", amount=f"{below} more lines, arrows scroll" if below > 0 else "")

    def paint(self, now: float) -> None:
        """Show the page."""
        del now
        self.query_one("#content", Canvas).show(page(self.size.width, self.glyphs()))

    def argv(self) -> Sequence[str]:
        """Return the command that explains the console."""
        return ("dorafleet", "console", "--help")


LEFT = 37
"""Columns for what is explained."""


def page(columns: int, signs: Glyphs) -> list[list[Span]]:
    """Return the lines of the page, with the characters that the terminal shows."""
    lines: list[list[Span]] = []

    def part(title: str, rows: Iterable[tuple[str, str]]) -> None:
        lines.append([(f" {title}", "title")])
        for left, right in rows:
            first, *more = textwrap.wrap(right, max(columns - LEFT - 1, 20)) or [""]
            lines.append([(f"   {left}".ljust(LEFT), "key"), (first, "")])
            lines.extend([(" " * LEFT, ""), (each, "")] for each in more)
        lines.append([])

    part("Keys", KEYS)
    part("Screens, after :", ((f"{p.name} {p.words}", p.title) for p in PLACES))
    part("Filters, after /", FILTERS)
    part("Actions, after a", ((f"a {each.key}", f"{each.title} ({each.role})") for each in ACTIONS))
    marks = (
        (f"{signs.above} {signs.below} at the left", "rows above, rows below what is shown"),
        (f"{signs.more} at the right", "the line is longer"),
        (f"{signs.cursor}  {signs.mark} at the left", "the cursor; a marked row"),
    )
    part("Marks", marks)
    lines.append([(" States", "title")])
    words = {
        "fail": "something has failed",
        "warn": "something is wrong, but it works",
        "unreach": "no contact: not known",
        "stale": "our own link to the server: not known",
        "update": "its software is being changed on purpose",
        "busy": "must not be disturbed",
        "ok": "well",
    }
    for state, (letter, word) in STATES.items():
        lines.append([(f"   {letter} {word:<32}", state), (words[state], "")])
    return lines

"""Screen Help: keys, screens, actions and the grammar of filters."""

import textwrap
from collections.abc import Iterable, Sequence

from textual.widget import Widget

from dorad.control.filters import Filter
from dorafleet.console.model.commands import ACTIONS
from dorafleet.console.model.places import PLACES
from dorafleet.console.screens.base import ConsoleScreen
from dorafleet.console.view.bars import Crumbs
from dorafleet.console.view.glyphs import STATES, Glyphs
from dorafleet.console.view.rows import Span
from dorafleet.console.widgets.lines import Canvas

KEYS = (
    (
        "arrows j k  PgUp PgDn  Home End G",
        "move; ctrl+b and ctrl+f are pages, ctrl+u and ctrl+d half pages",
    ),
    ("left right", "scroll a log to the side; on Graph: go along edges to other nodes"),
    ("enter", "open what is under the cursor; on Logs show a line in full, with its fields"),
    ("esc", "remove marks, then the filter, then go back"),
    ("tab shift+tab", "go to the next table, to the one before"),
    ("/", "filter this screen, and this page, too; on Logs: find a text"),
    ("n N", "on Logs: the next line with the text, the one before, also in older lines"),
    ("&", "on Logs: filter"),
    (
        "c",
        "on Logs: copy the marked lines, or the one under the cursor, if the terminal allows that",
    ),
    ("s", "on Logs: show several nodes side by side"),
    (":at 10:42", "on Logs: go to a time; also 11-30 10:42:05, and 10m for ten minutes ago"),
    (": or ctrl+p", "go to another screen; tab completes, up brings back what was typed; q quits"),
    (":theme light", "another theme: dark, light, safe, ansi or mono"),
    ("l  g  t  e", "logs, graph, top, topics of what is under the cursor"),
    ("P", "parameters of the node under the cursor, or of the marked nodes"),
    ("T", "the slowest messages through what is under the cursor, and where their time went"),
    ("v", "on Topic: another view"),
    ("space", "mark a row"),
    ("a", "actions: the only key that can change anything, after a dialog"),
    ("y", "show the command that shows the same, and copy it if the terminal allows that"),
    ("|", "give what is shown to a program, such as less"),
    ("o", "next order"),
    (
        "w n c m r d L",
        "on Top and Robot: the worst first, by name, cpu, memory, rate, drops, latency",
    ),
    ("p", "pause, resume"),
    ("-", "open the screen again that was shown before this one"),
    ("?", "this page"),
    ("ctrl+l", "paint everything again, after another program has written to the terminal"),
    ("ctrl+z", "stop the console; the shell's fg resumes it"),
    ("q or ctrl+c", "quit; everything keeps running"),
    (
        "mouse",
        "a click chooses a row, another opens it; also on headings and keys; shift selects text",
    ),
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
    FILTER_KEYS = ("key", "does")

    @classmethod
    def about(cls, words: Sequence[str]) -> ConsoleScreen | str:
        """Return the screen."""
        del words
        return cls()

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
        lines = page(self.size.width, self.glyphs(), self.filter)
        if not lines:
            lines = [[(f" {self.empty_text('line', known=True)}", "dim")]]
        self.query_one("#content", Canvas).show(lines)

    def on_filter(self) -> None:
        """Show what matches from its first line on."""
        self.query_one("#content", Canvas).move_to_end(first=True)

    def argv(self) -> Sequence[str]:
        """Return the command that explains the console."""
        return ("dorafleet", "console", "--help")


LEFT = 37
"""Columns for what is explained."""


def page(columns: int, signs: Glyphs, wanted: Filter | None = None) -> list[list[Span]]:
    """Return the lines of the page, with the characters that the terminal shows.

    With a filter only what matches is there, under the titles of its parts.
    """
    lines: list[list[Span]] = []

    def matching(rows: Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
        return [
            row for row in rows if not wanted or wanted.matches({"key": row[0], "does": row[1]})
        ]

    def part(title: str, rows: Iterable[tuple[str, str]]) -> None:
        shown = matching(rows)
        if not shown:
            return
        lines.append([(f" {title}", "title")])
        for left, right in shown:
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
    words = {
        "fail": "something has failed",
        "warn": "something is wrong, but it works",
        "unreach": "no contact: not known",
        "stale": "our own link to the server: not known",
        "update": "its software is being changed on purpose",
        "busy": "must not be disturbed",
        "ok": "well",
    }
    states = {f"{letter} {word}": state for state, (letter, word) in STATES.items()}
    if shown := matching((title, words[state]) for title, state in states.items()):
        lines.append([(" States", "title")])
        lines += [[(f"   {left:<34}", states[left]), (right, "")] for left, right in shown]
    return lines

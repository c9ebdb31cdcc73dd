"""Which keys work now: for the last line of a screen, and for Textual."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from textual.binding import Binding
from textual.events import Key

from dorafleet.console.widgets.grid import Grid
from dorafleet.console.widgets.lines import Canvas, LogView

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from textual.binding import BindingType

    from dorafleet.console.model.targets import Target
    from dorafleet.console.screens.base import ConsoleScreen

SCREEN_KEYS = (
    ("escape", "back", "back"),
    ("enter", "enter", "open"),
    ("up,k", "move(-1)", ""),
    ("down,j", "move(1)", ""),
    ("left", "across(-8)", ""),
    ("right", "across(8)", ""),
    ("pageup,ctrl+b", "page(-1)", ""),
    ("pagedown,ctrl+f", "page(1)", ""),
    ("home", "ends(True)", ""),
    ("end,G", "ends(False)", ""),
    ("space", "mark", "mark"),
    ("o", "order", "order"),
    ("p", "pause", "pause"),
    ("l", "go('logs')", "logs"),
    ("g", "go('graph')", "graph"),
    ("t", "go('top')", "top"),
    ("e", "go('topics')", "topics"),
    ("P", "go('params')", "params"),
    ("a", "actions", "actions"),
    ("y", "copy", "copy command"),
    ("colon,ctrl+p", "palette", "go"),
    ("slash", "filter", "filter"),
    ("vertical_line", "pipe", "pipe"),
)
"""The keys of all screens: the action of each, and what it does."""

ROWS_S = 2.0
"""Seconds after the opening of a screen for which keys wait until it has rows."""
ON_ROWS = ("enter", "move", "page", "ends", "mark", "go", "actions")
"""Actions that are about the row under the cursor, or move it."""
ROW_KEYS = frozenset(
    key
    for keys, action, _ in SCREEN_KEYS
    if action.partition("(")[0] in ON_ROWS
    for key in keys.split(",")
)

TYPING: Mapping[str, str] = {"filter": "keep the filter", "go": "go", "pipe": "run"}
"""What enter does to what is typed."""


class ScreenKey(NamedTuple):
    """A key as the last line shows it."""

    key: str
    label: str
    action: str
    place: str = ""
    """The screen that it opens."""


KEYS = (
    ScreenKey("enter", "open", "enter"),
    ScreenKey("esc", "back", "back"),
    ScreenKey("/", "filter", "filter"),
    ScreenKey("a", "actions", "actions"),
    ScreenKey("left right", "scroll", "across"),
    ScreenKey("l", "logs", "go", "logs"),
    ScreenKey("g", "graph", "go", "graph"),
    ScreenKey("t", "top", "go", "top"),
    ScreenKey("e", "topics", "go", "topics"),
    ScreenKey("tab", "next table", "focus_next"),
    ScreenKey("P", "params", "go", "params"),
    ScreenKey("space", "mark", "mark"),
    ScreenKey("o", "order", "order"),
    ScreenKey("p", "pause", "pause"),
    ScreenKey("y", "copy", "copy"),
    ScreenKey("|", "pipe", "pipe"),
    ScreenKey(":", "go", "palette"),
    ScreenKey("q", "quit", "quit"),
    ScreenKey("?", "all keys", "help"),
)


def in_order(*keys: tuple[str, str, str]) -> list[BindingType]:
    """Return keys that do their work in the order in which they are typed.

    Textual gives other keys to the widget that has the focus, and gets them back after those that
    were typed next.
    """
    return [Binding(key, action, label, priority=True) for key, action, label in keys]


def apart(key: Key) -> Sequence[Key]:
    """Return the two keys that a slow line has delivered as one: `esc` and what was typed next.

    No key of the console is typed with alt.
    """
    if key.key.startswith("alt+") and key.character:
        return Key("escape", "\x1b"), Key(key.character, key.character)
    return (key,)


def lacks_rows(screen: ConsoleScreen) -> bool:
    """Return True if the table with the cursor is empty because nothing has come yet."""
    grid = screen.scroller
    if not isinstance(grid, Grid) or grid.ids:
        return False
    screen.tick()  # what has come since the last look
    if grid.ids:
        return False
    if screen.feeds:
        return not (screen.updates or screen.feeds.error)
    return screen.ROWS_OF not in screen.server.answered | screen.server.missing


def working_keys(screen: ConsoleScreen) -> list[tuple[str, str]]:
    """Return the keys that do something now, with what they do."""
    if screen.typing:
        return [("enter", TYPING[screen.prompt.kind]), ("ctrl+u", "clear"), ("esc", "cancel")]
    return [(each.key, each.label) for each in KEYS if works(screen, each.action, each.place)]


def works(screen: ConsoleScreen, action: str, place: str = "") -> bool:
    """Return True if an action of a screen does something now."""
    match action:
        case "enter":
            return screen.can_open()
        case "back":
            marked = any(grid.marks for grid in screen.query(Grid))
            return marked or bool(screen.filter) or len(screen.console.screen_stack) > 2
        case "filter":
            return bool(screen.FILTER_KEYS)
        case "actions":
            return bool(screen.console.acting.possible(screen.targets()))
        case "go":
            return _leads_to(screen, place, screen.target())
        case "focus_next":
            return any(grid.ids and not grid.has_focus for grid in screen.query(Grid))
        case "mark":
            return screen.can_mark() and any(screen.target())
        case "across":
            return _is_wide(screen)
        case "order":
            return len(screen.ORDERS) > 1
        case "pause":
            return bool(screen.feeds)
        case "help":
            return screen.NAME != "help"
        case _:
            return True


def _leads_to(screen: ConsoleScreen, place: str, target: Target) -> bool:
    """Return True if a screen about the target can be opened."""
    if place == screen.NAME:
        return False
    if place == "top":
        return True
    if place == "params":
        return bool(target.dataflow and target.node)
    named = bool(target.dataflow or target.choices)
    # On its own machine a daemon finds what has ended; a coordinator must be told which one.
    return named or (place == "logs" and bool(target.robot) and screen.server.is_daemon)


def _is_wide(screen: ConsoleScreen) -> bool:
    """Return True if a drawing or a line of a log is wider than the screen."""
    drawings = screen.query("#content").results(Canvas)
    return any(each.virtual_size.width > each.size.width for each in drawings) or any(
        view.is_wide for view in screen.query(LogView) if view.display
    )

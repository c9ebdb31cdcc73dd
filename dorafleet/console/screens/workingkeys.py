"""Which keys work now: for the last line of a screen, and for Textual."""

from collections.abc import Mapping
from typing import NamedTuple

from textual.binding import Binding, BindingType
from textual.events import Key

from dorafleet.console.model.targets import Target
from dorafleet.console.screens.content import ScreenContent
from dorafleet.console.widgets.grid import Grid
from dorafleet.console.widgets.lines import Canvas, LogView

SCREEN_KEYS = (
    ("escape", "back", "back"),
    ("enter", "enter", "open"),
    ("up,k", "move(-1)", ""),
    ("down,j", "move(1)", ""),
    ("left", "across(-8)", ""),
    ("right", "across(8)", ""),
    ("pageup,ctrl+b", "page(-1)", ""),
    ("pagedown,ctrl+f", "page(1)", ""),
    ("ctrl+u", "page(-0.5)", ""),
    ("ctrl+d", "page(0.5)", ""),
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
    ("T", "go('trace')", "traces"),
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

TYPING: Mapping[str, str] = {
    "filter": "keep the filter",
    "find": "keep the place",
    "go": "go",
    "pipe": "run",
}
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
    ScreenKey("T", "traces", "go", "trace"),
    ScreenKey("space", "mark", "mark"),
    ScreenKey("o", "order", "order"),
    ScreenKey("p", "pause", "pause"),
    ScreenKey("y", "copy", "copy"),
    ScreenKey("|", "pipe", "pipe"),
    ScreenKey(":", "go", "palette"),
    ScreenKey("q", "quit", "quit"),
    ScreenKey("?", "all keys", "help"),
)


NAMES: Mapping[str, str] = {
    "esc": "escape",
    "/": "slash",
    "|": "vertical_line",
    ":": "colon",
    "?": "question_mark",
    "&": "ampersand",
}
"""What Textual calls keys that the last line shows otherwise."""


def key_shown_as(text: str) -> Key:
    """Return the key that the last line shows as this; of several, the last one."""
    name = text.split()[-1]
    return Key(NAMES.get(name, name), name if len(name) == 1 else None)


def in_order(*keys: tuple[str, str, str]) -> list[BindingType]:
    """Return keys that do their work in the order in which they are typed.

    Textual gives other keys to the widget that has the focus, and gets them back after those that
    were typed next.
    """
    return [Binding(key, action, label, priority=True) for key, action, label in keys]


def lacks_rows(screen: ScreenContent) -> bool:
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


def working_keys(screen: ScreenContent) -> list[tuple[str, str]]:
    """Return the keys that do something now, with what they do."""
    if screen.typing:
        return [("enter", TYPING[screen.prompt.kind]), ("ctrl+u", "clear"), ("esc", "cancel")]
    working = [each for each in KEYS if works(screen, each.action, each.place)]
    edge = screen.edge() is not None
    return [
        (each.key, "curves" if edge and each.place == "top" else each.label) for each in working
    ]


def works(screen: ScreenContent, action: str, place: str = "") -> bool:
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
            return bool(screen.console.possible(screen.targets()))
        case "go":
            return _leads_to(screen, place, screen.target())
        case "focus_next":
            return any(grid.ids and not grid.has_focus for grid in screen.query(Grid))
        case "mark":
            return screen.MARKS and (any(screen.target()) or screen.can_open())
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


def _leads_to(screen: ScreenContent, place: str, target: Target) -> bool:
    """Return True if a screen about the target can be opened."""
    if place == "top" and screen.edge() is not None:
        return True
    if place == screen.NAME:
        return False
    if place == "top":
        return True
    if place == "params":
        return bool(target.dataflow and target.node)
    named = bool(target.dataflow or target.choices)
    # On its own machine a daemon finds what has ended; a coordinator must be told which one.
    return named or (place == "logs" and bool(target.robot) and screen.server.is_daemon)


def _is_wide(screen: ScreenContent) -> bool:
    """Return True if a drawing or a line of a log is wider than the screen."""
    drawings = screen.query("#content").results(Canvas)
    return any(each.virtual_size.width > each.size.width for each in drawings) or any(
        view.is_wide for view in screen.query(LogView) if view.display
    )

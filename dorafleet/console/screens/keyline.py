"""Which keys work now, for the last line of a screen."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dorafleet.console.widgets.grid import Grid

if TYPE_CHECKING:
    from collections.abc import Mapping

    from dorafleet.console.screens.base import ConsoleScreen

TYPING: Mapping[str, str] = {"filter": "keep the filter", "go": "go", "pipe": "run"}
"""What enter does to what is typed."""


def working_keys(screen: ConsoleScreen) -> list[tuple[str, str]]:
    """Return the keys that do something now, with what they do."""
    if screen.typing:
        return [("enter", TYPING[screen.prompt.kind]), ("ctrl+u", "clear"), ("esc", "cancel")]
    target = screen.target()
    found = [
        ("enter", "open", screen.can_open()),
        ("esc", "back", screen.can_go_back()),
        ("/", "filter", bool(screen.FILTER_KEYS)),
        ("a", "actions", bool(screen.console.actions(screen.targets()))),
        ("l", "logs", screen.can_go("logs", target)),
        ("g", "graph", screen.can_go("graph", target)),
        ("t", "top", screen.can_go("top", target)),
        ("e", "topics", screen.can_go("topics", target)),
        ("tab", "next table", _has_another_table(screen)),
        ("space", "mark", screen.can_mark() and screen.can_open()),
        ("left right", "scroll", screen.is_wide()),
        ("o", "order", len(screen.ORDERS) > 1),
        ("p", "pause", bool(screen.feeds)),
        ("y", "copy", True),
        ("|", "pipe", True),
        (":", "go", True),
        ("q", "quit", True),
        ("?", "all keys", screen.NAME != "help"),
    ]
    return [(key, label) for key, label, possible in found if possible]


def _has_another_table(screen: ConsoleScreen) -> bool:
    """Return True if there is a table with rows that has not the focus."""
    return any(grid.ids and not grid.has_focus for grid in screen.query(Grid))

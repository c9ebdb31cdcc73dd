"""One screen a file: screen `top` is `TopScreen` in `top.py`, imported when it is opened."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dorafleet.console.screens.base import ConsoleScreen


def screen_class(name: str) -> type[ConsoleScreen]:
    """Return the class of a screen."""
    module = importlib.import_module(f"dorafleet.console.screens.{name}")
    screen: type[ConsoleScreen] = getattr(module, f"{name.capitalize()}Screen")
    return screen


def open_screen(name: str, words: Sequence[str]) -> ConsoleScreen | str:
    """Return the screen with this name about these words, or why there is none."""
    return screen_class(name).about(words)

"""The screens that were shown before, and the ways back to them."""

from __future__ import annotations

import logging
from collections import deque
from typing import TYPE_CHECKING

from dorafleet.console.frames import forget_closed_widgets

if TYPE_CHECKING:
    from dorafleet.console.app import ConsoleApp
    from dorafleet.console.screens.base import ConsoleScreen

MAX_OPEN = 30
"""Screens that lie on each other; the next one replaces the last, until `esc` goes back to that."""
MAX_REPLACED = 100
"""Screens that were replaced and can be gone back to."""

_log = logging.getLogger(__name__)


class Trail:
    """Opens screens, and goes back to those before them."""

    def __init__(self, app: ConsoleApp) -> None:
        self._app = app
        self._last: ConsoleScreen | None = None
        """The screen that was shown before the present one."""
        self._replaced: deque[ConsoleScreen] = deque(maxlen=MAX_REPLACED)
        """Those between the present one and what it lies on, as new ones that show the same."""

    def open(self, screen: ConsoleScreen) -> None:
        """Open a screen on top of this one."""
        _log.debug("open %s", screen)
        shown = self._app.console_screen
        if shown is not None and len(self._app.screen_stack) > MAX_OPEN:
            self._replaced.append(shown.anew())
            self.replace(screen)
        else:
            self._last = shown
            self._app.push_screen(screen)

    def replace(self, screen: ConsoleScreen) -> None:
        """Open a screen instead of this one."""
        self._last = self._app.console_screen
        self._app.switch_screen(screen)
        forget_closed_widgets()

    def go_back(self) -> None:
        """Close this screen, unless it is the first."""
        if self._replaced:
            self.replace(self._replaced.pop())
        elif len(self._app.screen_stack) > 2:
            self._last = self._app.console_screen
            self._app.pop_screen()

    def open_last(self) -> None:
        """Open the screen again that was shown before this one."""
        if self._last is not None:
            self.open(self._last.anew())

"""Frames at the pace of the terminal: changes are collected until it has shown the last one."""

from __future__ import annotations

import time
from contextlib import ExitStack, suppress
from typing import TYPE_CHECKING, Any

from textual.strip import Strip

from dorafleet.console import themes
from dorafleet.console.images import TerminalPicture
from dorafleet.console.model.pace import Pace

if TYPE_CHECKING:
    from collections.abc import Callable

    from textual.app import App
    from textual.screen import Screen
    from textual.timer import Timer

MIN_WAIT_S = 0.01
"""Shortest time between two looks whether a frame may be sent."""
BLOCKED_S = 0.2
"""Time between two looks whether a terminal takes bytes again."""


def forget_closed_widgets() -> None:
    """Free the painted lines of closed widgets, and the styles of their pictures.

    Textual caches two colours by the widget that they are for, and so keeps the last thousand
    widgets, with all their lines. It also keeps the codes of 16,384 styles: a picture has thousands
    that no other one has.
    """
    themes.forget_pixels()
    # The caches are not part of Textual's API. A version without one needs no more than memory.
    with suppress(AttributeError):
        Strip.render_ansi.cache_clear()
    with suppress(ImportError, AttributeError):
        from textual._styles_cache import StylesCache

        StylesCache.get_inner_outer.cache_clear()


class Frames:
    """Decides when an app paints."""

    def __init__(self, app: App[None]) -> None:
        self._app = app
        self._pace = Pace()
        self._hold: ExitStack | None = None
        """Open while a frame is under way: changes are collected."""
        self._timer: Timer | None = None
        """Runs until the next look, while a frame is under way."""
        self._sent_at = 0.0
        self._blocked: Callable[[], bool] = lambda: False
        self.took_s = 0.0
        """Seconds that the terminal took for the last frame."""
        self.picture = TerminalPicture()
        """The picture that is sent with a frame."""
        self.whole = 0
        """Grows when nothing may be taken for shown."""
        self._paint_all = False
        """Whether all of the screen must be painted: Textual drops a first frame meanwhile."""
        self._painted_screen: Screen[Any] | None = None

    def sent(self, now: float, blocked: Callable[[], bool]) -> None:
        """Collect changes until the terminal has shown the frame that was just sent.

        `blocked` returns True while the terminal has not taken all of its bytes.
        """
        self._pace.sent(now)
        self._sent_at, self._blocked = now, blocked
        if self._hold is None:
            self._hold = ExitStack()
            self._hold.enter_context(self._app.batch_update())
            self._wait()

    def shown(self) -> None:
        """Take the terminal's answer."""
        self._pace.answered()
        self.took_s = time.monotonic() - self._sent_at
        self.picture.shown(self.took_s)
        self._wait()

    def paint_all(self) -> None:
        """Paint the whole screen with the next frame."""
        self._paint_all = True
        self.whole += 1

    def restart(self) -> None:
        """Paint everything after another program had the terminal, and has read its answers."""
        self._pace = Pace()
        self.paint_all()
        self.release()
        self._app.screen.refresh()

    def _wait(self) -> None:
        now = time.monotonic()
        if self._timer is not None:
            self._timer.stop()
            self._timer = None
        if self._hold is None:
            return
        if not self._pace.may_send(now):
            self._timer = self._app.set_timer(max(MIN_WAIT_S, self._pace.due() - now), self._wait)
        elif self._blocked():
            # More would fill Textual's queue, and then stop the whole program.
            self._timer = self._app.set_timer(BLOCKED_S, self._wait)
        else:
            self.release()

    def release(self) -> None:
        """Paint what was collected."""
        if self._hold is None:
            return
        self._hold.close()
        self._hold = None
        app = self._app
        if not app.is_running or not app.screen_stack:
            return
        if self._paint_all or app.screen is not self._painted_screen:
            self._paint_all, self._painted_screen = False, app.screen
            app.screen.refresh(layout=True)
            app.screen.refresh()
        app.screen.check_idle()

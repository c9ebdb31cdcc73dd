"""The lines above and below a screen: server, path, message, and the keys that work now."""

import time

from textual.widget import Widget

from dorafleet.console.screens.content import ScreenContent
from dorafleet.console.view import bars
from dorafleet.console.widgets.lines import Canvas


class Bars:
    """The bars of one screen."""

    def __init__(self, screen: ScreenContent) -> None:
        self._screen = screen
        self.message: tuple[str, str] | None = None
        """The text of the operator's last message, and its style."""
        self._until = 0.0
        self._until_key = False
        """Whether the next key removes the message."""
        self._focused: Widget | None = None
        """What had the focus before the terminal was too small."""

    def report(self, text: str, style: str, seconds: float, *, until_key: bool = False) -> None:
        """Show a message for some seconds, or only until the next key."""
        self.message = (text, style)
        self._until = time.monotonic() + seconds
        self._until_key = until_key

    def on_key(self) -> None:
        """Remove a message that only stays until a key is typed."""
        if self._until_key:
            self.message = None

    def clear_message(self) -> None:
        """Remove the message."""
        self.message = None

    def forget_old(self, clock: float) -> None:
        """Remove a message that has been shown long enough; `clock` is monotonic."""
        if self.message is not None and clock > self._until:
            self.message = None

    @property
    def too_small(self) -> bool:
        """Whether the terminal is too small to show anything."""
        return not bars.fits(*self._screen.size)

    def paint(self, now: float, clock: float) -> None:
        """Bring the bars up to date; `now` is the time of day, `clock` is monotonic."""
        screen = self._screen
        small = self.too_small
        if small and screen.focused is not None:
            self._focused = screen.focused  # what is hidden loses the focus
        for name in ("#body", "#crumbs", "#message"):
            screen.query_one(name).display = not small
        if small:
            size = screen.size
            text = f" needs {bars.MIN_SIZE[0]}x{bars.MIN_SIZE[1]}, has {size.width}x{size.height}"
            self._canvas("#top").show([[(text, "warn")]])
            self._canvas("#keys").show([[]])
            return
        if self._focused is not None:
            screen.set_focus(self._focused)
            self._focused = None
        self._paint_above(now, clock)
        self._paint_below()

    def _paint_above(self, now: float, clock: float) -> None:
        screen = self._screen
        link, fleet = screen.server.link, screen.server.fleet
        columns, stale = screen.size.width, link.stale(clock)
        fresh = bars.freshness(
            connected=link.connected,
            stale=stale,
            fresh_at=link.fresh_at,
            retry_at=link.retry_at,
            now=clock,
        )
        line = bars.top_line(
            screen.console.server_title,
            fresh,
            bars.round_trip(link.round_trip),
            fleet.counts,
            len(fleet.rows),
            now,
            columns,
            stale=stale,
            limits=screen.console.limits,
        )
        self._canvas("#top").show([line])
        crumbs = screen.crumbs()
        if screen.feeds.paused:
            crumbs = crumbs._replace(note="paused (p resumes)")
        crumbs = crumbs._replace(filter=screen.filter.text, order=screen.order)
        line = bars.crumb_line(crumbs, columns, ascii_only=screen.ascii_only)
        self._canvas("#crumbs").show([line])

    def _paint_below(self) -> None:
        screen = self._screen
        link, columns = screen.server.link, screen.size.width
        message = self.message
        if message is None and (error := screen.feeds.error):
            # The error itself lists all methods that there are.
            lacks = screen.feeds.problem in ("unknown-method", "unsupported")
            does_not = f"{link.server or 'the server'} does not offer what this screen shows"
            message = (does_not if lacks else error, "warn")
        if message is None and link.error and not link.connected:
            message = (link.error, "stale")
        text, style = message or ("", "")
        self._canvas("#message").show(bars.message_lines(text, style, columns))
        self._canvas("#keys").show([bars.key_line(screen.keys(), columns)])

    def _canvas(self, name: str) -> Canvas:
        return self._screen.query_one(name, Canvas)

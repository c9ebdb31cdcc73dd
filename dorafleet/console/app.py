"""The console as a Textual app: its screens, its clock, and what goes to the server."""

import asyncio
import logging
import signal
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import replace
from typing import ClassVar

from textual.await_complete import AwaitComplete
from textual.binding import BindingType
from textual.driver import Driver
from textual.events import Event, Key
from textual.filter import LineFilter
from textual.screen import Screen

from dorafleet.console import pipe, themes
from dorafleet.console.actions import Actions
from dorafleet.console.console import Console
from dorafleet.console.frames import forget_closed_widgets
from dorafleet.console.link.server import Server
from dorafleet.console.model.commands import Action
from dorafleet.console.model.places import ABOUT_DATAFLOWS, place_of, with_dataflow, words_about
from dorafleet.console.model.targets import Target
from dorafleet.console.options import ConsoleOptions
from dorafleet.console.screens import open_screen
from dorafleet.console.screens.base import ConsoleScreen
from dorafleet.console.screens.workingkeys import ROW_KEYS, ROWS_S, in_order, lacks_rows
from dorafleet.console.view.glyphs import glyphs
from dorafleet.console.widgets.confirm import Dialog
from dorafleet.console.widgets.lines import Painted
from dorafleet.console.widgets.paint import VisibleText

TICK_S = 0.1
"""Time between two looks whether something must be painted."""

COMMAND_S = 30.0
"""Seconds for which a copied command is shown."""

ENDING_SIGNALS = (signal.SIGTERM, signal.SIGHUP)
"""Signals by which the console ends in good order; SIGHUP says that the terminal is gone."""

MAX_EARLY = 1000
"""Keys that wait for a screen."""

MAX_OPEN = 30
"""Screens that lie on each other; the next one replaces the last, until `esc` goes back to that."""
MAX_REPLACED = 100
"""Screens that were replaced and can be gone back to."""

_log = logging.getLogger(__name__)


class ConsoleApp(Console):
    """The console."""

    CSS_PATH = "console.tcss"
    ENABLE_COMMAND_PALETTE = False
    ESCAPE_TO_MINIMIZE = False
    BINDINGS: ClassVar[list[BindingType]] = [
        ("q", "quit", "quit"),
        ("ctrl+z", "suspend_process", ""),
        *in_order(
            ("question_mark", "help", "keys"),
            ("minus", "last", "last screen"),
            ("ctrl+l", "repaint", ""),
            ("tab", "focus_next", ""),
            ("shift+tab", "focus_previous", ""),
        ),
    ]

    def __init__(
        self,
        server: Server,
        options: ConsoleOptions,
        driver_class: type[Driver] | None = None,
        *,
        typed: Sequence[Key] = (),
    ) -> None:
        """`typed` are keys from before this."""
        super().__init__(server, options, driver_class)
        self._typed = typed
        self.copied = ""
        """The command that was copied last."""
        # One, because Textual caches lines by their filters.
        self._visible_text = VisibleText(glyphs(ascii_only=options.ascii_only).more)
        self.acting = Actions(self)
        self.trail = Trail(self)
        self._early: deque[Key] = deque()
        """Keys that wait until the screen or dialog is open that they are for."""
        self._entered = False
        self._start = ""
        """The first screen, until the robots are known that it may be about."""
        for theme in themes.textual_themes():
            self.register_theme(theme)
        self._take_look(options.theme)
        self.set_class(options.ascii_only, "-ascii")

    def get_line_filters(self) -> Sequence[LineFilter]:
        """Let only visible text reach the terminal."""
        return [*super().get_line_filters(), self._visible_text]

    def _take_look(self, theme: str) -> None:
        Painted.use_look(themes.Palette(theme), ascii_only=self.options.ascii_only)
        self.theme = f"console-{theme}"

    def use_theme(self, name: str) -> None:
        """Show everything in another theme."""
        _log.debug("theme %s", name)
        self.options = replace(self.options, theme=name)
        self.ansi_color = name in themes.USES_TERMINAL_COLOURS
        self._take_look(name)
        self.frames.paint_all()
        for screen in self.screen_stack:
            for widget in screen.query("*"):
                widget.refresh()

    def on_mount(self) -> None:
        """Connect, and open the first screen."""
        for key in self._typed:
            self.post_message(key)
        for number in ENDING_SIGNALS:
            asyncio.get_running_loop().add_signal_handler(number, self._end_by, number)
        self.app_resume_signal.subscribe(self, lambda _: self.frames.restart())
        self.in_background(self.server.run())
        self.push_screen(open_screen("fleet", []))
        self.set_interval(TICK_S, self._tick)
        if self.options.start != "fleet":
            self._entered = True
            if self.options.start.partition(" ")[0] in ABOUT_DATAFLOWS:
                self._start = self.options.start
            else:
                self.go_to(self.options.start)

    def _end_by(self, number: signal.Signals) -> None:
        """Give the terminal back before the program ends by a signal."""
        _log.debug("ends by %s", number.name)
        self.exit(return_code=128 + number)

    @property
    def console_screen(self) -> ConsoleScreen | None:
        """The screen that is shown, even under a dialog."""
        screens = (each for each in reversed(self.screen_stack) if isinstance(each, ConsoleScreen))
        return next(screens, None)

    async def on_unmount(self) -> None:
        """End the connection."""
        for number in ENDING_SIGNALS:
            asyncio.get_running_loop().remove_signal_handler(number)
        self.frames.release()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self.server.close()

    async def on_event(self, event: Event) -> None:
        """Keep keys that come while a screen opens: they are for that one."""
        if not isinstance(event, Key) or event.is_forwarded:
            await super().on_event(event)
        elif event.key == "ctrl+c":
            self.exit()  # in whatever is typed, too, which would copy
        elif len(self._early) < MAX_EARLY:
            self._early.append(event)
            await self._give_keys()

    async def _give_keys(self) -> None:
        while self._early and self._takes_keys:
            key, screen = self._early[0], self.screen
            if isinstance(screen, ConsoleScreen) and _acts_on_nothing(screen, key):
                if time.monotonic() < (screen.resumed_at or 0.0) + ROWS_S:
                    return
                self.report(f"there are no rows yet: `{key.key}` was left out", "warn")
                self._early.popleft()
                continue
            self._early.popleft()
            if isinstance(screen, ConsoleScreen):
                screen.bars.on_key()
                if self._does_nothing(screen, key):
                    text = f"`{key.name}` does nothing here: ? shows all keys"
                    screen.bars.report(text, "dim", 5.0, until_key=True)
                    screen.repaint()
                    continue
            if isinstance(screen, ConsoleScreen) and screen.typing:
                screen.prompt.ending = key.key in ("enter", "escape")
            if not (isinstance(screen, Dialog) and screen.take(key)):
                await super().on_event(key)

    @staticmethod
    def _does_nothing(screen: ConsoleScreen, key: Key) -> bool:
        if screen.typing or screen.bars.too_small or key.key in ROW_KEYS:
            return False
        return key.key not in screen.active_bindings

    @property
    def _takes_keys(self) -> bool:
        screen = self.screen
        if isinstance(screen, Dialog):
            return screen.takes_keys
        return isinstance(screen, ConsoleScreen) and screen.takes_keys and not self.acting.asks

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """Return False for keys that are for a dialog, or for what is typed, or do nothing now."""
        del parameters
        if action in ("help", "last"):
            screen = self.screen
            return isinstance(screen, ConsoleScreen) and not (
                screen.typing or screen.bars.too_small
            )
        return not (action in ("focus_next", "focus_previous") and self._typing)

    async def _tick(self) -> None:
        if not self.screen_stack:
            return  # it ends
        await self._give_keys()
        link = self.server.link
        if self._start and (self.server.fleet.rows or "fleet.watch" in self.server.missing):
            start, self._start = self._start, ""
            self.go_to(start)
        if not self._entered and link.connected and len(self.server.fleet.rows) == 1:
            self._entered = True
            if self.server.is_daemon:
                # One machine: its own screen says more than a list of one.
                self.open_about("robot", list(self.server.fleet.rows))
        # Also under a dialog: what is out of date must not look as if it were not.
        if (screen := self.console_screen) is not None:
            screen.tick()

    def on_keys_left_out(self) -> None:
        """Say that a paste was too long."""
        text = "keys came faster than anybody types, as from a paste: the rest of them is left out"
        self.report(text, "warn")

    def on_frame_shown(self) -> None:
        """Take the terminal's answer."""
        self.frames.shown()

    def on_resize(self) -> None:
        """Paint everything again."""
        self.frames.paint_all()

    def go_to(self, text: str) -> None:
        """Open the screen that a line after `:` names."""
        place = place_of(text)
        if isinstance(place, str):
            self.report(place, "warn")
            return
        name, rest = place
        rows = {} if self.server.is_daemon else self.server.fleet.rows
        words = with_dataflow(name, rest, rows)
        if isinstance(words, str):
            self.report(words, "warn", 10.0)
        else:
            self.open_about(name, words)

    def open_about(self, name: str, words: Sequence[str]) -> None:
        """Open the screen with this name about these words."""
        opened = open_screen(name, words)
        if isinstance(opened, str):
            self.report(opened, "warn")
        else:
            self.trail.open(opened)

    def go_about(self, place: str, target: Target, *more: Target) -> None:
        """Open a screen about something; of a robot with several dataflows, about one of them."""
        if place in ABOUT_DATAFLOWS and target.choices and not target.dataflow:
            self.acting.go_about(place, target)
            return
        self.open_about(place, words_about(place, [target, *more]))

    def pop_screen(self) -> AwaitComplete:
        """Close the screen or dialog on top, and keep nothing of it."""
        closing = super().pop_screen()
        forget_closed_widgets()
        return closing

    def action_last(self) -> None:
        """Open the screen again that was shown before this one."""
        self.trail.open_last()

    def action_repaint(self) -> None:
        """Paint everything again, after another program has written to the terminal."""
        self.frames.paint_all()
        self.screen.refresh()

    def action_help(self) -> None:
        """Open the page of keys."""
        self.go_to("help")

    async def action_quit(self) -> None:
        """End the console, which leaves everything running."""
        if not self._typing:
            self.exit()

    @property
    def _typing(self) -> bool:
        screen = self.screen
        return isinstance(screen, ConsoleScreen) and screen.typing

    def go_back(self) -> None:
        """Close this screen, unless it is the first."""
        self.trail.go_back()

    def replace_screen(self, screen: Screen[None]) -> None:
        """Open a screen instead of this one."""
        assert isinstance(screen, ConsoleScreen)
        self.trail.replace(screen)

    def possible(self, targets: Sequence[Target]) -> list[Action]:
        """Return what may be done to all of these targets."""
        return self.acting.possible(targets)

    def choose(self, targets: list[Target]) -> None:
        """Let the operator choose an action, confirm it, and do it."""
        self.acting.choose(targets)

    def copy_command(self, argv: Sequence[str]) -> None:
        """Show a command line, and offer it to the terminal's clipboard.

        A terminal does not say whether it takes it: so the whole command is shown.
        """
        self.copied = self.command_line(argv)
        self.copy_to_clipboard(self.copied)
        host = self.server.host
        needs = f"; it needs dorafleet on {host}" if host and argv[0] == "dorafleet" else ""
        hint = f"(offered to the clipboard{needs}; shift and the mouse select it, too)"
        if (screen := self.console_screen) is not None:
            screen.bars.report(f"$ {self.copied}  {hint}", "key", COMMAND_S, until_key=True)
            screen.repaint()

    def pipe(self, command: str, lines: Sequence[str]) -> None:
        """Give what is shown to a program, which has the terminal meanwhile."""
        if not command.strip():
            return
        _log.debug("pipe %d lines into %r", len(lines), command)
        text = "".join(f"{line.rstrip()}\n" for line in lines)
        if self.is_headless:
            self.report(pipe.how_it_ended(command, pipe.run(command, text, quiet=True)), "dim")
            return
        with self.batch_update(), self.suspend(), pipe.interrupts_ignored():
            code = pipe.run(command, text)
        self.frames.restart()
        if code:
            self.report(pipe.how_it_ended(command, code), "warn")

    def report(self, text: str, style: str = "", seconds: float = 5.0) -> None:
        """Show a message for some seconds, even under a dialog."""
        if (screen := self.console_screen) is not None:
            screen.report(text, style, seconds)


def _acts_on_nothing(screen: ConsoleScreen, key: Key) -> bool:
    """Return True for a key that is about rows which have not come yet."""
    return key.key in ROW_KEYS and not screen.typing and lacks_rows(screen)


class Trail:
    """Opens screens, and goes back to those before them."""

    def __init__(self, app: ConsoleApp) -> None:
        self._app = app
        self._last: ConsoleScreen | None = None
        """The screen that was shown before the present one; if that is closed, one like it."""
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
        self._leave()
        self._app.switch_screen(screen)
        forget_closed_widgets()

    def go_back(self) -> None:
        """Close this screen, unless it is the first."""
        if self._replaced:
            self.replace(self._replaced.pop())
        elif len(self._app.screen_stack) > 2:
            self._leave()
            self._app.pop_screen()

    def _leave(self) -> None:
        """Keep how to show the present screen again, but nothing of what it has read."""
        shown = self._app.console_screen
        self._last = None if shown is None else shown.anew()

    def open_last(self) -> None:
        """Open the screen again that was shown before this one."""
        if self._last is not None:
            self.open(self._last.anew())

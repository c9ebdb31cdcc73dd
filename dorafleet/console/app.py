"""The console as a Textual app: its screens, its clock, and what goes to the server."""

from __future__ import annotations

import asyncio
import logging
import re
import shlex
import signal
import time
from collections import deque
from typing import TYPE_CHECKING, Any, ClassVar

from textual.app import App
from textual.events import Key

from dorafleet.console import piping, themes
from dorafleet.console.acting import Acting
from dorafleet.console.frames import Frames, forget_closed_widgets
from dorafleet.console.model.commands import shown
from dorafleet.console.model.places import ABOUT_DATAFLOWS, place_of, with_dataflow, words_about
from dorafleet.console.screens.base import ConsoleScreen
from dorafleet.console.screens.registry import open_screen
from dorafleet.console.screens.workingkeys import ROW_KEYS, ROWS_S, apart, in_order, lacks_rows
from dorafleet.console.trail import Trail
from dorafleet.console.view.glyphs import glyphs
from dorafleet.console.widgets.confirm import Dialog
from dorafleet.console.widgets.lines import Painted
from dorafleet.console.widgets.paint import VisibleText

if TYPE_CHECKING:
    from collections.abc import Coroutine, Sequence

    from textual.await_complete import AwaitComplete
    from textual.binding import BindingType
    from textual.driver import Driver
    from textual.events import Event
    from textual.filter import LineFilter

    from dorafleet.console.link.server import Server
    from dorafleet.console.model.filter import Filter
    from dorafleet.console.model.targets import Target
    from dorafleet.console.options import Options

TICK_S = 0.1
"""Time between two looks whether something must be painted."""

COMMAND_S = 30.0
"""Seconds for which a copied command is shown."""

ENDING_SIGNALS = (signal.SIGTERM, signal.SIGHUP)
"""Signals by which the console ends in good order; SIGHUP says that the terminal is gone."""

MAX_EARLY = 1000
"""Keys that wait for a screen."""

FilterKey = tuple[str, tuple[str | None, ...]]
"""The name of a screen, and its `subject`."""

MAX_FILTERS = 100
"""Filters that are kept; the next one displaces the oldest."""

MAX_LISTED = 30
"""Robots that a filter names."""

_log = logging.getLogger(__name__)


class ConsoleApp(App[None]):
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
        self, server: Server, options: Options, driver_class: type[Driver] | None = None
    ) -> None:
        super().__init__(driver_class=driver_class, ansi_color=_ansi(options.theme))
        self.server = server
        self.options = options
        self.filters: dict[FilterKey, Filter] = {}
        self.copied = ""
        """The command that was copied last."""
        # One, because Textual caches lines by their filters.
        self._visible_text = VisibleText(glyphs(ascii_only=options.ascii_only).more)
        self.frames = Frames(self)
        self.acting = Acting(self)
        self.trail = Trail(self)
        self._early: deque[Key] = deque()
        """Keys that wait until the screen or dialog is open that they are for."""
        self._tasks: set[asyncio.Task[None]] = set()
        self._entered = False
        self._start = ""
        """The first screen, until the robots are known that it may be about."""
        Painted.use_look(themes.Palette(options.theme), ascii_only=options.ascii_only)
        for theme in themes.textual_themes():
            self.register_theme(theme)
        self.theme = f"console-{options.theme}"
        self.set_class(options.ascii_only, "-ascii")

    @property
    def server_title(self) -> str:
        """What the first line calls the server."""
        link = self.server.link
        if self.server.host:
            return self.server.host
        if link.server.startswith("dorafleet"):
            name = link.where.removeprefix("the coordinator at ").partition(" port ")[0]
            return name or "coordinator"
        rows = list(self.server.fleet.rows)
        return rows[0] if len(rows) == 1 else (link.where or "no server")

    @property
    def limits(self) -> str:
        """Why this operator can change nothing; empty if he can."""
        if self.options.readonly:
            return "readonly"
        return "viewer" if self.server.link.role == "viewer" else ""

    def get_line_filters(self) -> Sequence[LineFilter]:
        """Let only visible text reach the terminal."""
        return [*super().get_line_filters(), self._visible_text]

    def on_mount(self) -> None:
        """Connect, and open the first screen."""
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
            self._early.extend(apart(event))
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
            if isinstance(screen, ConsoleScreen) and screen.typing:
                screen.prompt.ending = key.key in ("enter", "escape")
            if not (isinstance(screen, Dialog) and screen.take(key)):
                await super().on_event(key)

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

    @property
    def console_screen(self) -> ConsoleScreen | None:
        """The screen that is shown, even under a dialog."""
        screens = (each for each in reversed(self.screen_stack) if isinstance(each, ConsoleScreen))
        return next(screens, None)

    def in_background(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Run something beside everything else, until it ends or the console does.

        An exception ends the console with its traceback, as one of a key does.
        """
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._on_end)
        return task

    def _on_end(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            self.call_later(task.result)

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

    def open_fleet(self, robots: Sequence[str]) -> None:
        """Open the list of these robots."""
        names = "|".join(re.escape(robot) for robot in robots[:MAX_LISTED])
        self.go_to(f"fleet {shlex.quote(shlex.quote(f'robot~^({names})$'))}")

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

    def keep_filter(self, key: FilterKey, wanted: Filter) -> None:
        """Keep a filter for when its screen is opened again."""
        self.filters.pop(key, None)
        if wanted:
            self.filters[key] = wanted
        if len(self.filters) > MAX_FILTERS:
            del self.filters[next(iter(self.filters))]

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

    def command_line(self, argv: Sequence[str]) -> str:
        """Return a command line for the operator's shell, which asks the same server."""
        if self.server.host:
            return shown(["ssh", self.server.host, shown(argv)])
        variables = (f"{name}={shlex.quote(value)} " for name, value in self.options.variables)
        return "".join(variables) + shown(argv)

    def pipe(self, command: str, lines: Sequence[str]) -> None:
        """Give what is shown to a program, which has the terminal meanwhile."""
        if not command.strip():
            return
        _log.debug("pipe %d lines into %r", len(lines), command)
        text = "".join(f"{line.rstrip()}\n" for line in lines)
        if self.is_headless:
            self.report(piping.how_it_ended(command, piping.run(command, text, quiet=True)), "dim")
            return
        with self.batch_update(), self.suspend(), piping.interrupts_ignored():
            code = piping.run(command, text)
        self.frames.restart()
        if code:
            self.report(piping.how_it_ended(command, code), "warn")

    def report(self, text: str, style: str = "", seconds: float = 5.0) -> None:
        """Show a message for some seconds, even under a dialog."""
        if (screen := self.console_screen) is not None:
            screen.report(text, style, seconds)


def _acts_on_nothing(screen: ConsoleScreen, key: Key) -> bool:
    """Return True for a key that is about rows which have not come yet."""
    return key.key in ROW_KEYS and not screen.typing and lacks_rows(screen)


def _ansi(theme: str) -> bool:
    return theme in themes.USES_TERMINAL_COLOURS

"""The console as its screens and actions know it: the server, the options, and what to ask for."""

import asyncio
import shlex
from collections.abc import Coroutine, Sequence
from contextvars import Context, copy_context
from typing import Any

from textual.app import App
from textual.driver import Driver
from textual.screen import Screen

from dorad.control.filters import Filter
from dorafleet.console import themes
from dorafleet.console.frames import Frames
from dorafleet.console.link.server import Server
from dorafleet.console.model.commands import Action, shown
from dorafleet.console.model.targets import Target
from dorafleet.console.options import ConsoleOptions

FilterKey = tuple[str, tuple[str | None, ...]]
"""The name of a screen, and its `subject`."""

MAX_FILTERS = 100
"""Filters that are kept; the next one displaces the oldest."""


class Console(App[None]):
    """An app with one server. `ConsoleApp` opens its screens, and does what is asked for."""

    def __init__(
        self, server: Server, options: ConsoleOptions, driver_class: type[Driver] | None = None
    ) -> None:
        ansi = options.theme in themes.USES_TERMINAL_COLOURS
        super().__init__(driver_class=driver_class, ansi_color=ansi)
        self.server = server
        self.options = options
        self.filters: dict[FilterKey, Filter] = {}
        self.history: dict[str, list[str]] = {}
        """What was typed after `:`, `/` and so on, by kind, the last one last."""
        self.frames = Frames(self)
        self._tasks: set[asyncio.Task[None]] = set()
        self._background: Context | None = None
        """The app's own. With that of the screen which asks, each cancelled deadline would keep the
        screen in memory until it were due."""

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

    def in_background(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Run something beside everything else, until it ends or the console does.

        An exception ends the console with its traceback, as one of a key does.
        """
        if self._background is None:  # the first work is the app's, when it is mounted
            self._background = copy_context()
        task = asyncio.create_task(work, context=self._background.copy())
        self._tasks.add(task)
        task.add_done_callback(self._on_end)
        return task

    def _on_end(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            self.call_later(task.result)

    def keep_filter(self, key: FilterKey, wanted: Filter) -> None:
        """Keep a filter for when its screen is opened again."""
        self.filters.pop(key, None)
        if wanted:
            self.filters[key] = wanted
        if len(self.filters) > MAX_FILTERS:
            del self.filters[next(iter(self.filters))]

    def command_line(self, argv: Sequence[str]) -> str:
        """Return a command line for the operator's shell, which asks the same server."""
        if self.server.host:
            return shown(["ssh", self.server.host, shown(argv)])
        variables = (f"{name}={shlex.quote(value)} " for name, value in self.options.variables)
        return "".join(variables) + shown(argv)

    def go_to(self, text: str) -> None:
        """Open the screen that a line after `:` names."""
        raise NotImplementedError

    def go_about(self, place: str, target: Target, *more: Target) -> None:
        """Open a screen about something; of a robot with several dataflows, about one of them."""
        raise NotImplementedError

    def open_about(self, name: str, words: Sequence[str]) -> None:
        """Open the screen with this name about these words."""
        raise NotImplementedError

    def go_back(self) -> None:
        """Close this screen, unless it is the first."""
        raise NotImplementedError

    def replace_screen(self, screen: Screen[None]) -> None:
        """Open a screen instead of this one."""
        raise NotImplementedError

    def possible(self, targets: Sequence[Target]) -> list[Action]:
        """Return what may be done to all of these targets."""
        raise NotImplementedError

    def choose(self, targets: list[Target]) -> None:
        """Let the operator choose an action, confirm it, and do it."""
        raise NotImplementedError

    def copy_command(self, argv: Sequence[str]) -> None:
        """Show a command line, and offer it to the terminal's clipboard."""
        raise NotImplementedError

    def use_theme(self, name: str) -> None:
        """Show everything in another theme."""
        raise NotImplementedError

    def pipe(self, command: str, lines: Sequence[str]) -> None:
        """Give what is shown to a program, which has the terminal meanwhile."""
        raise NotImplementedError

    def report(self, text: str, style: str = "", seconds: float = 5.0) -> None:
        """Show a message for some seconds, even under a dialog."""
        raise NotImplementedError

"""Run the console in this process, without a terminal, and read its screen as text."""

from __future__ import annotations

import asyncio
import time
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from textual.events import Key

from dorafleet.console.app import ConsoleApp
from dorafleet.console.link.server import Server
from dorafleet.console.options import Options
from dorafleet.console.widgets.confirm import Confirm

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

    from textual.pilot import Pilot

    from dorad.control.target import Targets, Tcp, UnixSocket

    from .fakefleet import FakeFleet

DEADLINE_S = 60.0


def screen_text(app: ConsoleApp) -> str:
    """Return what is on the screen; the only use of a private part of Textual in tests."""
    strips = app.screen._compositor.render_strips()
    return "\n".join(strip.text.rstrip() for strip in strips)


class Driven:
    """A running console."""

    def __init__(self, app: ConsoleApp, pilot: Pilot[None]) -> None:
        self.app = app
        self.pilot = pilot

    @property
    def text(self) -> str:
        return screen_text(self.app)

    async def press(self, *keys: str) -> None:
        """Press keys; a question is read before it is answered."""
        screen = self.app.screen
        while "enter" in keys and isinstance(screen, Confirm) and not screen.readable:
            await self.pilot.pause(0.02)
        await self.pilot.press(*keys)

    async def type(self, text: str) -> None:
        """Type a text at once, as a paste or a fast typist does."""
        for char in text:
            self.app.post_message(Key(_key(char), char))
        await self.pilot.pause()

    async def until(self, holds: Callable[[], object] | str, within: float = DEADLINE_S) -> str:
        """Wait until something is so, or a text is on the screen; return the screen."""
        wanted = (lambda: holds in self.text) if isinstance(holds, str) else holds
        deadline = time.monotonic() + within
        while True:
            began = time.thread_time()
            if wanted():
                break
            if time.monotonic() > deadline:
                raise AssertionError(f"{holds} did not happen:\n{self.text}")
            # A look draws the whole screen: leave most of the time to the console.
            await self.pilot.pause(max(0.02, 8 * (time.thread_time() - began)))
        await self.pilot.pause()
        return self.text


def _key(char: str) -> str:
    names = {
        "=": "equals_sign", "!": "exclamation_mark", "~": "tilde", ">": "greater_than_sign",
        "<": "less_than_sign", "/": "slash", ".": "full_stop", ":": "colon", "*": "asterisk",
        "-": "minus", "^": "circumflex_accent", "'": "apostrophe", "(": "left_parenthesis",
        "|": "vertical_line", " ": "space", "\r": "enter", "\x1b": "escape", "?": "question_mark",
    }  # fmt: skip
    return names.get(char, char)


@asynccontextmanager
async def console(
    folder: Path,
    fleet: FakeFleet,
    *,
    size: tuple[int, int] = (100, 30),
    options: Options | None = None,
) -> AsyncIterator[Driven]:
    """Run a console against a fake fleet."""
    from .fakefleet import serving

    async with serving(fleet, folder) as target, console_at(target, size, options) as driven:
        yield driven


@asynccontextmanager
async def console_at(
    target: UnixSocket | Tcp, size: tuple[int, int] = (100, 30), options: Options | None = None
) -> AsyncIterator[Driven]:
    """Run a console against whatever is at a socket."""

    async def opened() -> Targets:
        return (target,)

    app = ConsoleApp(Server(opened), options or Options())
    async with app.run_test(size=size) as pilot:
        yield Driven(app, pilot)
    await asyncio.sleep(0)

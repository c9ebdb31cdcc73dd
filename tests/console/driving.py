"""Run the console in this process, without a terminal, and read its screen as text."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from textual.events import Key
from textual.pilot import Pilot

from dorad.control.target import Targets, Tcp, UnixSocket
from dorafleet.console.app import ConsoleApp
from dorafleet.console.link.server import Server
from dorafleet.console.options import ConsoleOptions
from dorafleet.console.widgets.confirm import Confirm
from tests.harness.waiting import DEADLINE_S

from .fakefleet import FakeFleet

SETTLED_S, MAX_CHANGES = 0.05, 10


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

    async def enter(self, key: str, text: str) -> None:
        """Open a line with a key, type a text into it, and end it."""
        await self.press(key)
        await self.type(text)
        await self.press("enter")

    async def type(self, text: str) -> None:
        """Type a text at once, as a paste or a fast typist does."""
        for char in text:
            self.app.post_message(Key(_key(char), char))
        await self.pilot.pause()

    async def until(self, *wanted: Callable[[], object] | str, within: float = DEADLINE_S) -> str:
        """Wait until things are so, or texts on the screen, all at once; return the screen.

        What comes by another stream, such as rows and alerts, comes at another moment. The screen
        returned had no change for a moment, unless it always changes or the texts go again.
        """
        deadline = time.monotonic() + within
        while True:
            began = time.thread_time()
            text = self.text
            missing = [
                each for each in wanted if not (each in text if isinstance(each, str) else each())
            ]
            if not missing:
                break
            if time.monotonic() > deadline:
                raise AssertionError(f"{missing} did not happen:\n{self.text}")
            # A look draws the whole screen: leave most of the time to the console.
            await self.pilot.pause(max(0.02, 8 * (time.thread_time() - began)))
        for _ in range(MAX_CHANGES):
            await self.pilot.pause(SETTLED_S)
            later = self.text
            if later == text or any(each not in later for each in wanted if isinstance(each, str)):
                break
            text = later
        return text


def _key(char: str) -> str:
    names = {
        "=": "equals_sign", "!": "exclamation_mark", "~": "tilde", ">": "greater_than_sign",
        "<": "less_than_sign", "/": "slash", ".": "full_stop", ":": "colon", "*": "asterisk",
        "-": "minus", "^": "circumflex_accent", "'": "apostrophe", "(": "left_parenthesis",
        "|": "vertical_line", " ": "space",
        "&": "ampersand", "\r": "enter", "\x1b": "escape", "?": "question_mark",
    }  # fmt: skip
    return names.get(char, char)


@asynccontextmanager
async def console(
    folder: Path,
    fleet: FakeFleet,
    *,
    size: tuple[int, int] = (100, 30),
    start: str = "fleet",
    shows: str = "",
    options: ConsoleOptions | None = None,
) -> AsyncIterator[Driven]:
    """Run a console against a fake fleet, at the place `start`, once it `shows` a text."""
    from .fakefleet import serving

    options = options or ConsoleOptions(start=start)
    async with serving(fleet, folder) as target, console_at(target, size, options) as driven:
        if shows:
            await driven.until(shows)
        yield driven


@asynccontextmanager
async def console_at(
    target: UnixSocket | Tcp,
    size: tuple[int, int] = (100, 30),
    options: ConsoleOptions | None = None,
) -> AsyncIterator[Driven]:
    """Run a console against whatever is at a socket."""

    async def opened() -> Targets:
        return (target,)

    app = ConsoleApp(Server(opened), options or ConsoleOptions())
    async with app.run_test(size=size) as pilot:
        yield Driven(app, pilot)
    await asyncio.sleep(0)

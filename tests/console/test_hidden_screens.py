"""What a screen costs that is hidden or closed: nothing."""

from __future__ import annotations

import gc
from typing import TYPE_CHECKING

import pytest
from rich.console import Console
from rich.style import Style
from textual._styles_cache import StylesCache
from textual.scrollbar import ScrollBar
from textual.widget import Widget

from dorafleet.console import app
from dorafleet.console.frames import forget_closed_widgets
from dorafleet.console.model.logwindow import Entry
from dorafleet.console.options import ConsoleOptions
from dorafleet.console.themes import Palette
from dorafleet.console.widgets.paint import strip

from .driving import console
from .fakefleet import FakeFleet, line

if TYPE_CHECKING:
    from pathlib import Path


async def test_a_hidden_screen_reads_no_stream(tmp_path: Path) -> None:
    fleet = FakeFleet(3)
    async with console(tmp_path, fleet) as driven:
        await driven.until("3 of 3")
        await driven.press("enter")
        await driven.until(lambda: fleet.streams == 1)
        await driven.press("question_mark")
        await driven.until(lambda: fleet.streams == 0)
        await driven.press("escape")
        await driven.until(lambda: fleet.streams == 1)
        await driven.press("escape")
        await driven.until(lambda: fleet.streams == 0)


async def test_a_screen_that_is_hidden_for_no_time_continues_to_read(tmp_path: Path) -> None:
    fleet = FakeFleet(1)
    async with console(tmp_path, fleet, options=ConsoleOptions(start="logs pick")) as driven:
        await driven.until(lambda: fleet.streams == 1)
        driven.app.open_about("help", [])
        driven.app.trail.go_back()
        await driven.until("Logs > pick")
        fleet.lines.append(line("after the help"))
        fleet.bell.ring()
        await driven.until("after the help")
        await driven.type("pp")
        fleet.lines.append(line("after a pause"))
        fleet.bell.ring()
        await driven.until("after a pause")


async def test_nothing_is_kept_of_closed_screens_and_dialogs(tmp_path: Path) -> None:
    async with console(tmp_path, FakeFleet(5)) as driven:
        await driven.until("5 of 5")
        for _ in range(2):
            for keys in (":alerts\r", ":help\r", "a"):
                before = driven.app.screen
                await driven.type(keys)
                await driven.until(lambda: driven.app.screen is not before)  # noqa: B023
                await driven.type("\x1b")
                await driven.until(lambda: driven.app.screen is before)  # noqa: B023
        gc.collect()
        objects = gc.get_objects()
        painted = sum(isinstance(each, StylesCache) for each in objects)
        assert painted <= sum(isinstance(each, Widget) for each in objects)


def living(kind: type) -> int:
    """Return how many objects there are of a class."""
    gc.collect()
    return sum(isinstance(each, kind) for each in gc.get_objects())


def test_the_colours_of_a_picture_are_forgotten_with_its_screen() -> None:
    terminal = Console(color_system="truecolor")
    before = living(Style)
    pixels = [("▀", f"#{number:06x} on #{2 * number:06x}") for number in range(2000)]
    strip(pixels, len(pixels), Palette("dark"), Style()).render(terminal)
    assert living(Style) >= before + len(pixels), "they are kept for the next picture"
    forget_closed_widgets()
    assert living(Style) < before + 100


async def test_the_lines_of_a_closed_log_are_forgotten(tmp_path: Path) -> None:
    fleet = FakeFleet(1)
    fleet.lines = [line(f"line {number}") for number in range(300)]
    async with console(tmp_path, fleet) as driven:
        await driven.until("1 of 1")
        before = living(Entry)
        await driven.type(":logs pick\r")
        await driven.until("line 299")
        assert living(Entry) == before + 300
        await driven.press("escape")
        await driven.until(lambda: living(Entry) == before)
        await driven.press("minus")
        await driven.until("line 299")


async def test_what_is_longer_than_the_screen_adds_no_task(tmp_path: Path) -> None:
    """Textual starts one for each scrollbar, even for one without a width."""
    fleet = FakeFleet(200)
    async with console(tmp_path, fleet) as driven:
        before = living(ScrollBar)
        await driven.until("200 of 200")
        for number in range(1, 21):
            fleet.fail(f"arm{number:03}")
        fleet.judge(2.0)
        await driven.press("slash")
        await driven.type("a_word_that_no_robot_has " * 10)
        await driven.until("0 of ")
        await driven.press("escape", "end")
        await driven.until("arm200")
        assert living(ScrollBar) == before


@pytest.mark.long
async def test_screens_on_screens_are_bounded_and_escape_goes_back_through_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(app, "MAX_OPEN", 3)
    async with console(tmp_path, FakeFleet(5)) as driven:
        await driven.until("5 of 5")
        for number in range(1, 6):
            driven.app.open_about("robot", [f"arm{number:03}"])
            await driven.until(f"Fleet > arm{number:03} ")
        assert len(driven.app.screen_stack) == 4
        for number in range(4, 0, -1):
            await driven.press("escape")
            await driven.until(f"Fleet > arm{number:03} ")
        await driven.press("escape")
        await driven.until("5 of 5")

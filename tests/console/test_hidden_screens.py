"""What a screen costs that is hidden or closed: nothing."""

from __future__ import annotations

import gc
from typing import TYPE_CHECKING

from textual._styles_cache import StylesCache
from textual.widget import Widget

from dorafleet.console import trail
from dorafleet.console.options import Options

from .driving import console
from .fakefleet import FakeFleet, line

if TYPE_CHECKING:
    from pathlib import Path

    import pytest


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
    async with console(tmp_path, fleet, options=Options(start="logs pick")) as driven:
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


async def test_screens_on_screens_are_bounded_and_escape_goes_back_through_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trail, "MAX_OPEN", 3)
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

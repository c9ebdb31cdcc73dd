"""What a screen costs that is hidden or closed: nothing."""

from __future__ import annotations

import gc
from typing import TYPE_CHECKING

from textual.strip import Strip

from dorafleet.console.options import Options

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
    async with console(tmp_path, fleet, options=Options(start="logs pick")) as driven:
        await driven.until(lambda: fleet.streams == 1)
        driven.app.open_about("help", [])
        driven.app.go_back()
        await driven.until("Logs > pick")
        fleet.lines.append(line("after the help"))
        fleet.bell.ring()
        await driven.until("after the help")
        await driven.type("pp")
        fleet.lines.append(line("after a pause"))
        fleet.bell.ring()
        await driven.until("after a pause")


async def test_closed_screens_keep_no_painted_lines(tmp_path: Path) -> None:
    def lines() -> int:
        gc.collect()
        return sum(isinstance(each, Strip) for each in gc.get_objects())

    async with console(tmp_path, FakeFleet(3)) as driven:
        await driven.until("3 of 3")
        counts = []
        for _ in range(3):
            driven.app.open_about("help", [])
            await driven.until("Keys")
            await driven.press("escape")
            await driven.until("3 of 3")
            counts.append(lines())
        # Textual keeps what belongs to a thousand of them: 30 lines each.
        assert counts[-1] < counts[0] + 50

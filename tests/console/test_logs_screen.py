"""The screen Logs: whose filter it has, why it is empty, and lines of a wrong clock."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

import msgspec

from dorad.control import messages as m
from dorafleet.console.options import Options
from dorafleet.console.screens import logs

from .driving import console
from .fakefleet import FakeFleet, line

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    import pytest

START = Options(start="logs pick camera")


async def test_logs_of_another_node_begin_without_the_filter_that_these_keep(
    tmp_path: Path,
) -> None:
    fleet = FakeFleet(1)
    fleet.lines = [line("of the camera"), line("of the gripper", node="gripper")]
    async with console(tmp_path, fleet, options=START) as driven:
        await driven.until("of the camera")
        await driven.press("slash")
        await driven.type("arm5")
        await driven.press("enter")
        text = await driven.until("the filter hides 1 line (esc removes it)")
        assert "filter: arm5" in text and "0 of 1 line\n" in text
        driven.app.go_to("logs pick gripper")
        text = await driven.until("of the gripper")
        assert "filter:" not in text and " 1 line\n" in text
        driven.app.go_to("logs pick camera")
        await driven.until("filter: arm5")


async def test_an_empty_page_says_that_nothing_is_logged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fleet = FakeFleet(1)
    async with console(tmp_path, fleet, options=START) as driven:
        await driven.until("asking the server")
        monkeypatch.setattr(logs, "ANSWER_S", 0.0)
        text = await driven.until("nothing is logged yet: asked at ")
        assert "0 lines" in text
        fleet.lines.append(line("at last"))
        fleet.bell.ring()
        text = await driven.until("at last")
        assert "nothing is logged" not in text


async def test_lines_of_a_wrong_clock_show_their_date_and_that_it_is_wrong(tmp_path: Path) -> None:
    fleet = FakeFleet(1)
    now = time.time()
    asked: list[m.LogRead] = []

    async def read(_call: object, params: m.LogRead) -> AsyncIterator[m.LogLines]:
        asked.append(params)
        old = msgspec.structs.replace(line("of yesterday", at=now - 93_600), machine="arm001")
        skew = {"arm001": -93_600.0, "arm002": 3.0}
        yield m.LogLines(dataflow="pick", lines=[old], skew=skew)
        await asyncio.Event().wait()

    fleet.read_logs = read
    async with console(tmp_path, fleet, options=START) as driven:
        text = await driven.until("of yesterday")
        assert "! clock of arm001 is 1d02h slow; lines show the time of their robot" in text
        assert "arm002" not in text
        assert time.strftime("%m-%d %H:%M:%S", time.localtime(now - 93_600)) in text
        await driven.press("slash")
        await driven.type("since<10m")
        await driven.press("enter")
        await driven.until("filter: since<10m")
        assert "1 of 1 line\n" in driven.text, "it is new by the robot's clock"
        await driven.type("/since<10m robot=arm001\r")
        await driven.until("filter: since<10m robot=arm001")
        assert "1 of 1 line\n" in driven.text
        await driven.press("escape")
        await driven.type("pp")
        await driven.until(lambda: len(asked) == 2)
        # By the server's clock: the robot's is a day behind.
        assert asked[1].since is not None and now - 60 < asked[1].since <= now
        assert " 1 line\n" in driven.text


async def test_the_first_kept_line_says_how_to_read_older_ones(tmp_path: Path) -> None:
    fleet = FakeFleet(1)
    fleet.lines = [line(f"line {n}") for n in range(logs.TAIL)]
    async with console(tmp_path, fleet, options=Options(start="logs pick")) as driven:
        await driven.until("1000 lines")
        await driven.press("home")
        await driven.until("y copies the command that prints older lines")
        await driven.press("down")
        await driven.until("scrolled up (end follows)")


async def test_logs_take_the_same_filters(tmp_path: Path) -> None:
    fleet = FakeFleet(1)
    fleet.lines = [line("one"), line("two", level="error"), line("three", node="arm")]
    async with console(tmp_path, fleet, options=Options(start="logs pick")) as driven:
        await driven.until("three")
        await driven.press("slash")
        await driven.type("level=error")
        await driven.press("enter")
        shown = ("one", "two", "three")
        await driven.until(lambda: [word for word in shown if word in driven.text] == ["two"])

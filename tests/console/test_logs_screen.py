"""The screen Logs: whose filter it has, why it is empty, and lines of a wrong clock."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dorad.control import messages as m
from dorad.logrecord import LogRecord
from dorafleet.console.link import keptlines
from dorafleet.console.model import logwindow
from dorafleet.console.screens import logs
from dorafleet.console.view import loglines
from dorafleet.console.widgets import lines
from dorafleet.console.widgets.lines import LogView

from .driving import console
from .fakefleet import FakeFleet, line

START = "logs pick camera"


async def test_logs_of_another_node_begin_without_the_filter_that_these_keep(
    tmp_path: Path,
) -> None:
    fleet = FakeFleet(1)
    fleet.lines = [line("of the camera"), line("of the gripper", node="gripper")]
    async with console(tmp_path, fleet, start=START, shows="of the camera") as driven:
        await driven.press("ampersand")
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
    async with console(tmp_path, fleet, start=START, shows="asking the server") as driven:
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
    async with console(tmp_path, fleet, start=START) as driven:
        text = await driven.until("of yesterday")
        assert "! clock of arm001 is 1d02h slow; lines show the time of their robot" in text
        assert "arm002" not in text
        assert time.strftime("%m-%d %H:%M:%S", time.localtime(now - 93_600)) in text
        await driven.press("ampersand")
        await driven.type("since<10m")
        await driven.press("enter")
        await driven.until("filter: since<10m")
        assert "1 of 1 line\n" in driven.text, "it is new by the robot's clock"
        await driven.type("&since<10m robot=arm001\r")
        await driven.until("filter: since<10m robot=arm001")
        assert "1 of 1 line\n" in driven.text
        await driven.press("escape")
        await driven.type("pp")
        await driven.until(lambda: len(asked) == 2)
        # By the server's clock: the robot's is a day behind.
        assert asked[1].since is not None and now - 60 < asked[1].since <= now
        assert " 1 line\n" in driven.text


async def test_logs_take_the_same_filters(tmp_path: Path) -> None:
    fleet = FakeFleet(1)
    fleet.lines = [line("one"), line("two", level="error"), line("three", node="arm")]
    async with console(tmp_path, fleet, start="logs pick", shows="three") as driven:
        await driven.press("ampersand")
        await driven.type("level=error")
        await driven.press("enter")
        shown = ("one", "two", "three")
        await driven.until(lambda: [word for word in shown if word in driven.text] == ["two"])


def numbered(count: int, begin: float = 0.0) -> list[LogRecord]:
    """Return lines a second apart, the last one now."""
    begin = begin or time.time() - count
    return [line(f"line {n:04}", at=begin + n) for n in range(count)]


async def test_older_lines_are_read_as_long_as_there_are_some(tmp_path: Path) -> None:
    fleet = FakeFleet(1)
    fleet.lines = numbered(2_500)
    async with console(tmp_path, fleet, start=START, shows="1000 lines") as driven:
        await driven.press("home")
        await driven.until("line 1500")
        for lines, first in ((1999, "line 1500"), (2500, "line 0501")):
            await driven.press("up")
            text = await driven.until(f"{lines} lines")
            assert first in text, "the place is kept"
            await driven.press("home")
        text = await driven.until("line 0000")
        assert "the first line" in text
        await driven.press("up", "end")
        await driven.until("line 2499")
        assert len(fleet.log_reads) == 3


@pytest.mark.parametrize("keys", ["home up", ": a t space 1 0 m enter"])
async def test_lines_that_come_once_the_screen_is_closed_are_of_no_use(
    tmp_path: Path, keys: str
) -> None:
    fleet = FakeFleet(1)
    asked, go, answered = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def read(_call: object, params: m.LogRead) -> AsyncIterator[m.LogLines]:
        if params.follow:
            yield m.LogLines(dataflow="pick", lines=numbered(100))
            await asyncio.Event().wait()
        asked.set()
        await go.wait()
        yield m.LogLines(dataflow="pick", lines=numbered(10, time.time() - 600))
        answered.set()

    fleet.read_logs = read
    async with console(tmp_path, fleet, start=START, shows="100 lines") as driven:
        await driven.press(*keys.split())
        await driven.until(asked.is_set)
        await driven.press("escape")
        await driven.until(lambda: "Logs >" not in driven.text)
        go.set()
        await driven.until(answered.is_set)
        await driven.until(lambda: len(driven.app._tasks) == 1)
        await driven.press("question_mark")
        await driven.until("Help")


async def test_a_search_before_the_first_line_finds_nothing(tmp_path: Path) -> None:
    fleet = FakeFleet(1)
    async with console(tmp_path, fleet, start=START, shows="Logs > ") as driven:
        await driven.type("/line\r")
        await driven.until("no line here has `line`")
        await driven.press("n", "N")
        fleet.lines = numbered(3)
        fleet.bell.ring()
        await driven.until("3 lines")


async def test_the_window_is_bounded_and_its_newer_lines_are_read_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (keptlines, logwindow, lines):
        monkeypatch.setattr(module, "MAX_LINES", 1500)
    fleet = FakeFleet(1)
    fleet.lines = numbered(4_000)
    async with console(tmp_path, fleet, start=START, shows="1000 lines") as driven:
        await driven.press("home", "up")
        await driven.until("1500 lines")
        await driven.press("home", "up")
        await driven.until("not the last lines (end shows them)")
        await driven.press("home")
        await driven.until("line 1002")
        fleet.lines += [line("one more")]
        fleet.bell.ring()
        await driven.until("1 newer line (end shows them)")
        view = driven.app.screen.query_one(LogView)
        view.go(len(view.items) - 1)
        await driven.press("down")
        await driven.until(lambda: view.items[-1].record.message == "line 3500")
        assert len(view.items) == 1500
        await driven.press("end")
        await driven.until("one more")


async def test_a_search_marks_its_text_and_finds_it_in_older_lines_too(tmp_path: Path) -> None:
    fleet = FakeFleet(1)
    fleet.lines = numbered(2_500)
    for at in (100, 1_600, 1_700):
        fleet.lines[at] = line(f"Motor {at} is hot", at=fleet.lines[at].timestamp)
    async with console(tmp_path, fleet, start=START, shows="1000 lines") as driven:
        await driven.type("/MOTOR\r")
        await driven.until("Motor 1700 is hot")
        view = driven.app.screen.query_one(LogView)
        shown = [style for _, style in loglines.spans(view.cursor, driven.app.screen._look)]
        assert "found" in shown
        assert "line 1699" in driven.text, "the other lines stay"
        await driven.type("N")
        await driven.until("Motor 1600 is hot")
        await driven.type("N")
        await driven.until("Motor 100 is hot")
        await driven.type("N")
        await driven.until("no earlier line has `motor`")
        await driven.type("n")
        await driven.until(lambda: view.cursor.record.message == "Motor 1600 is hot")
        assert view.cursor.record.message == "Motor 1600 is hot"


async def test_a_search_that_is_given_up_goes_back_to_its_place(tmp_path: Path) -> None:
    fleet = FakeFleet(1)
    fleet.lines = numbered(200)
    async with console(tmp_path, fleet, start=START, shows="200 lines") as driven:
        view = driven.app.screen.query_one(LogView)
        await driven.press("up", "up")
        await driven.until(lambda: view.cursor.record.message == "line 0197")
        await driven.type("/line 0003")
        await driven.until(lambda: view.cursor.record.message == "line 0003")
        await driven.press("escape")
        await driven.until(lambda: view.cursor.record.message == "line 0197")


async def test_a_filter_keeps_the_place(tmp_path: Path) -> None:
    fleet = FakeFleet(1)
    fleet.lines = numbered(200)
    async with console(tmp_path, fleet, start=START, shows="200 lines") as driven:
        view = driven.app.screen.query_one(LogView)
        await driven.type("/line 0050\r")
        await driven.until(lambda: view.cursor.record.message == "line 0050")
        await driven.type("&message~0$\r")
        await driven.until("20 of 200 lines")
        assert view.cursor.record.message == "line 0050"
        await driven.type("&message~[16]0$\r")
        await driven.until(lambda: view.cursor.record.message == "line 0060")
        await driven.press("escape", "escape")
        await driven.until("200 lines")
        assert view.cursor.record.message == "line 0060"


async def test_at_goes_to_a_time_that_is_kept_or_stored(tmp_path: Path) -> None:
    fleet = FakeFleet(1)
    fleet.lines = numbered(7_000)
    async with console(tmp_path, fleet, start=START, shows="1000 lines") as driven:
        view = driven.app.screen.query_one(LogView)
        for ago in (600, 6_000):
            at = time.localtime(fleet.lines[7_000 - ago].timestamp + 0.999)
            await driven.type(time.strftime(":at %m-%d %H:%M:%S\r", at))
            wanted = (
                f"line {7_000 - ago:04}",
                f"line {7_000 - ago - 1:04}",
                f"line {7_001 - ago:04}",
            )
            await driven.until(lambda wanted=wanted: view.cursor.record.message in wanted)
        await driven.until("not the last lines (end shows them)")
        await driven.press("end")
        await driven.until("line 6999")
        await driven.type(":at noon\r")
        await driven.until("name a time: `at 10:42`")


async def test_lines_that_repeat_are_one_with_their_number(tmp_path: Path) -> None:
    fleet = FakeFleet(1)
    fleet.lines = [line("no frame")] * 14 + [line("a frame"), line("no frame")]
    async with console(tmp_path, fleet, start=START) as driven:
        text = await driven.until("16 lines")
        assert re.search(r"no frame  \(x14, until \d\d:\d\d:\d\d\)", text)
        assert text.count("no frame") == 2
        fleet.lines += [line("no frame")]
        fleet.bell.ring()
        await driven.until("no frame  (x2,")


async def test_a_line_is_shown_in_full_with_its_fields_marked_and_copied(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fleet = FakeFleet(1)
    record = msgspec.structs.replace(
        line("grasp failed"), fields={"force": 12.5, "grip": {"width": 3}}, file="arm.py", line=42
    )
    fleet.lines = [line("before"), record, line('{"joint": 7}')]
    async with console(tmp_path, fleet, start=START, shows="grasp failed") as driven:
        copied: list[str] = []
        monkeypatch.setattr(driven.app, "copy_to_clipboard", copied.append)
        await driven.press("enter")
        await driven.until("joint 7")
        await driven.press("up")
        text = await driven.until("arm.py:42")
        assert "force 12.5" in text and 'grip  {"width":3}' in text
        await driven.press("enter")
        await driven.until(lambda: "arm.py:42" not in driven.text)
        await driven.press("c")
        await driven.until("offered to the clipboard: 1 line")
        await driven.press("space", "up", "space", "c")
        await driven.until("offered to the clipboard: 2 lines")
        assert copied == ["grasp failed", "before\ngrasp failed"]


async def test_nodes_are_side_by_side_in_the_order_of_time(tmp_path: Path) -> None:
    fleet = FakeFleet(1)
    fleet.lines = [line("of camera"), line("of arm", node="arm"), line("no", node="other")]
    async with console(tmp_path, fleet, start="logs pick camera arm") as driven:
        text = await driven.until("of arm")
        first, second = (row for row in text.splitlines() if " of " in row and ":" in row)
        assert second.index("of arm") > first.index("of camera") + 30
        assert "other" not in text
        await driven.press("s")
        text = await driven.until("arm    of arm")
        assert "camera of camera" in text


def test_errors_and_tracebacks_stand_out_and_stderr_alone_does_not() -> None:
    def raw(text: str, node: str = "cam") -> LogRecord:
        return LogRecord(1.0, "stdout", node, text, "stderr")

    texts = (
        ("starting", False),
        ("Traceback (most recent call last):", True),
        ('  File "cam.py", line 3, in <module>', True),
        ("    import cv2", True),
        ("ModuleNotFoundError: No module named 'cv2'", True),
        ("bye", False),
        ("[ERROR] no frame", True),
    )
    window = logwindow.LogWindow()
    mixed = [each for text, _ in texts for each in (raw(text), raw("fine", "arm"))]
    entries = window.add(mixed)
    assert [each.failed for each in entries[::2]] == [failed for _, failed in texts]
    assert not any(each.failed for each in entries[1::2])
    look = loglines.LineLook(names=4)
    assert {style for _, style in loglines.spans(entries[0], look)} == {"dim", "name", ""}
    assert loglines.spans(entries[4], look)[-1][1] == "fail"


@given(st.lists(st.sampled_from("abc"), max_size=60), st.integers(1, 20))
def test_a_window_counts_all_lines_that_it_keeps(texts: list[str], limit: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(logwindow, "MAX_LINES", limit)
        window = logwindow.LogWindow()
        records = [line(text, at=float(at + 1)) for at, text in enumerate(texts)]
        half = len(records) // 2
        window.add(records[half:])
        window.add_before(window.unknown(records[:half]))
        assert len(window.entries) <= limit
        assert window.lines == sum(each.count for each in window.entries)


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("10:42", "2026-12-01 10:42:00"),
        ("13:00", "2026-11-30 13:00:00"),
        ("10:42:05", "2026-12-01 10:42:05"),
        ("11-30 23:59", "2026-11-30 23:59:00"),
        ("12-24 18:00", "2025-12-24 18:00:00"),
        ("2026-02-29 10:00", None),
        ("25:00", None),
        ("10m", "2026-12-01 12:20:00"),
        ("noon", None),
    ],
)
def test_a_time_after_at_is_the_last_one_of_that_name(text: str, wanted: str | None) -> None:
    now = time.mktime(time.strptime("2026-12-01 12:30:00", "%Y-%m-%d %H:%M:%S"))
    moment = logwindow.moment_of(text, now)
    shown = moment and time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(moment))
    assert shown == wanted

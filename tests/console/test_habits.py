"""What operators expect of any program on a terminal: search, themes, the mouse, the cursor."""

from __future__ import annotations

import os
import pty
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dorad.control.messages import InterfaceRates, NodeInfo, NodeMetrics
from dorad.logrecord import LogRecord
from dorafleet.console.terminal import LIGHT, QUESTIONS, answers_in, ask
from dorafleet.console.themes import NAMES
from dorafleet.console.view import bars, tables
from dorafleet.console.view.rows import plain
from dorafleet.console.widgets.grid import Grid
from dorafleet.console.widgets.lines import Painted

from .driving import Driven, console
from .fakefleet import FakeFleet

LIGHT_ANSWER = b"\x1b]11;rgb:ffff/fafa/f0f0\x1b\\"
DARK_ANSWER = b"\x1b]11;rgb:0d/11/17\x07"
PLACE = b"\x1b[12;1R"


async def test_help_can_be_searched(tmp_path: Path) -> None:
    async with console(tmp_path, FakeFleet(1), start="help", shows="move; ctrl+b") as driven:
        await driven.press("slash")
        await driven.type("undo")
        text = await driven.until(lambda: "move; ctrl+b" not in driven.text)
        assert "Undo the rollout" in text and "Actions, after a" in text
        assert "Screens, after :" not in text
        await driven.press("enter", "escape")
        await driven.until("move; ctrl+b")
        await driven.enter("slash", "no such thing")
        await driven.until("no line matches the filter")


async def test_the_theme_is_changed_while_it_runs_and_completed(tmp_path: Path) -> None:
    async with console(tmp_path, FakeFleet(3), shows="3 of 3") as driven:
        for name in ("light", "mono", "dark"):
            await driven.press("colon")
            await driven.type("the")
            await driven.press("tab")
            await driven.type(name[:2])
            await driven.press("tab", "enter")
            await driven.until(lambda: driven.app.theme == f"console-{name}")  # noqa: B023
            assert Painted.palette.theme == driven.app.options.theme == name
            await driven.until("3 of 3")
        await driven.enter("colon", "theme pink")
        await driven.until(f"name a theme: {' '.join(NAMES)}")
        assert driven.app.theme == "console-dark"


@pytest.mark.parametrize(
    ("data", "light"), [(LIGHT_ANSWER, True), (DARK_ANSWER, False), (b"", None)]
)
def test_a_terminal_tells_its_background_and_no_key_is_lost(
    data: bytes, light: bool | None
) -> None:
    answers = answers_in(b"ab" + data + b"c" + PLACE + b"\x1b[B")
    assert answers.complete and answers.typed == b"abc\x1b[B"
    assert (answers.brightness is None) == (light is None)
    assert light is None or (answers.brightness >= LIGHT) == light


@given(st.binary(max_size=60), st.sampled_from([LIGHT_ANSWER, DARK_ANSWER, b""]))
def test_whatever_a_terminal_sends_is_an_answer_or_typed(data: bytes, colour: bytes) -> None:
    answers = answers_in(data)
    assert len(answers.typed) <= len(data)
    assert answers.brightness is None or 0.0 <= answers.brightness <= 1.0
    assert answers_in(colour + data + PLACE).complete


@pytest.mark.parametrize("answer", [LIGHT_ANSWER + PLACE, b""])
def test_a_terminal_is_asked_in_its_own_time_and_left_as_it_was(answer: bytes) -> None:
    import termios

    ours, theirs = pty.openpty()
    before = termios.tcgetattr(theirs)

    def terminal() -> None:
        seen = b""
        while not seen.endswith(QUESTIONS):
            seen += os.read(ours, 100)
        for byte in b"q" + answer:
            os.write(ours, bytes([byte]))

    thread = threading.Thread(target=terminal)
    thread.start()
    try:
        answers = ask(theirs, theirs, 10.0 if answer else 0.1)
        thread.join()
        assert answers.complete == bool(answer)
        if answer:
            assert answers.typed == b"q" and answers.brightness > LIGHT
        assert termios.tcgetattr(theirs) == before
    finally:
        os.close(ours)
        os.close(theirs)


def cursor_line(driven: Driven) -> str:
    return driven.text.splitlines()[driven.app.cursor_position.y]


async def test_the_terminals_cursor_stands_on_the_row_for_screen_readers(tmp_path: Path) -> None:
    fleet = FakeFleet(30)
    fleet.lines = [
        LogRecord(timestamp=float(at), level="info", node="cam", message=f"line {at}")
        for at in range(5)
    ]
    async with console(tmp_path, fleet, shows="30 of 30") as driven:
        await driven.until(lambda: cursor_line(driven).startswith("> + OK      arm001"))
        await driven.press("down", "down")
        await driven.until(lambda: cursor_line(driven).startswith("> + OK      arm003"))
        await driven.press("end")
        await driven.until(lambda: "arm030" in cursor_line(driven))
        driven.app.go_to("logs pick")
        await driven.until("line 4")
        await driven.press("home")
        await driven.until(lambda: "line 0" in cursor_line(driven))


def test_a_click_on_the_last_line_is_on_the_key_that_it_shows() -> None:
    keys = [("enter", "open"), ("/", "filter"), ("?", "all keys")]
    shown = plain(bars.key_line(keys, 80))
    assert shown == " enter open  / filter  ? all keys  "
    assert [bars.key_at(keys, 80, shown.index(text)) for text in ("enter", "ilter", "all")] == [
        *("enter", "/", "?")
    ]
    assert (
        bars.key_at(keys, 80, 0) is bars.key_at(keys, 80, 11) is bars.key_at(keys, 80, 79) is None
    )
    assert bars.key_at(keys, 26, plain(bars.key_line(keys, 26)).index("?")) == "?"


async def test_the_keys_of_the_last_line_can_be_clicked(tmp_path: Path) -> None:
    async with console(tmp_path, FakeFleet(3)) as driven:
        text = await driven.until("3 of 3")
        line = text.splitlines()[-1]
        await driven.pilot.click("#keys", offset=(line.index("/ filter"), 0))
        await driven.until("filter: ")
        await driven.until("esc cancel")
        line = driven.text.splitlines()[-1]
        await driven.pilot.click("#keys", offset=(line.index("esc"), 0))
        await driven.until("? all keys")
        line = driven.text.splitlines()[-1]
        await driven.pilot.click("#keys", offset=(line.index("all keys"), 0))
        await driven.until("move; ctrl+b")


async def test_a_click_on_a_heading_orders_by_its_column(tmp_path: Path) -> None:
    fleet = FakeFleet(3)
    fleet.put("arm002", cpu=90.0)
    async with console(tmp_path, fleet, shows="3 of 3") as driven:
        grid = driven.app.screen.query_one("#robots", Grid)

        async def click(title: str) -> None:
            heading = next(line for line in driven.text.splitlines() if "ROBOT" in line)
            await driven.pilot.click("#robots", offset=(heading.index(title), 0))

        await click("CPU")
        await driven.until("order: cpu")
        assert list(grid.ids) == ["arm002", "arm001", "arm003"]
        await click("ROBOT")
        await driven.until("order: name")
        assert list(grid.ids) == ["arm001", "arm002", "arm003"]
        await click("WHY")
        await driven.until("cannot be ordered by this column; by worst, name, newest")


def test_top_shows_disk_network_and_interfaces() -> None:
    used = NodeMetrics(disk_read=1.0, disk_write=2e6, net_tx=30e3, net_rx=4.0, net_known=True)
    row = tables.node_row(NodeInfo("u", "pick", "cam", "running", 7, 0, used))
    shown = {column.title: cell.text for column, cell in zip(tables.NODES, row.cells, strict=True)}
    assert shown["DISK R/W B/s"] == "1/2.0M"
    assert shown["NET TX/RX B/s"] == "30.0k/4"
    interfaces = [
        InterfaceRates(name="lo", received=1.0, sent=1.0, dropped=0.0),
        InterfaceRates(name="eth0", received=5e6, sent=2e3, dropped=3.0, machine="arm1"),
    ]
    (line,) = tables.interface_lines(interfaces)
    assert plain(line) == " NET RX/TX B/s  arm1 eth0 5.0M/2000 drops 3.0/s  lo 1/1"
    assert tables.interface_lines([]) == []

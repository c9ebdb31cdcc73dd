"""Moving in what is longer or wider than the screen: by keys, and by the mouse."""

from pathlib import Path

from textual.events import MouseScrollDown, MouseScrollUp

from dorafleet.console.widgets.grid import Grid
from dorafleet.console.widgets.lines import LogView

from .driving import Driven, console
from .fakefleet import FakeFleet, line


def turn(driven: Driven, kind: type[MouseScrollDown | MouseScrollUp]) -> None:
    """Turn the wheel by one notch over the middle of the terminal."""
    driven.app.post_message(kind(None, 50, 15, 0, 0, 0, False, False, False))


async def test_tables_and_texts_scroll_to_their_last_line_and_back(tmp_path: Path) -> None:
    async with console(tmp_path, FakeFleet(100), shows="100 of 100") as driven:
        await driven.press("end")
        text = await driven.until("> + OK      arm100")
        assert "↑ + OK      arm0" in text and " arm001 " not in text
        await driven.press("pageup", "up", "home")
        await driven.until("> + OK      arm001")
        await driven.press("question_mark")
        await driven.until("more lines, arrows scroll")
        await driven.press("down", "pagedown")
        await driven.until(lambda: "PgUp" not in driven.text)
        await driven.press("end")
        text = await driven.until("STALE")
        assert "more lines" not in text


async def test_a_wide_drawing_scrolls_to_the_node_that_the_cursor_goes_to(tmp_path: Path) -> None:
    fleet = FakeFleet(1, nodes=5)
    async with console(tmp_path, fleet, start="graph pick", shows="left right follow") as driven:
        assert "node04 │" not in driven.text
        await driven.press(*["right"] * 5)
        await driven.until("│ >node04 │")
        await driven.press(*["left"] * 5)
        await driven.until("│ >node00 │")


async def test_the_wheel_moves_in_tables_logs_and_help(tmp_path: Path) -> None:
    fleet = FakeFleet(100)
    fleet.lines = [line(f"line {n}") for n in range(100)]
    async with console(tmp_path, fleet, shows="100 of 100") as driven:
        grid = driven.app.screen.query_one("#robots", Grid)
        turn(driven, MouseScrollDown)
        await driven.until(lambda: grid.cursor == "arm004")
        turn(driven, MouseScrollUp)
        await driven.until(lambda: grid.cursor == "arm001")
        driven.app.go_to("logs pick")
        await driven.until("line 99")
        turn(driven, MouseScrollUp)
        await driven.until("scrolled up")
        turn(driven, MouseScrollDown)
        await driven.until(lambda: driven.app.screen.query_one(LogView).following)
        driven.app.go_to("help")
        before = await driven.until("arrows scroll")
        turn(driven, MouseScrollDown)
        await driven.until(lambda: driven.text != before and "PgUp" not in driven.text)


async def test_a_click_chooses_a_row_and_a_second_one_opens_it(tmp_path: Path) -> None:
    async with console(tmp_path, FakeFleet(5), shows="5 of 5") as driven:
        grid = driven.app.screen.query_one("#robots", Grid)
        await driven.pilot.click("#robots", offset=(20, 3))
        await driven.until(lambda: grid.cursor == "arm003")
        await driven.pilot.click("#robots", offset=(20, 3), times=2)
        await driven.until("Fleet > arm003")

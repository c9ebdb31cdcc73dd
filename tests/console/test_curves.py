"""The last ten minutes, as columns, as a line about the row under the cursor, and as a drawing."""

import time
from pathlib import Path

import pytest

from dorad.control import messages as m
from dorafleet.console.view import tables
from dorafleet.console.view.rows import fitted
from dorafleet.console.widgets.grid import Grid

from .driving import console
from .fakefleet import FakeFleet, edge

RISING: list[float | None] = [None] * 12 + [1.0] * 8 + [10.0] * 4
"""Bars of half a width: nothing, then low ones, then high ones."""
DRAWN = " " * 6 + "\u2582" * 4 + "\u2588" * 2


def robot_curves() -> m.RobotCurves:
    return m.RobotCurves(
        cpu=RISING, rate=RISING, drop_rate=[0.0] * 24,
        latency_p99=[None if each is None else each / 100 for each in RISING],
    )  # fmt: skip


def ten_minutes(robot: str | None = None) -> m.History:
    """Return curves that rise at their end."""
    return m.History(
        at=time.time(),
        step=25.0,
        nodes=[m.NodeCurves("1", "node00", RISING, RISING, machine=robot)],
        edges=[
            m.EdgeCurves(
                "1", "node00/out", "node01/in", RISING, [0.0] * 24,
                [None if each is None else each / 1e3 for each in RISING],
                [None if each is None else each / 1e2 for each in RISING],
                machine=robot,
            )
        ],
    )  # fmt: skip


def flow_of_two() -> FakeFleet:
    fleet = FakeFleet(2, nodes=2)
    fleet.edges = [edge("arm001", "node00/out", "node01/in", dataflow_name="pick")]
    fleet.histories["arm001/pick"] = ten_minutes()
    fleet.robot_histories = {"arm001": robot_curves()}
    return fleet


async def test_the_last_ten_minutes_are_there_when_the_console_starts(tmp_path: Path) -> None:
    async with console(tmp_path, flow_of_two(), size=(100, 40)) as driven:
        text = await driven.until(" arm001 10 min  cpu ")
        assert "\u2582\u2582" in text and "\u2588 10%" in text
        assert "rate" in text and "10.0/s" in text and "100.0ms" in text
        await driven.press("enter")
        text = await driven.until(" node00 10 min  cpu ")
        assert "memory" in text
        await driven.press("tab")
        await driven.until(" node01/in 10 min  rate ")
        assert "t curves" in driven.text
        await driven.press("t")
        text = await driven.until("p99 ms 100")
        assert "p50 ms 10" in text and "messages/s 10" in text and "last 575 s" in text
        assert "arm001/pick > node00/out -> node01/in" in text


async def test_wide_tables_have_them_as_columns(tmp_path: Path) -> None:
    async with console(tmp_path, flow_of_two(), size=(200, 40)) as driven:
        await driven.until(DRAWN)
        robots = driven.app.screen.query_one("#robots", Grid)
        titles, first, second = robots.as_text()
        places = {each: titles.index(each) for each in ("CPU 10 MIN", "P99 10 MIN", "RATE 10 MIN")}
        for at in places.values():
            assert first[at : at + len(DRAWN)] == DRAWN, first
            # No curves have come of this one: nothing is shown, and no zero.
            assert second[at : at + len(DRAWN)].strip() == ""
        await driven.press("enter")
        await driven.until(lambda: DRAWN in "\n".join(tables_of(driven.app.screen, "#edges")))
        await driven.until(lambda: DRAWN in "\n".join(tables_of(driven.app.screen, "#nodes")))
        assert "P99 10 MIN" in driven.text


def tables_of(screen: object, name: str) -> list[str]:
    assert hasattr(screen, "query_one")
    text: list[str] = screen.query_one(name, Grid).as_text()
    return text


@pytest.mark.parametrize("wide", range(40, 300))
def test_columns_of_bars_leave_room_for_the_reason_of_a_failure(wide: int) -> None:
    columns = (*tables.FLEET, *tables.FLEET_CURVES)
    shown = {each.column.key: each.wide for each in fitted(columns, wide, ("release",))}
    without = {each.column.key: each.wide for each in fitted(tables.FLEET, wide, ("release",))}
    bars = shown.keys() & set(tables.CURVES)
    assert shown.keys() - bars == without.keys()
    if bars:
        assert shown["why"] >= 32
    # The most important ones come first.
    assert list(tables.CURVES[: len(bars)]) == [each for each in tables.CURVES if each in bars]


async def test_only_robots_on_the_screen_are_asked_for(tmp_path: Path) -> None:
    fleet = FakeFleet(200)
    async with console(tmp_path, fleet, size=(200, 20), shows="200 of 200") as driven:
        await driven.until(lambda: len(fleet.histories_asked) > 0)
        await driven.press("end")
        await driven.until(lambda: "arm200" in asked(fleet)[-1])
        assert all(len(each) <= 20 for each in asked(fleet))
    narrow = FakeFleet(200)
    async with console(tmp_path, narrow, size=(80, 20)) as driven:
        await driven.until(lambda: len(narrow.histories_asked) > 0)
        assert asked(narrow)[-1] == ["arm001"], "only the one under the cursor"


def asked(fleet: FakeFleet) -> list[list[str]]:
    return [each.robots for each in fleet.histories_asked if isinstance(each, m.RobotHistoryQuery)]


async def test_many_dataflows_at_once_have_no_columns(tmp_path: Path) -> None:
    """Their curves would be read for a few of the rows, at a high price."""
    fleet = FakeFleet(30, nodes=2)
    async with console(tmp_path, fleet, size=(200, 40), start="top") as driven:
        await driven.until("60 of 60 nodes")
        await driven.until(lambda: len(fleet.histories_asked) > 0)
        assert "10 MIN" not in driven.text
        assert {
            each.dataflow for each in fleet.histories_asked if isinstance(each, m.TopHistory)
        } <= {"arm001/pick"}


async def test_a_server_that_keeps_no_curves_is_not_asked_again(tmp_path: Path) -> None:
    fleet = FakeFleet(2, nodes=2)
    fleet.without = ("top.history", "robot.history")
    async with console(tmp_path, fleet, size=(200, 40)) as driven:
        await driven.until(lambda: "robot.history" in driven.app.server.missing)
        await driven.until(lambda: "10 MIN" not in driven.text)
        assert "10 min" not in driven.text
        await driven.press("enter")
        await driven.until(lambda: "top.history" in driven.app.server.missing)

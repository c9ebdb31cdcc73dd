"""Keys and the mouse in dialogs."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from dorad.control import messages as m
from dorafleet.console.widgets.ask import Ask
from dorafleet.console.widgets.confirm import Choose, Confirm, Option

from .driving import Driven, console
from .fakefleet import FakeFleet

SET = m.ParamSet(node="planner", key="speed", value=0.5, dataflow="arm001/pick")


@asynccontextmanager
async def asking(folder: Path, fleet: FakeFleet) -> AsyncIterator[Driven]:
    """Run a console on a parameter, with the list of actions open."""
    fleet.params = {"arm001/pick": [m.Param(key="speed", value=0.5)]}
    async with console(folder, fleet, start="params arm001/pick planner", shows="1 of 1") as driven:
        await driven.press("a")
        await driven.until("Set the value")
        yield driven


@pytest.mark.parametrize("dialog", ["choose", "ask", "confirm", "prompt"])
async def test_ctrl_c_ends_the_console_wherever_one_is(tmp_path: Path, dialog: str) -> None:
    fleet = FakeFleet(1)
    async with asking(tmp_path, fleet) as driven:
        if dialog == "prompt":
            await driven.press("escape", "slash")
            await driven.type("speed")
            await driven.until("filter:")
        if dialog in ("ask", "confirm"):
            await driven.press("v")
            await driven.until("enter continues")
        if dialog == "confirm":
            await driven.press("enter")
            await driven.until(lambda: isinstance(driven.app.screen, Confirm))
        assert driven.app.return_code is None
        await driven.press("ctrl+c")
        await driven.until(lambda: driven.app.return_code == 0)
    assert fleet.changes == []


async def test_dialogs_are_answered_with_the_mouse_and_a_click_beside_them_does_nothing(
    tmp_path: Path,
) -> None:
    fleet = FakeFleet(1)
    async with asking(tmp_path, fleet) as driven:
        pilot = driven.pilot
        await pilot.click(offset=(1, 1))
        assert isinstance(driven.app.screen, Choose)
        await pilot.click(driven.app.screen.query(Option).first())
        await driven.until(lambda: isinstance(driven.app.screen, Ask))
        await pilot.click(offset=(1, 1))
        await driven.press("enter")  # the input has the keys still
        await driven.until(lambda: isinstance(driven.app.screen, Confirm))
        dialog = driven.app.screen
        assert isinstance(dialog, Confirm)
        await driven.until(lambda: dialog.readable)
        await pilot.click(offset=(1, 1))
        await driven.until("Set the value of the parameter?")
        await pilot.click("#go")
        await driven.until(": done")
        assert fleet.changes == [("param.set", SET)]


async def test_ctrl_z_stops_the_console_in_a_dialog_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stopped: list[type] = []
    async with asking(tmp_path, FakeFleet(1)) as driven:
        app = driven.app
        monkeypatch.setattr(app, "action_suspend_process", lambda: stopped.append(type(app.screen)))
        for key, kind in (("v", Choose), ("enter", Ask), ("escape", Confirm)):
            await driven.until(lambda kind=kind: isinstance(app.screen, kind))
            await driven.press("ctrl+z", key)
        await driven.until("nothing was changed")
    assert stopped == [Choose, Ask, Confirm]

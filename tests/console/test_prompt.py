"""What is typed on a screen: filters, screens to go to, programs."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from textual.events import Key

from dorafleet.console.options import Options

from .driving import DEADLINE_S, console
from .fakefleet import FakeFleet

if TYPE_CHECKING:
    from pathlib import Path


async def test_a_filter_is_applied_while_it_is_typed_and_kept(tmp_path: Path) -> None:
    async with console(tmp_path, FakeFleet()) as driven:
        await driven.until("500 of 500")
        await driven.press("slash")
        await driven.type("zone=hall arm01")
        await driven.press("enter")
        text = await driven.until("5 of 500")
        assert "filter: zone=hall arm01" in text
        await driven.press("enter")
        await driven.until("Fleet > arm011")
        await driven.press("escape")
        await driven.until("5 of 500")
        await driven.press("escape")
        await driven.until("500 of 500")


async def test_a_wrong_filter_is_explained(tmp_path: Path) -> None:
    async with console(tmp_path, FakeFleet(3)) as driven:
        await driven.until("3 of 3")
        await driven.press("slash")
        await driven.type("colour=red")
        await driven.press("enter")
        text = await driven.until("there is no column `colour`; there are state, robot")
        assert "filter:" not in text and "3 of 3" in text, "its beginning was one while typing"


async def test_a_filter_that_is_given_up_leaves_the_one_before(tmp_path: Path) -> None:
    async with console(tmp_path, FakeFleet(4)) as driven:
        await driven.until("4 of 4")
        await driven.press("slash")
        await driven.type("zone=hall")
        await driven.press("enter")
        await driven.until("filter: zone=hall")
        await driven.press("slash")
        await driven.type(" arm003")
        await driven.until("1 of 4")
        await driven.press("escape")
        text = await driven.until("2 of 4")
        assert "filter: zone=hall " in text


async def test_an_unknown_screen_is_explained(tmp_path: Path) -> None:
    async with console(tmp_path, FakeFleet(1)) as driven:
        await driven.until("1 of 1")
        await driven.press("colon")
        await driven.type("flet")
        await driven.press("enter")
        await driven.until("there is no screen `flet`; did you mean")


async def test_the_prompt_says_what_is_typed_and_which_keys_end_it(tmp_path: Path) -> None:
    async with console(tmp_path, FakeFleet(4)) as driven:
        await driven.until("4 of 4")
        for key, label, enter in (
            ("slash", "filter:", "enter keep the filter"),
            ("colon", "go to:", "enter go "),
            ("vertical_line", "pipe into:", "enter run"),
        ):
            await driven.press(key)
            text = await driven.until(label)
            assert enter in text and "esc cancel" in text and "a actions" not in text
            await driven.press("escape")
            await driven.until(lambda label=label: label not in driven.text)


async def test_what_is_typed_right_after_the_key_goes_to_the_prompt(tmp_path: Path) -> None:
    async with console(tmp_path, FakeFleet(4)) as driven:
        await driven.until("4 of 4")
        for text, shown in (
            ("/arm003", "filter: arm003"),
            (":al", "go to: al"),
            ("|x", "pipe into: x"),
        ):
            await driven.type(text)
            await driven.until(shown)
            await driven.press("escape")
            await driven.until("4 of 4")


async def test_keys_that_are_typed_ahead_reach_the_screens_that_they_open(tmp_path: Path) -> None:
    async with console(tmp_path, FakeFleet(4)) as driven:
        await driven.until("4 of 4")  # enter opens a row, so it has to be there
        # A filter, its robot, and the topic of its dataflow.
        await driven.type("/arm003\r\r:topic pick camera/image echo\rv?")
        await driven.until("Keys")
        await driven.press("escape")
        await driven.until("view: plot")
        await driven.press("escape")
        await driven.until("Fleet > arm003")
        await driven.press("escape")
        await driven.until("filter: arm003")


async def test_esc_and_the_next_key_are_two_keys_also_if_they_come_as_one(tmp_path: Path) -> None:
    fleet = FakeFleet(4)
    async with console(tmp_path, fleet) as driven:
        await driven.until("4 of 4")
        await driven.type("/arm003\r")
        await driven.until("1 of 4")
        driven.app.post_message(Key("alt+t", "t"))
        await driven.until("Top > arm001")
        driven.app.post_message(Key("alt+o", "o"))
        await driven.until("order: name   4 of 4")


async def test_a_prompt_that_is_left_by_a_click_is_given_up(tmp_path: Path) -> None:
    async with console(tmp_path, FakeFleet(4)) as driven:
        await driven.until("4 of 4")
        await driven.type("/zone=hall")
        await driven.until("2 of 4")
        await driven.press("tab")
        assert "filter: zone=hall" in driven.text
        await driven.pilot.click("#robots", offset=(5, 2))
        text = await driven.until("4 of 4")
        assert "a actions" in text and "> + OK      arm002" in text


async def test_while_something_is_typed_a_screen_does_not_offer_its_own_keys(
    tmp_path: Path,
) -> None:
    start = Options(start="topic pick camera/image")
    async with console(tmp_path, FakeFleet(4), options=start) as driven:
        await driven.until("v view")
        await driven.type(":")
        await driven.until("go to:")
        assert "v view" not in driven.text


async def test_keys_about_rows_wait_until_there_are_some(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A busy machine may need longer to type four keys than a person waits for rows.
    monkeypatch.setattr("dorafleet.console.app.ROWS_S", DEADLINE_S)
    fleet = FakeFleet(3, nodes=2)
    fleet.answers.clear()
    async with console(tmp_path, fleet) as driven:
        await driven.until("asking the server")
        await driven.press("down", "enter", "down", "a")
        assert driven.app.screen.NAME == "fleet"
        fleet.answers.set()
        # The second robot, and its second node.
        await driven.until("Actions for arm002/pick/node01")
        assert "Fleet > arm002" in driven.text
        assert fleet.changes == []


@pytest.mark.parametrize("place", ["fleet", "top"])
async def test_keys_about_rows_that_do_not_come_are_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    monkeypatch.setattr("dorafleet.console.app.ROWS_S", 0.3)
    fleet = FakeFleet(3)
    fleet.answers.clear()
    async with console(tmp_path, fleet, options=Options(start=place)) as driven:
        await driven.until("asking the server")
        await driven.press("enter")
        await driven.until("there are no rows yet: `enter` was left out")
        fleet.answers.set()
        await driven.until("arm001")
        await driven.press("question_mark")
        await driven.until("Keys")
        assert [screen.NAME for screen in driven.app.screen_stack[-2:]] == [place, "help"]

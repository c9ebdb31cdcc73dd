"""What is typed on a screen: filters, screens to go to, programs."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from textual.events import Key

from dorafleet.console.driver import KeyParser
from dorafleet.console.model.pace import KEYS_S, MAX_PASTED, TypingPace
from dorafleet.console.widgets.prompt import Prompt

from .driving import DEADLINE_S, console
from .fakefleet import FakeFleet


async def test_a_filter_is_applied_while_it_is_typed_and_kept(tmp_path: Path) -> None:
    async with console(tmp_path, FakeFleet(), shows="500 of 500") as driven:
        await driven.enter("slash", "zone=hall arm01")
        text = await driven.until("5 of 500")
        assert "filter: zone=hall arm01" in text
        await driven.press("enter")
        await driven.until("Fleet > arm011")
        await driven.press("escape")
        await driven.until("5 of 500")
        await driven.press("escape")
        await driven.until("500 of 500")


async def test_a_wrong_filter_is_explained(tmp_path: Path) -> None:
    async with console(tmp_path, FakeFleet(3), shows="3 of 3") as driven:
        await driven.enter("slash", "colour=red")
        text = await driven.until("there is no column `colour`; there are state, robot")
        assert "filter:" not in text and "3 of 3" in text, "its beginning was one while typing"


async def test_a_filter_that_is_given_up_leaves_the_one_before(tmp_path: Path) -> None:
    async with console(tmp_path, FakeFleet(4), shows="4 of 4") as driven:
        await driven.enter("slash", "zone=hall")
        await driven.until("filter: zone=hall")
        await driven.press("slash")
        await driven.type(" arm003")
        await driven.until("1 of 4")
        await driven.press("escape")
        text = await driven.until("2 of 4")
        assert "filter: zone=hall " in text


async def test_an_unknown_screen_is_explained(tmp_path: Path) -> None:
    async with console(tmp_path, FakeFleet(1), shows="1 of 1") as driven:
        await driven.enter("colon", "flet")
        await driven.until("there is no screen `flet`; did you mean")


async def test_the_prompt_says_what_is_typed_and_which_keys_end_it(tmp_path: Path) -> None:
    async with console(tmp_path, FakeFleet(4), shows="4 of 4") as driven:
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
    async with console(tmp_path, FakeFleet(4), shows="4 of 4") as driven:
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
        await driven.until("view: fields")
        await driven.press("escape")
        await driven.until("Fleet > arm003")
        await driven.press("escape")
        await driven.until("filter: arm003")


async def test_a_line_that_ends_takes_no_keys_from_the_one_that_is_opened_next(
    tmp_path: Path,
) -> None:
    """On a stalled machine they are given before the app has looked at its queue again."""
    async with console(tmp_path, FakeFleet(4), shows="4 of 4") as driven:
        await driven.type("/arm")
        await driven.until("filter: arm")
        screen = driven.app.console_screen
        assert screen is not None
        screen.prompt.ending = True
        await driven.type(":alerts")
        await driven.pilot.pause()
        screen.query_one(Prompt).kind = ""
        screen.prompting.take(Prompt.Typed("filter", "arm", "entered"))
        await driven.app._give_keys()
        await driven.until("go to: alerts")
        await driven.press("enter")
        await driven.until("no alert")


@pytest.mark.parametrize(
    ("bytes_", "keys"),
    [
        ("\x1b:top\r", ["escape", "colon", "t", "o", "p", "enter"]),
        ("\x1bo", ["escape", "o"]),
        ("\x1bG", ["escape", "G"]),
        ("\x1b\r", ["escape", "enter"]),
        ("\x1b\x1b[B", ["escape", "down"]),
        ("\x1b[", ["left_square_bracket"]),  # of an arrow whose rest comes late
    ],
)
def test_esc_and_the_next_key_are_two_keys_also_if_they_come_as_one(
    bytes_: str, keys: list[str]
) -> None:
    parser, seen, deadline = KeyParser(), list[str](), time.monotonic() + DEADLINE_S
    seen += [each.key for each in parser.feed(bytes_) if isinstance(each, Key)]
    while seen != keys:
        assert time.monotonic() < deadline, seen
        time.sleep(0.01)
        seen += [each.key for each in parser.tick() if isinstance(each, Key)]


async def test_a_prompt_that_is_left_by_a_click_is_given_up(tmp_path: Path) -> None:
    async with console(tmp_path, FakeFleet(4), shows="4 of 4") as driven:
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
    async with console(tmp_path, FakeFleet(4), start="topic pick camera/image") as driven:
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
    async with console(tmp_path, fleet, shows="asking the server") as driven:
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
    async with console(tmp_path, fleet, start=place, shows="asking the server") as driven:
        await driven.press("enter")
        await driven.until("there are no rows yet: `enter` was left out")
        fleet.answers.set()
        await driven.until("arm001")
        await driven.press("question_mark")
        await driven.until("Keys")
        assert [screen.NAME for screen in driven.app.screen_stack[-2:]] == [place, "help"]


async def test_screens_and_robots_are_completed_and_what_was_typed_comes_back(
    tmp_path: Path,
) -> None:
    async with console(tmp_path, FakeFleet(12), shows="12 of 12") as driven:
        await driven.type(":rob")
        await driven.press("tab")
        await driven.until("go to: robot")
        await driven.type("arm01")
        await driven.press("tab")
        await driven.until("arm010 arm011 arm012")
        await driven.type("2")
        await driven.press("enter")
        await driven.until("Fleet > arm012")
        await driven.type(":help\r")
        await driven.until("Keys")
        await driven.press("colon", "up")
        await driven.until("go to: help")
        await driven.press("up", "up")
        await driven.until("go to: robot arm012")
        await driven.press("down", "down")
        await driven.until("tab completes")


async def test_a_key_that_does_nothing_says_so(tmp_path: Path) -> None:
    async with console(tmp_path, FakeFleet(3), shows="3 of 3") as driven:
        await driven.press("z")
        await driven.until("`z` does nothing here: ? shows all keys")
        await driven.press("o")
        await driven.until("order: name")
        assert "does nothing" not in driven.text


async def test_q_after_a_colon_quits(tmp_path: Path) -> None:
    async with console(tmp_path, FakeFleet(1), shows="1 of 1") as driven:
        await driven.type(":q\r")
        await driven.until(lambda: driven.app._exit)


async def test_what_only_a_coordinator_has_is_refused_in_one_line(tmp_path: Path) -> None:
    fleet = FakeFleet(1)
    async with console(tmp_path, fleet, start="rollouts") as driven:
        text = await driven.until("does not offer what this screen shows")
        assert "fleet.watch" not in text


@given(st.lists(st.floats(0.0, 2.0), max_size=600))
def test_keys_are_left_out_only_if_they_come_faster_than_anybody_types(gaps: list[float]) -> None:
    pace, now, taken = TypingPace(), 10.0, 0
    for gap in gaps:
        now += gap
        taken += pace.takes(now)
        assert taken <= MAX_PASTED + (now - 10.0) * KEYS_S + 1
    typing = TypingPace()
    assert all(typing.takes(at / 60) for at in range(2_000)), "a key that is held down"


def test_of_a_paste_without_brackets_only_the_beginning_is_taken() -> None:
    pace = TypingPace()
    assert sum(pace.takes(1.0 + at / 1e5) for at in range(200_000)) <= MAX_PASTED + 1
    assert pace.left_out > 199_000
    assert pace.takes(6.0), "what is typed later"

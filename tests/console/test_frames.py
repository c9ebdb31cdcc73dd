"""When frames are sent to a terminal, and in how few bytes."""

from __future__ import annotations

import re
import time
from contextlib import nullcontext
from typing import TYPE_CHECKING, cast

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from dorafleet.console.frames import Frames
from dorafleet.console.model import pace
from dorafleet.console.view.terse import ShownCells
from dorafleet.console.view.words import width

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager

    from textual.app import App


@given(st.lists(st.tuples(st.floats(0.01, 6.0), st.booleans()), max_size=60))
@example([(0.5, False), (0.1, True)])
def test_frames_never_pile_up(steps: list[tuple[float, bool]]) -> None:
    """At most one frame is under way on a terminal that answers, unless an answer was lost."""
    found, now, last = pace.Pace(), 0.0, float("-inf")
    found.sent(now)
    assert found.answered()
    under_way = 0
    for pause, answers in steps:
        now += pause
        if answers and under_way:
            assert found.answered()
            under_way -= 1
        if found.may_send(now):
            # Sums are compared, not differences, which may be off by a rounding.
            assert now >= last + pace.FASTEST_S
            given_up = now >= last + pace.GIVE_UP_S
            assert under_way == 0 or given_up
            found.sent(now)
            under_way, last = (1 if given_up else under_way + 1), now


def test_a_terminal_that_never_answers_gets_two_frames_a_second() -> None:
    found = pace.Pace()
    sent = 0
    for tenth in range(100):
        if found.may_send(tenth / 10):
            found.sent(tenth / 10)
            sent += 1
    assert 16 <= sent <= 18  # after two seconds for the first


class Clock:
    """An app that counts the timers that run for it."""

    is_running = False

    def __init__(self) -> None:
        self.running = 0

    def batch_update(self) -> AbstractContextManager[None]:
        return nullcontext()

    def set_timer(self, _delay: float, _callback: Callable[[], None]) -> Clock:
        self.running += 1
        return self

    def stop(self) -> None:
        self.running -= 1


def test_one_timer_waits_for_the_next_frame_however_many_were_answered() -> None:
    """The one that waits for an answer takes five seconds: fifty of them were under way."""
    clock = Clock()
    frames = Frames(cast("App[None]", clock))
    for _ in range(10):
        frames.sent(time.monotonic(), lambda: False)
        frames.shown()
        assert clock.running == 1
    frames.release()
    frames.shown()
    assert clock.running == 0


TEXTS = ("ab", "c", " ", "abcdefghijkl", "abcXefghijkl", "\u2500\u2502", "\u65e5\u672c", "e\u0301")
"""Of one column a character, but for the last two."""
ENDED = {"22": "12", "23": "3", "24": "4", "27": "7"}
"""The parts of a style that another one ends."""
STYLES = st.sampled_from(
    (
        *("1", "2", "7", "1;2", "1;31", "90;100", "39;49", "1;7;33;49", "97;107", "1;4;39;49", "3"),
        *("38;5;195;48;5;16", "1;38;5;195;48;5;16", "38;5;4;48;5;236", "38;2;1;2;3;48;2;4;5;6"),
    )
)


class Terminal:
    """A terminal of the simplest kind."""

    def __init__(self) -> None:
        self.cells: dict[tuple[int, int], tuple[str, frozenset[str]]] = {}

    def show(self, frame: str) -> None:
        """Take what a program writes."""
        line, column, style = 1, 1, dict[str, str]()
        for text, to, codes in re.findall(r"([^\x1b])|\x1b\[([0-9;]+)H|\x1b\[([0-9;]+)m", frame):
            if to:
                line, column = map(int, to.split(";"))
            elif text and text not in "\r\n":
                wide = width(text)
                for at, part in enumerate((text, "")[:wide]):
                    self.cells[line, column + at] = part, frozenset(style.values())
                column += wide
            for part in re.findall(r"[34]8;5;\d+|[34]8;2;\d+;\d+;\d+|\d+", codes):
                if part == "0":
                    style.clear()
                elif part in ENDED:
                    for ended in ENDED[part]:
                        style.pop(ended, None)
                elif re.match(r"3\d|9\d", part):
                    style["text"] = part
                elif re.match(r"4\d|10\d", part):
                    style["ground"] = part
                else:
                    style[part] = part


RUNS = st.lists(st.tuples(st.one_of(st.just(""), STYLES), st.sampled_from(TEXTS)), max_size=4)
"""Parts of one line, each with its style."""


@pytest.mark.long
@given(st.lists(st.lists(st.tuples(st.integers(1, 3), st.integers(1, 9), RUNS)), max_size=6))
def test_a_terminal_shows_the_same_with_fewer_bytes(
    frames: list[list[tuple[int, int, list[tuple[str, str]]]]],
) -> None:
    shown, before, after = ShownCells(), Terminal(), Terminal()
    for parts in frames:
        frame = ""
        for line, column, runs in parts:
            text = "".join(f"\x1b[{style}m{x}\x1b[0m" if style else x for style, x in runs)
            frame += f"\x1b[{line};{column}H{text}\r\n"
        before.show(frame)
        after.show(shown.new(frame))
        assert before.cells == after.cells


def test_frames_before_the_first_answer_of_a_slow_line_are_under_way_until_they_are_answered() -> (
    None
):
    found = pace.Pace()
    found.sent(0.0)
    assert not found.may_send(1.9)
    for at in (2.0, 2.5):
        assert found.may_send(at)
        found.sent(at)
    for at in (2.6, 2.7, 2.8):
        assert not found.may_send(at)
        assert found.answered()
    assert found.may_send(2.8)


def test_a_frame_that_is_painted_again_costs_nothing() -> None:
    lines, frame = ShownCells(), "\x1b[1;1Hone\r\n\x1b[2;1Htwo"
    assert lines.new(frame) == frame.replace("\r\n", "")
    assert lines.new(frame) == ""
    assert lines.new("\x1b[2;1Htwo\x1b[1;3H") == "\x1b[1;3H"
    assert lines.new("\x1b[1;3H") == ""
    lines.forget()
    assert lines.new(frame) == frame.replace("\r\n", "")


def test_of_a_row_only_the_cells_that_differ_are_sent() -> None:
    row = "\x1b[7;1H\x1b[1;38;5;2mOK\x1b[0m\x1b[38;5;3m arm001 pick   31 %    0.4\x1b[0m\r\n"
    shown = ShownCells()
    assert len(shown.new(row)) < len(row)
    news = shown.new(row.replace("31", "32").replace("0.4", "0.5"))
    assert news == "\x1b[7;19H\x1b[38;5;3m2\x1b[7;28H5\x1b[0m"
    # Of characters that terminals disagree about, the whole line is.
    wide = row.replace("arm", "\u65e5")
    assert "pick" in shown.new(wide)
    assert "pick" in shown.new(wide.replace("31", "32"))
    assert shown.new(wide.replace("31", "32")) == ""

"""When frames are sent to a terminal, and in how few bytes."""

from __future__ import annotations

import re

from hypothesis import example, given
from hypothesis import strategies as st

from dorafleet.console.model import pace
from dorafleet.console.view.terse import ShownLines, terse


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


ENDED = {"22": "12", "23": "3", "24": "4", "27": "7"}
"""The parts of a style that another one ends."""
STYLES = st.sampled_from(
    (
        *("1", "2", "7", "1;2", "1;31", "90;100", "39;49", "1;7;33;49", "97;107", "1;4;39;49", "3"),
        *("38;5;195;48;5;16", "1;38;5;195;48;5;16", "38;5;4;48;5;236", "38;2;1;2;3;48;2;4;5;6"),
    )
)


def _cells(frame: str) -> list[tuple[str, frozenset[str]]]:
    """Return the characters of a frame, each with its style: a terminal of the simplest kind."""
    found, style = [], dict[str, str]()
    for text, codes in re.findall(r"([^\x1b])|\x1b\[([0-9;]+)m", frame):
        if text:
            found.append((text, frozenset(style.values())))
            continue
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
    return found


@given(st.lists(st.tuples(STYLES, st.sampled_from(("a", "b\r\n", " ", "")), st.booleans())))
def test_terse_styles_show_the_same(runs: list[tuple[str, str, bool]]) -> None:
    frame = "".join(
        f"\x1b[{style}m{text}\x1b[0m" + ("\r\n" if ends else "") for style, text, ends in runs
    )
    short = terse(frame)
    assert _cells(short) == _cells(frame)
    assert len(short) <= len(frame)


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


@given(
    st.lists(
        st.lists(st.tuples(st.integers(1, 3), st.integers(1, 3), st.sampled_from(("ab", "c")))),
        max_size=6,
    )
)
def test_lines_that_a_terminal_shows_already_are_left_out_and_no_others(
    frames: list[list[tuple[int, int, str]]],
) -> None:
    lines = ShownLines()
    before, after = dict[tuple[int, int], str](), dict[tuple[int, int], str]()
    for parts in frames:
        frame = "".join(f"\x1b[{line};{column}H{text}\r\n" for line, column, text in parts)
        for screen, written in ((before, frame), (after, lines.new(frame))):
            for line, column, text in re.findall(r"\x1b\[(\d+);(\d+)H(\w+)", written):
                screen.update({(int(line), int(column) + at): x for at, x in enumerate(text)})
        assert before == after


def test_a_frame_that_is_painted_again_costs_nothing() -> None:
    lines, frame = ShownLines(), "\x1b[1;1Hone\r\n\x1b[2;1Htwo"
    assert lines.new(frame) == frame
    assert lines.new(frame) == ""
    assert lines.new("\x1b[2;1Htwo\x1b[1;3H") == "\x1b[1;3H"
    assert lines.new("\x1b[1;3H") == ""
    lines.forget()
    assert lines.new(frame) == frame

"""What terminals answer at the start, in time or late, and what is typed meanwhile."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dorafleet.console.driver import KeyParser
from dorafleet.console.terminal import LateAnswers, answers_in, has_placeholders

COLOUR = "\x1b]11;rgb:1e1e/1e1e/2e2e\x1b\\"
NAME = "\x1bP>|kitty(0.41.1)\x1b\\"
PICTURE = "\x1b_Gi=31;OK\x1b\\"
PLACE = "\x1b[12;40R"


@pytest.mark.parametrize(
    ("name", "has"),
    [
        ("kitty(0.28.0)", True),
        ("kitty(0.41.1)", True),
        ("kitty(1.0)", True),
        ("kitty(0.27.1)", False),
        ("kitty", False),
        ("kitty()", False),
        ("kitty(0.99999999999999999999)", True),
        ("ghostty 1.1.3", True),
        ("ghostty 1.2.0-main+1234", True),
        ("ghosttyx 1.2.0", False),
        ("tmux 3.4", False),
        ("WezTerm 20240203-110809-5046fc22", False),
        ("Konsole 24.08.0", False),
        ("XTerm(390)", False),
        ("", False),
    ],
)
def test_terminals_with_placeholders_are_known_by_name(name: str, has: bool) -> None:
    assert has_placeholders(name) == has


@pytest.mark.parametrize(
    ("picture", "takes"), [(PICTURE, True), ("\x1b_Gi=31;EINVAL:no\x1b\\", False), ("", False)]
)
def test_a_terminal_tells_its_name_and_whether_it_takes_pictures(picture: str, takes: bool) -> None:
    answers = answers_in(f"a{NAME}b{picture}\x1b[B{PLACE}c".encode())
    assert answers.complete and answers.typed == b"ab\x1b[Bc" and not answers.torn
    assert (answers.name, answers.takes_pictures) == ("kitty(0.41.1)", takes)


@given(st.text(max_size=30))
def test_any_name_is_read(name: str) -> None:
    answers = answers_in(f"\x1bP>|{name}\x1b\\".encode(errors="replace"))
    assert answers.name in ("", name)
    has_placeholders(answers.name)


ANSWERS = COLOUR + NAME + PICTURE
KEYS = st.text("aqGO_P]\r", max_size=3)


@given(st.data())
def test_late_answers_are_no_keys_however_they_are_torn(data: st.DataObject) -> None:
    before, between, after = data.draw(st.tuples(KEYS, KEYS, KEYS))
    sent = before + COLOUR + between + NAME + PICTURE + PLACE + after
    cuts = sorted(data.draw(st.lists(st.integers(0, len(sent)), max_size=8)))
    begins = data.draw(st.integers(0, len(sent) - len(after)))
    in_time = answers_in(sent[:begins].encode())
    if in_time.complete:
        return
    late = LateAnswers(in_time.torn.decode())
    ends = [begins, *(each for each in cuts if each > begins), len(sent)]
    typed = in_time.typed.decode()
    for start, end in pairwise(ends):
        typed += late.keys(sent[start:end])
    assert typed + late.given_up() == before + between + after


@given(st.text("\x1b_P]>|G1;[\\aqR", max_size=40), st.integers(0, 40))
def test_no_key_is_invented_and_none_waits_for_ever(text: str, cut: int) -> None:
    late = LateAnswers()
    typed = late.keys(text[:cut]) + late.keys(text[cut:]) + late.given_up()
    assert len(typed) <= len(text)
    if not any(begin in text for begin in ("\x1b]11;", "\x1bP>|", "\x1b_G")):
        assert typed == text


def test_what_begins_like_an_answer_and_never_ends_does_not_swallow_keys() -> None:
    late = LateAnswers()
    assert late.keys("\x1b_G" + "a" * 100) == ""
    assert late.given_up() == "", "its end may still come"
    assert late.keys("a" * 200) == "\x1b_G" + "a" * 300


def test_answers_to_later_questions_and_escape_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(KeyParser, "late", LateAnswers())
    monkeypatch.setattr("textual.constants.ESCAPE_DELAY", 0.0)

    def events(text: str) -> list[str]:
        found = [*parser.feed(text), *parser.tick(), *parser.tick()]
        return [getattr(each, "key", type(each).__name__) for each in found]

    parser = KeyParser()
    assert events("\x1b") == ["escape"]
    assert events("\x1b_Gi=31;") == []
    assert events("OK\x1b") == []
    assert events("\\q\x1b[B") == ["q", "down"]
    assert events(PLACE) == [], "that is the answer to the first question"
    assert events(PLACE) == ["CursorPosition"]
    assert events("\x1b") == ["escape"]

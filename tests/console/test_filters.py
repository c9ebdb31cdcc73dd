"""The grammar of filters, shared by the console, `dora logs` and `dorafleet robots`."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dorad.control.filters import MAX_LENGTH, number, parse

ROW = {
    "robot": "arm017",
    "state": "fail",
    "cpu": 61.0,
    "since": 192.0,
    "dataflow": ("pick", "sort"),
    "label.zone": "hall",
    "release": "",
    "drops": None,
}


@pytest.mark.parametrize(
    ("text", "matches"),
    [
        ("", True),
        ("arm", True),
        ("ARM017", True),
        ("!arm", False),
        ("pick", True),
        ("state=fail", True),
        ("state!=fail", False),
        ("cpu>60", True),
        ("cpu>61", False),
        ("cpu>=61", True),
        ("cpu<0.1k", True),
        ("since<10m", True),
        ("since>3m", True),
        ("since<3m", False),
        ("dataflow=sort", True),
        ("dataflow!=sort", False),
        ("label.zone=hall", True),
        ("robot~^arm0\\d7$", True),
        ("robot~^017", False),
        ("release=", True),
        ("drops>0", False),
        ("drops<5", False),
        ("state=fail cpu>90", False),
        ("'arm017' state=fail", True),
    ],
)
def test_terms(text: str, matches: bool) -> None:
    assert parse(text).matches(ROW) is matches


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("cpu>fast", "`fast` after `cpu>` is not a number such as 50, 1.5k or 10m"),
        ("robot~(", "is not a regular expression"),
        ("'open", "a quotation mark is missing"),
        ("colour=red", "there is no column `colour`; there are robot, cpu"),
        ("x" * (MAX_LENGTH + 1), "at most"),
    ],
)
def test_mistakes_are_explained(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message.replace("(", "\\(").replace("`", "`")):
        parse(text, ("robot", "cpu"))


def test_a_server_takes_no_regular_expression() -> None:
    with pytest.raises(ValueError, match="takes no regular expressions"):
        parse("robot~(a+)+$", expressions=False)


@given(st.text(max_size=60))
def test_any_text_is_a_filter_or_a_mistake_that_is_explained(text: str) -> None:
    try:
        found = parse(text)
    except ValueError as error:
        assert str(error)
    else:
        found.matches(ROW)


@given(st.text("arm0127", max_size=8))
def test_a_term_and_its_negation_exclude_each_other(value: str) -> None:
    assert parse(f"robot={value}").matches(ROW) is not parse(f"robot!={value}").matches(ROW)


def test_numbers_have_units() -> None:
    assert [number(text) for text in ("5", "1.5k", "10m", "2h", "200ms", "2M", "x", "5x")] == [
        5.0,
        1500.0,
        600.0,
        7200.0,
        0.2,
        2e6,
        None,
        None,
    ]

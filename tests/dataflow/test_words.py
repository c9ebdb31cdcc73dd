"""Texts cut into the words of a command, and sizes."""

from __future__ import annotations

import shlex

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dorad.dataflow.errors import TextError
from dorad.dataflow.sizes import parse_size
from dorad.dataflow.words import build_commands, split_args, split_command
from tests.dataflow.reading import unhurried


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", ()),
        ("  a   b ", ("a", "b")),
        ("--data \"['a b', 'c']\"", ("--data", "['a b', 'c']")),
        ("'a b' c\\ d \"e'f\"", ("a b", "c d", "e'f")),
        ("a # b", ("a", "#", "b")),
        ("$HOME *.py ~", ("$HOME", "*.py", "~")),
        ("''", ("",)),
        ("a\nb", ("a", "b")),
    ],
)
def test_args_are_cut_like_a_shell_cuts(text: str, words: tuple[str, ...]) -> None:
    assert split_args(text) == words


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('a "b', 'a quote " is never closed'),
        ("it's", "a quote ' is never closed"),
        ("\"it's", 'a quote " is never closed'),
        ("'a' \\' 'b", "a quote ' is never closed"),
        ("a \\", "ends with a backslash that escapes nothing"),
    ],
)
def test_open_quotes_are_refused(text: str, message: str) -> None:
    with pytest.raises(TextError, match=message):
        split_args(text)


@unhurried
@given(st.lists(st.text(st.characters(exclude_categories=["Cs"]))))
def test_quoted_words_round_trip(words: list[str]) -> None:
    assert split_args(shlex.join(words)) == tuple(words)


@unhurried
@given(st.text())
def test_any_text_is_cut_or_refused(text: str) -> None:
    try:
        split_args(text)
    except TextError as error:
        assert error.message


def test_each_line_of_build_is_a_command() -> None:
    assert build_commands("pip install -e .\n\n   make  \r\n") == ("pip install -e .", "make")
    assert split_command('pip install "numpy<2" && x') == ("pip", "install", "numpy<2", "&&", "x")


@pytest.mark.parametrize("text", ['pip "x', "make\n''\n"])
def test_bad_build_commands_are_refused(text: str) -> None:
    with pytest.raises(TextError):
        build_commands(text)


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("0", 0),
        ("64", 64),
        ("64B", 64),
        ("1K", 1024),
        ("1kb", 1024),
        ("64MB", 64 << 20),
        ("64 M", 64 << 20),
        ("1.5MB", 3 << 19),
        ("2GB", 2 << 30),
        (" 2g ", 2 << 30),
    ],
)
def test_sizes(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "MB", "-1", "1TB", "64KiB", "1e6", "1 2", "9" * 30, "٣"])
def test_not_sizes(text: str) -> None:
    with pytest.raises(TextError):
        parse_size(text)


@unhurried
@given(st.integers(0, 2**63 - 1))
def test_any_number_of_bytes_is_a_size(size: int) -> None:
    assert parse_size(str(size)) == size

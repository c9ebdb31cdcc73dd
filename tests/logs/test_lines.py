"""Cutting a stream into lines, however it arrives."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from dorad.logs.lines import CUT_MARKER, MAX_LINE, LineSplitter


def split(*pieces: bytes) -> list[bytes]:
    splitter = LineSplitter()
    lines = [line for piece in pieces for line in splitter.feed(piece)]
    return lines + splitter.end()


@given(st.lists(st.binary().map(lambda data: data.replace(b"\r", b""))))
def test_where_the_pieces_end_makes_no_difference(pieces: list[bytes]) -> None:
    whole = b"".join(pieces)
    lines = whole.split(b"\n")
    assert split(*pieces) == (lines if lines[-1] else lines[:-1])


def test_a_last_line_without_newline_counts() -> None:
    assert split(b"a\nb") == [b"a", b"b"]
    assert split(b"a\n", b"\n") == [b"a", b""]


def test_a_carriage_return_before_the_newline_goes() -> None:
    assert split(b"a\r", b"\nb\rc\r\n") == [b"a", b"b\rc"]


def test_a_line_of_one_mebibyte_is_whole() -> None:
    line = b"x" * MAX_LINE
    assert split(line + b"\nnext\n") == [line, b"next"]


def test_a_longer_line_is_cut_and_marked_and_the_next_is_whole() -> None:
    line = b"x" * (MAX_LINE + 1)
    assert split(line + b"\nnext\n") == [b"x" * MAX_LINE + CUT_MARKER, b"next"]


def test_an_endless_line_is_given_out_once_and_not_kept() -> None:
    splitter = LineSplitter()
    lines = [line for _ in range(100) for line in splitter.feed(b"x" * 65536)]
    assert lines == [b"x" * MAX_LINE + CUT_MARKER]
    assert splitter.feed(b"rest\nnext\n") == [b"next"]
    assert splitter.end() == []

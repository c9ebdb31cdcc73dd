"""Cutting a stream into lines, however it arrives."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from dorad.logs.staging import CUT_MARKER, MAX_LINE, MAX_LINES, cut_lines


class Splitter:
    """Cut pieces as a reader does: keep the unused rest for the next piece."""

    def __init__(self) -> None:
        self.kept = b""
        self.skipping = False

    def feed(self, data: bytes, *, final: bool = False) -> list[bytes]:
        self.kept += data
        lines: list[bytes] = []
        more = True
        while more:
            cut = cut_lines(self.kept, self.skipping, final=final)
            self.kept, self.skipping, more = self.kept[cut.used :], cut.skipping, cut.more
            lines += cut.lines
        return lines

    def end(self) -> list[bytes]:
        return self.feed(b"", final=True)


def split(*pieces: bytes) -> list[bytes]:
    splitter = Splitter()
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


def test_a_carriage_return_before_the_newline_is_removed() -> None:
    assert split(b"a\r", b"\nb\rc\r\n") == [b"a", b"b\rc"]


def test_a_line_of_one_mebibyte_is_whole() -> None:
    line = b"x" * MAX_LINE
    assert split(line + b"\nnext\n") == [line, b"next"]


def test_a_longer_line_is_cut_and_marked_and_the_next_is_whole() -> None:
    line = b"x" * (MAX_LINE + 1)
    assert split(line + b"\nnext\n") == [b"x" * MAX_LINE + CUT_MARKER, b"next"]


def test_an_endless_line_is_returned_once_and_not_kept() -> None:
    splitter = Splitter()
    lines = [line for _ in range(100) for line in splitter.feed(b"x" * 65536)]
    assert lines == [b"x" * MAX_LINE + CUT_MARKER]
    assert len(splitter.kept) == 0
    assert splitter.feed(b"rest\nnext\n") == [b"next"]
    assert splitter.end() == []


def test_many_lines_are_returned_a_thousand_at_a_time() -> None:
    cut = cut_lines(b"\n" * 2500 + b"rest", skipping=False, final=True)
    assert (len(cut.lines), cut.used, cut.more) == (MAX_LINES, MAX_LINES, True)
    assert split(b"\n" * 2500 + b"rest") == [b""] * 2500 + [b"rest"]
    assert not cut_lines(b"\n" * MAX_LINES + b"rest", skipping=False).more


def test_the_end_of_each_line_counts_its_shortened_part() -> None:
    cut = cut_lines(b"dropped\na\r\n\nlast", skipping=True, final=True)
    assert cut.lines == [b"a", b"", b"last"]
    assert cut.ends() == [11, 12, 16]

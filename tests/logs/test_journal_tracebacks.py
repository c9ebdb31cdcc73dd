"""Which lines are one traceback."""

import pytest

from dorad.logs.journal.forward import Span, spans


def alone(*lines: int) -> list[Span]:
    return [Span(line, line + 1) for line in lines]


HEADER = "Traceback (most recent call last):"
FRAME = ['  File "a.py", line 3, in <module>', "    main()"]
ERROR = "ValueError: no frame"
DURING = "During handling of the above exception, another exception occurred:"
GROUP = [
    "  + Exception Group Traceback (most recent call last):",
    '  |   File "a.py", line 3, in <module>',
    "  | ExceptionGroup: both (1 sub-exception)",
    "  +-+---------------- 1 ----------------",
    "    | ValueError: 1",
    "    +------------------------------------",
]


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        ([], []),
        (["a", "b"], [Span(0, 1), Span(1, 2)]),
        (["  indented", "  lines"], [Span(0, 1), Span(1, 2)]),
        ([HEADER, *FRAME, ERROR, "next"], [Span(0, 4), Span(4, 5)]),
        (["before", HEADER, *FRAME, ERROR, "next"], [Span(0, 1), Span(1, 5), Span(5, 6)]),
        ([HEADER, *FRAME, ERROR, HEADER, *FRAME, ERROR, "x"], [Span(0, 4), Span(4, 8), Span(8, 9)]),
        (
            [HEADER, *FRAME, ERROR, "", DURING, "", HEADER, *FRAME, ERROR, "x"],
            [Span(0, 11), *alone(11)],
        ),
        ([HEADER, *FRAME, ERROR, "", "other"], [Span(0, 4), Span(4, 5), Span(5, 6)]),
        ([HEADER, *FRAME, ERROR, "", DURING, "other"], [Span(0, 4), *alone(4, 5, 6)]),
        ([HEADER, *FRAME, ERROR, "", DURING, "", "x"], [Span(0, 4), *alone(4, 5, 6, 7)]),
        ([*GROUP, "next"], [Span(0, 6), Span(6, 7)]),
    ],
)
def test_lines_that_belong_together(lines: list[str], expected: list[Span]) -> None:
    assert spans(lines) == expected


WHOLE = [HEADER, *FRAME, ERROR, "", DURING, "", HEADER, *FRAME, ERROR]


@pytest.mark.parametrize("count", range(1, len(WHOLE) + 1))
def test_a_traceback_is_open_as_long_as_nothing_else_follows(count: int) -> None:
    first, *_ = spans(WHOLE[:count])
    assert (first.begin, first.open) == (0, True)


def test_a_chain_is_one() -> None:
    assert spans(WHOLE) == [Span(0, 11, open=True)]


def test_an_exception_group_is_open_as_long_as_nothing_else_follows() -> None:
    assert spans(GROUP) == [Span(0, 6, open=True)]

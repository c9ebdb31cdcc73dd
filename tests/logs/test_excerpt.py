"""The excerpt in a failure report."""

import functools
import operator

import pytest

from dorad.logs.excerpt import error_line, excerpt, with_error

HEADER = "Traceback (most recent call last):"
CAUSE = "The above exception was the direct cause of the following exception:"


def frame(file: str, line: int = 1, code: str = "f()") -> list[str]:
    return [f'  File "{file}", line {line}, in f', f"    {code}"]


USER = frame("/home/me/cam.py")
LIBRARY = frame("/home/me/.venv/lib/python3.11/site-packages/numpy/core.py")
STDLIB = frame("/usr/lib/python3.11/json/__init__.py")


def test_without_a_traceback_the_last_lines_are_quoted() -> None:
    assert excerpt([str(n) for n in range(100)], limit=3) == ("97", "98", "99")
    assert excerpt([]) == ()
    assert excerpt(["a", "", " "]) == ("a",)


def test_a_traceback_is_quoted_without_earlier_lines() -> None:
    lines = ["noise"] * 50 + [HEADER, *USER, "ValueError: boom"]
    assert excerpt(lines) == (HEADER, *USER, "ValueError: boom")


def test_frames_of_libraries_are_left_out() -> None:
    lines = [HEADER, *USER, *LIBRARY, *STDLIB, *LIBRARY, "ValueError: boom"]
    assert excerpt(lines) == (HEADER, "  [3 more frames]", *USER, "ValueError: boom")


def test_a_traceback_of_libraries_only_keeps_its_last_frame() -> None:
    lines = [HEADER, *LIBRARY, *STDLIB, "ValueError: boom"]
    assert excerpt(lines) == (HEADER, "  [1 more frames]", *STDLIB, "ValueError: boom")


def test_of_many_frames_the_first_and_the_last_are_kept() -> None:
    frames = [frame("/me/cam.py", line) for line in range(10)]
    lines = [HEADER, *functools.reduce(operator.iadd, frames, []), "RecursionError: deep"]
    kept = [*frames[0], *frames[7], *frames[8], *frames[9]]
    assert excerpt(lines) == (HEADER, "  [6 more frames]", *kept, "RecursionError: deep")


def test_markers_under_the_code_stay_with_their_frame() -> None:
    lines = [HEADER, *USER, "    ^^^", "ValueError: boom"]
    assert excerpt(lines) == tuple(lines)


def test_the_cause_of_an_error_is_quoted_too() -> None:
    first = [HEADER, *USER, "KeyError: 'x'"]
    lines = ["noise", *first, "", CAUSE, "", HEADER, *USER, "ValueError: boom"]
    assert excerpt(lines) == (*first, CAUSE, HEADER, *USER, "ValueError: boom")


def test_an_earlier_unrelated_traceback_is_not_quoted() -> None:
    last = [HEADER, *USER, "ValueError: boom"]
    assert excerpt([HEADER, *USER, "KeyError: 'x'", "went on", *last]) == tuple(last)


def test_the_message_of_an_error_may_have_several_lines() -> None:
    lines = [HEADER, *USER, "ValueError: a", "b", "  c"]
    assert excerpt(lines) == tuple(lines)


def test_a_syntax_error_has_no_header_and_is_quoted() -> None:
    lines = ['  File "/me/cam.py", line 3', "    f(", "     ^", "SyntaxError: never closed"]
    assert excerpt(lines) == tuple(lines)


def test_a_crash_of_the_interpreter_is_quoted_from_its_beginning() -> None:
    crash = ["Fatal Python error: Segmentation fault", "", "Current thread 0x1:"]
    lines = [HEADER, *USER, "KeyError: handled", *crash, *["  frame"] * 50]
    assert excerpt(lines, limit=5) == (*crash, "  frame", "  frame")


def test_it_is_never_longer_than_the_limit() -> None:
    lines = [HEADER, *USER, "ValueError: a", *["more"] * 50]
    assert len(excerpt(lines, limit=6)) == 6
    assert len(excerpt(lines)) <= 20


@pytest.mark.parametrize(
    ("lines", "tells"),
    [
        ([HEADER, *USER, "ValueError: a", "  more of it", ""], "ValueError: a"),
        ([HEADER, *USER, "KeyError: 'x'", CAUSE, HEADER, *USER, "OSError: b"], "OSError: b"),
        ([HEADER, "  [3 more frames]", *USER, "ValueError: a"], "ValueError: a"),
        (["Fatal Python error: Segmentation fault", "", "Thread 0x1:", "  frame"],
         "Fatal Python error: Segmentation fault"),
        (["starting", "  what():  no camera", "----", ""], "what():  no camera"),
        (["----"], ""),
        ([], ""),
    ],
)  # fmt: skip
def test_one_line_tells_why_a_node_failed(lines: list[str], tells: str) -> None:
    assert error_line(lines) == tells


def test_a_headline_has_the_error_and_not_the_hint() -> None:
    lines = [HEADER, *USER, "NameError: name 'np' is not defined", "hint: write `import numpy`"]
    told = "node cam exited with code 1: NameError: name 'np' is not defined"
    assert with_error("node cam exited with code 1", lines) == told
    assert with_error("node cam was killed by SIGSEGV", []) == "node cam was killed by SIGSEGV"

"""The page on security: each claim names tests, which exist, and the places where they run."""

import re
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs/security.md"
NO_CLAIMS = (
    "This page is for administrators",
    "Arguments of command lines are public",
    "A recording contains a dataflow",
    "Every fleet has its own authority",
    "Not prevented",
    "Report a vulnerability",
)
"""How paragraphs begin that promise nothing, or say what is not prevented."""
_NAME = re.compile(r"`((?:test_|Test)\w+)(\[[^]`]*\])?`(\s\(robot\))?")


_DEFINITION = re.compile(r"^ *(?:(?:async )?def|class) (\w+)|^(\w+) = ", re.MULTILINE)


@cache
def defined() -> dict[str, list[tuple[str, str]]]:
    """Return the tests and test cases of this tree by name, each with its file and its text.

    The text is that of the top-level definition, with its decorators: two blank lines are around
    it. To parse all tests would take ten seconds.
    """
    found: dict[str, list[tuple[str, str]]] = {}
    for folder in ("tests", "hwtests"):
        for path in (ROOT / folder).rglob("test_*.py"):
            file = path.relative_to(ROOT).as_posix()
            for block in path.read_text(encoding="utf-8").split("\n\n\n"):
                for match in _DEFINITION.finditer(block):
                    found.setdefault(match[1] or match[2], []).append((file, block))
    return found


def claims() -> list[str]:
    """Return the rows of the tables of claims."""
    rows = [line for line in text().splitlines() if line.startswith("| ") and line.count("|") == 4]
    return [row for row in rows if not row.startswith(("| claim ", "|---"))]


def text() -> str:
    return PAGE.read_text(encoding="utf-8")


def test_every_claim_of_the_security_page_names_tests_that_exist() -> None:
    named = {match[1] for match in _NAME.finditer(text())}
    assert len(named) > 200
    assert not named - defined().keys()
    for path in re.findall(r"`((?:hw)?tests/[\w/]+\.py)`", text()):
        assert (ROOT / path).is_file(), path
    targets = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.M)
    assert set(re.findall(r"`make ([\w-]+)`", text())) <= set(targets)
    for line in claims():
        assert re.search(r"`(test_|Test|tests/|make )", line.rsplit("|", 2)[1]), line


def test_what_runs_on_robots_only_is_marked() -> None:
    for match in _NAME.finditer(text()):
        places = {file.split("/")[0] for file, _ in defined()[match[1]]}
        assert places == {"hwtests" if match[3] else "tests"}, match[0]


def test_a_case_that_is_named_is_among_those_of_its_test() -> None:
    for match in _NAME.finditer(text()):
        if match[2] is not None:
            case = match[2].strip("[]")
            assert any(f'"{case}"' in block for _, block in defined()[match[1]]), match[0]


def test_no_test_of_a_claim_is_always_skipped_or_expected_to_fail() -> None:
    for match in _NAME.finditer(text()):
        for _, block in defined()[match[1]]:
            assert not re.search(r"mark\.(skip\b|xfail)", block), match[0]


def test_a_paragraph_outside_of_the_tables_names_a_test_or_promises_nothing() -> None:
    paragraphs = [each.strip() for each in re.split(r"\n\s*\n", text())]
    prose = [each for each in paragraphs if each and not each.startswith(("#", "|"))]
    assert [
        each
        for each in prose
        if not _NAME.search(each) and "`tests/" not in each and not each.startswith(NO_CLAIMS)
    ] == []

"""What a suite's report says, and the verdict on it: functions from data to data."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from typing import Any

MOST_FAILED = 20
"""With more failed tests than that, a second look would not tell luck from damage."""


@dataclass
class Tests:
    """The tests of one look at a suite."""

    total: int = 0
    passed: set[str] = field(default_factory=set)
    failed: dict[str, list[str]] = field(default_factory=dict)
    """By test the last lines of what went wrong."""
    skipped: Counter[str] = field(default_factory=Counter)
    """By reason."""
    broken: list[str] = field(default_factory=list)
    """What ended in another way than as a test that fails."""
    exits: list[int] = field(default_factory=list)
    """The exit codes of pytest; empty if it did not end by itself."""

    @property
    def done(self) -> int:
        """How many tests have ended."""
        return len(self.passed) + len(self.failed) + self.skipped.total()


def read(lines: Iterable[str]) -> Tests:
    """Return what a report says, as far as it is written."""
    tests = Tests()
    for line in lines:
        try:
            said: dict[str, Any] = json.loads(line)
        except ValueError:
            continue  # it is being written
        if "total" in said:
            tests.total += said["total"]
        elif "broken" in said:
            tests.broken += [said["broken"], *said.get("why", [])]
        elif "exit" in said:
            tests.exits.append(said["exit"])
        elif said["outcome"] == "passed":
            tests.passed.add(said["test"])
        elif said["outcome"] == "failed":
            tests.failed[said["test"]] = said["why"]
        else:
            tests.skipped[said["why"]] += 1
    return tests


@dataclass
class Row:
    """What became of a suite: a row of the table."""

    name: str
    seconds: float
    passed: int = 0
    failed: int = 0
    twice: dict[str, list[str]] = field(default_factory=dict)
    """Tests that failed at the first look and passed at the second, with the first failure."""
    skipped: dict[str, int] = field(default_factory=dict)
    failures: dict[str, list[str]] = field(default_factory=dict)
    broken: list[str] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        """Whether the suite has passed."""
        return not self.failed and not self.broken

    def as_json(self) -> dict[str, Any]:
        """Return the row for a file."""
        return asdict(self)


def command_row(name: str, seconds: float, code: int | None) -> Row:
    """Return the row of a suite whose tests are not counted: its exit code is all."""
    if code == 0:
        return Row(name, seconds, passed=1)
    return Row(name, seconds, failed=1, broken=[_ended(code)])


def wants_second_look(tests: Tests, code: int | None) -> bool:
    """Return whether only tests have failed, and few: then luck is possible."""
    return 0 < len(tests.failed) <= MOST_FAILED and not _broken(tests, code)


def pytest_row(
    name: str,
    seconds: float,
    first: tuple[Tests, int | None],
    second: tuple[Tests, int | None] | None = None,
    *,
    may_be_empty: bool = False,
) -> Row:
    """Return the row of a suite after its looks, each with the exit code of its command.

    A code of None is a suite that reached its time limit.
    """
    tests, code = first
    broken = _broken(tests, code)
    if not tests.done and not broken and not may_be_empty:
        broken.append("no test ran")
    twice: dict[str, list[str]] = {}
    if second:
        again, again_code = second
        twice = {test: why for test, why in tests.failed.items() if test in again.passed}
        broken += [f"second look: {each}" for each in _broken(again, again_code)]
    failures = {test: why for test, why in tests.failed.items() if test not in twice}
    return Row(
        name,
        seconds,
        passed=len(tests.passed) + len(twice),
        failed=len(failures),
        twice=twice,
        skipped=dict(tests.skipped),
        failures=failures,
        broken=broken,
    )


def _broken(tests: Tests, code: int | None) -> list[str]:
    """Return in which other ways than by failing tests a look at a suite went wrong."""
    broken = list(tests.broken)
    if code is None or not tests.exits:
        broken.append(_ended(code))
    elif strange := [each for each in tests.exits if each not in (0, 1, 5)]:
        broken.append(f"pytest ended with exit code {strange[0]}")
    elif (
        code
        and not tests.failed
        and 1 not in tests.exits
        and any(each != 5 for each in tests.exits)
    ):
        broken.append(f"all its tests passed, but it ended with exit code {code}")
    return broken


def _ended(code: int | None) -> str:
    return "reached its time limit" if code is None else f"ended with exit code {code}"

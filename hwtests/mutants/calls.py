"""Which tests call which function, and how long they take. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from hwtests.mutants.sample import Mutant

SHORT_S = 0.2
"""Tests up to this time are run first, one file after the other; then longer ones, by time."""


@dataclass(frozen=True)
class Calls:
    """What a run of an area's tests has recorded."""

    tests: dict[str, float]
    """The seconds that each test took, in the order of the run."""
    callers: dict[tuple[str, str], frozenset[str]]
    """By module and function: ids of tests, of files and folders of tests; "" means all."""

    @classmethod
    def of(cls, recorded: dict[str, Any]) -> Calls:
        """Return what the plugin has recorded."""
        callers: dict[tuple[str, str], set[str]] = {}
        for test, calls in recorded["calls"].items():
            for module, code in calls:
                callers.setdefault((module, function_of(code)), set()).add(test)
        return cls(recorded["seconds"], {key: frozenset(ids) for key, ids in callers.items()})

    def tests_of(self, mutant: Mutant) -> list[str]:
        """Return the tests that can notice a mutant, the shortest ones first.

        What stands outside of functions, as the default of a field, is noticed by any test.
        """
        module, function = mutant.module, mutant.change.function
        if mutant.change.in_function:
            ids = self.callers.get((module, function), frozenset())
            return self._shortest_first(each for each in self.tests if _is_below(each, ids))
        near = {
            test
            for (called, _), ids in self.callers.items()
            if called == module
            for test in self.tests
            if _is_below(test, ids)
        }
        far = (each for each in self.tests if each not in near)
        return self._shortest_first(near) + self._shortest_first(far)

    def _shortest_first(self, tests: Iterable[str]) -> list[str]:
        place = {test: number for number, test in enumerate(self.tests)}
        return sorted(tests, key=lambda each: (max(SHORT_S, self.tests[each]), place[each]))

    def seconds(self, tests: Iterable[str]) -> float:
        """Return how long these tests took."""
        return sum(self.tests[each] for each in tests)


def function_of(code: str) -> str:
    """Return the function of a code's name: a lambda or a comprehension belongs to the one around.

    `A.f.<locals>.g.<locals>.<lambda>` is `A.f.g`.
    """
    return ".".join(each for each in code.split(".") if not each.startswith("<"))


def _is_below(test: str, ids: frozenset[str]) -> bool:
    if test in ids or "" in ids:
        return True
    file = test.partition("::")[0]
    return file in ids or any(file.startswith(f"{each}/") for each in ids)

"""Test mutants in copies of the tree, several at once."""

from __future__ import annotations

import queue
import threading
import time
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeVar

from hwtests.mutants.tree import Tree

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from hwtests.mutants.areas import Area
    from hwtests.mutants.calls import Calls
    from hwtests.mutants.sample import Mutant

FACTOR, EXTRA_S = 6.0, 60.0
"""How much longer than without a mutant tests may run; the machine may be busier by then."""
BASELINE_S = 1800.0

Verdict = Literal["killed", "timeout", "survived"]
Task = TypeVar("Task")
Result = TypeVar("Result")


class CampaignError(Exception):
    """Nothing can be learned from mutants: the text says what to mend first."""


@dataclass(frozen=True)
class Outcome:
    """What the tests have said of a mutant."""

    mutant: Mutant
    verdict: Verdict
    tests: int
    """How many tests call the changed function; one that no test calls survives."""
    seconds: float


class Campaign:
    """Some copies of the tree, each with a thread that runs tests in it."""

    def __init__(self, root: Path, jobs: int) -> None:
        """`jobs` is the number of copies."""
        self._root = root
        self._jobs = jobs
        self._trees: list[Tree] = []

    def run(
        self,
        mutants: Sequence[Mutant],
        report: Callable[[Outcome], None],
        note: Callable[[str], None],
    ) -> None:
        """Test mutants and report each outcome, one at a time.

        Raises:
            CampaignError: tests fail without a mutant, or call nothing of what they should test.
        """
        areas = list(dict.fromkeys(each.area for each in mutants))
        with ExitStack() as stack:
            note(f"copying the tree for {self._jobs} jobs")
            for _ in range(min(self._jobs, len(mutants))):
                self._trees.append(stack.enter_context(Tree(self._root)))
            note("running the tests without a mutant")
            calls = dict(self._each(areas, _baseline))

            def test(tree: Tree, mutant: Mutant) -> Outcome:
                return _test(tree, mutant, calls[mutant.area])

            for outcome in self._each(mutants, test):
                report(outcome)

    def _each(self, tasks: Sequence[Task], do: Callable[[Tree, Task], Result]) -> Iterator[Result]:
        """Do tasks, each in a free tree, and yield the results as they come."""
        waiting: queue.SimpleQueue[Task] = queue.SimpleQueue()
        for task in tasks:
            waiting.put(task)
        done: queue.SimpleQueue[Result | BaseException] = queue.SimpleQueue()

        def work(tree: Tree) -> None:
            try:
                while True:
                    done.put(do(tree, waiting.get_nowait()))
            except queue.Empty:
                pass
            except BaseException as error:  # noqa: BLE001 - raised again in the main thread
                done.put(error)

        threads = [threading.Thread(target=work, args=(tree,)) for tree in self._trees]
        for thread in threads:
            thread.start()
        complete = False
        try:
            for _ in tasks:
                result = done.get()
                if isinstance(result, BaseException):
                    raise result
                yield result
            complete = True
        finally:
            if not complete:
                for tree in self._trees:
                    tree.close()
            for thread in threads:
                thread.join()


def _baseline(tree: Tree, area: Area) -> tuple[Area, Calls]:
    """Return what the tests of an area call, once they can be trusted."""
    modules = area.paths(tree.root)
    calls = tree.record(area.test_files(tree.root), modules, BASELINE_S)
    if calls is None:
        raise CampaignError(
            f"tests of {area.name} fail without a mutant; mend them first:\n{tree.printed}"
        )
    if not calls.callers:
        raise CampaignError(f"tests of {area.name} call no function of {', '.join(modules)}")
    return area, calls


def _test(tree: Tree, mutant: Mutant, calls: Calls) -> Outcome:
    begun = time.monotonic()
    tests = calls.tests_of(mutant)
    passed: bool | None = True
    if tests:
        tree.write(mutant.module, mutant.change.apply(mutant.source))
        passed = tree.passes(tests, FACTOR * calls.seconds(tests) + EXTRA_S)
        tree.write(mutant.module, mutant.source)
    verdict: Verdict = "timeout" if passed is None else "survived" if passed else "killed"
    return Outcome(mutant, verdict, len(tests), time.monotonic() - begun)

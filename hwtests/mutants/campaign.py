"""Test mutants in copies of the tree, several at once."""

import queue
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal, TypeAlias

from hwtests.mutants.areas import Area
from hwtests.mutants.calls import SHORT_S, Calls
from hwtests.mutants.sample import Mutant
from hwtests.mutants.tree import Tree

FACTOR, EXTRA_S = 6.0, 60.0
"""How much longer than without a mutant tests may run; the machine may be busier by then."""
BASELINE_S = 1800.0

Verdict = Literal["killed", "unclear", "survived"]
"""`unclear`: the tests run too long, cannot be loaded, or one fails without the mutant as well."""


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


@dataclass(frozen=True)
class Baseline:
    """What the tests of an area call, which pass without a mutant."""

    area: Area
    calls: Calls


Task: TypeAlias = Callable[[Tree], Outcome | Baseline]


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
        by_area: dict[Area, list[Mutant]] = {}
        for mutant in mutants:
            by_area.setdefault(mutant.area, []).append(mutant)
        with ExitStack() as stack:
            note(f"copying the tree for {self._jobs} jobs")
            for _ in range(min(self._jobs, len(mutants))):
                self._trees.append(stack.enter_context(Tree(self._root)))
            note("running the tests without a mutant")
            tasks: queue.SimpleQueue[Task | None] = queue.SimpleQueue()
            results: queue.SimpleQueue[Outcome | Baseline | BaseException] = queue.SimpleQueue()
            for area in by_area:
                tasks.put(partial(_baseline, area))
            stack.callback(self._stop, self._start(tasks, results), tasks)
            for _ in range(len(by_area) + len(mutants)):
                result = results.get()
                if isinstance(result, BaseException):
                    raise result
                if isinstance(result, Outcome):
                    report(result)
                    continue
                for mutant in by_area[result.area]:
                    tasks.put(partial(_test, mutant, result.calls))

    def _start(
        self,
        tasks: queue.SimpleQueue[Task | None],
        results: queue.SimpleQueue[Outcome | Baseline | BaseException],
    ) -> list[threading.Thread]:
        """Start a thread for each tree, which does tasks until it gets None."""

        def work(tree: Tree) -> None:
            try:
                while (task := tasks.get()) is not None:
                    results.put(task(tree))
            except BaseException as error:  # noqa: BLE001 - raised again in the main thread
                results.put(error)

        threads = [threading.Thread(target=work, args=(tree,)) for tree in self._trees]
        for thread in threads:
            thread.start()
        return threads

    def _stop(
        self, threads: Sequence[threading.Thread], tasks: queue.SimpleQueue[Task | None]
    ) -> None:
        """End the threads, and the test runs that an error or a signal has left."""
        for _ in threads:
            tasks.put(None)
        for tree in self._trees:
            tree.close()
        for thread in threads:
            thread.join()


def _baseline(area: Area, tree: Tree) -> Baseline:
    """Return what the tests of an area call, once they can be trusted."""
    modules = area.paths(tree.root)
    calls = tree.record(area.test_files(tree.root), modules, BASELINE_S)
    if calls is None:
        raise CampaignError(
            f"tests of {area.name} fail without a mutant; mend them first:\n{tree.printed}"
        )
    if not calls.callers:
        raise CampaignError(f"tests of {area.name} call no function of {', '.join(modules)}")
    return Baseline(area, calls)


def _test(mutant: Mutant, calls: Calls, tree: Tree) -> Outcome:
    begun = time.monotonic()
    tests = calls.tests_of(mutant)
    verdict: Verdict = "survived"
    if tests:
        tree.write(mutant.module, mutant.change.apply(mutant.source))
        passed = tree.passes(tests, FACTOR * calls.seconds(tests) + EXTRA_S)
        failed = tree.failed
        tree.write(mutant.module, mutant.source)
        if passed is None:
            verdict = "unclear"
        elif not passed:
            verdict = "killed" if _is_sure(mutant, failed, calls, tree) else "unclear"
    return Outcome(mutant, verdict, len(tests), time.monotonic() - begun)


def _is_sure(mutant: Mutant, failed: str, calls: Calls, tree: Tree) -> bool:
    """Return True if it is the mutant that lets a test fail.

    A long test has deadlines of its own, which a busy machine may miss: it has to pass without the
    mutant. If no test has failed, none could be loaded: that says nothing about the tests, unless
    they call the function while they are loaded.
    """
    if failed not in calls.tests:
        return mutant.change.in_function
    seconds = calls.tests[failed]
    return seconds <= SHORT_S or tree.passes([failed], FACTOR * seconds + EXTRA_S) is True

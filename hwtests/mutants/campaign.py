"""Test mutants in copies of the tree, several at once."""

from __future__ import annotations

import queue
import threading
import time
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from hwtests.mutants.tree import Tree

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from pathlib import Path

    from hwtests.mutants.areas import Area
    from hwtests.mutants.sample import Mutant

FACTOR, EXTRA_S = 6.0, 30.0
"""How much longer than without a mutant tests may run; the machine may be busier by then."""
BASELINE_S = 900.0

Verdict = Literal["killed", "timeout", "survived"]


class CampaignError(Exception):
    """Nothing can be learned from mutants: the text says what to mend first."""


@dataclass(frozen=True)
class Outcome:
    """What the tests have said of a mutant. A timeout counts as killed."""

    mutant: Mutant
    verdict: Verdict
    seconds: float


class Campaign:
    """Some copies of the tree, each with a thread that tests mutants in it."""

    def __init__(self, root: Path, jobs: int) -> None:
        """`close` may be called from a signal handler."""
        self._root = root
        self._jobs = jobs
        self._trees: list[Tree] = []
        self._stopped = threading.Event()

    def run(
        self,
        mutants: Sequence[Mutant],
        report: Callable[[Outcome], None],
        note: Callable[[str], None],
    ) -> None:
        """Test mutants and report each outcome, one at a time.

        Raises:
            CampaignError: tests fail without a mutant, or pass with a broken module.
            InterruptedError: it was closed.
        """
        with ExitStack() as stack:
            note(f"copying the tree for {self._jobs} jobs")
            for _ in range(min(self._jobs, len(mutants))):
                self._trees.append(stack.enter_context(Tree(self._root)))
            timeouts = self._baselines(mutants, note)
            waiting: queue.SimpleQueue[Mutant] = queue.SimpleQueue()
            for mutant in mutants:
                waiting.put(mutant)
            done: queue.SimpleQueue[Outcome | BaseException] = queue.SimpleQueue()
            threads = [
                threading.Thread(target=self._work, args=(tree, waiting, timeouts, done))
                for tree in self._trees
            ]
            for thread in threads:
                thread.start()
            try:
                for _ in mutants:
                    outcome = done.get()
                    if isinstance(outcome, BaseException):
                        raise outcome
                    report(outcome)
            finally:
                self.close()
                for thread in threads:
                    thread.join()

    def close(self) -> None:
        """End the test runs."""
        self._stopped.set()
        for tree in self._trees:
            tree.close()

    def _baselines(
        self, mutants: Iterable[Mutant], note: Callable[[str], None]
    ) -> dict[str, float]:
        """Return how long the tests of each area may run, once they can be trusted."""
        timeouts: dict[str, float] = {}
        examples: dict[str, Mutant] = {}
        for mutant in mutants:
            examples.setdefault(mutant.area.name, mutant)
        for name, mutant in examples.items():
            note(f"tests of {name} without a mutant")
            timeouts[name] = self._baseline(mutant.area, mutant)
        return timeouts

    def _baseline(self, area: Area, mutant: Mutant) -> float:
        tree, module = self._trees[0], mutant.module
        tests = area.tests_of(module, tree.root)
        begun = time.monotonic()
        if not tree.passes(tests, BASELINE_S):
            raise CampaignError(
                f"tests of {area.name} fail without a mutant; mend them first:\n{tree.printed}"
            )
        took = time.monotonic() - begun
        tree.write(module, mutant.source + b"\nraise RuntimeError\n")
        if tree.passes(tests, BASELINE_S):
            raise CampaignError(f"tests of {area.name} pass although {module} cannot be imported")
        tree.write(module, mutant.source)
        return FACTOR * took + EXTRA_S

    def _work(
        self,
        tree: Tree,
        waiting: queue.SimpleQueue[Mutant],
        timeouts: dict[str, float],
        done: queue.SimpleQueue[Outcome | BaseException],
    ) -> None:
        try:
            while not self._stopped.is_set():
                try:
                    mutant = waiting.get_nowait()
                except queue.Empty:
                    return
                done.put(self._test(tree, mutant, timeouts[mutant.area.name]))
        except BaseException as error:  # noqa: BLE001 - raised again in the main thread
            done.put(error)

    def _test(self, tree: Tree, mutant: Mutant, timeout: float) -> Outcome:
        begun = time.monotonic()
        tree.write(mutant.module, mutant.change.apply(mutant.source))
        passed = tree.passes(mutant.area.tests_of(mutant.module, tree.root), timeout)
        tree.write(mutant.module, mutant.source)
        verdict: Verdict = "timeout" if passed is None else "survived" if passed else "killed"
        return Outcome(mutant, verdict, time.monotonic() - begun)

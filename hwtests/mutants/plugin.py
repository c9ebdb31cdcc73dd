"""The pytest plugin of a test run: it records what tests call, or runs only the chosen tests.

Environment variable MUTATION_PLAN names a JSON file: `modules` and the file `record` for the
first; for the second `tests`, and the file `failed` for the id of the one that fails.
"""

import functools
import json
import os
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

import pytest

PLAN = "MUTATION_PLAN"


def pytest_configure(config: pytest.Config) -> None:
    """Start what the plan says."""
    plan = json.loads(Path(os.environ[PLAN]).read_text(encoding="utf-8"))
    plugin = Recorder(plan["modules"], Path(plan["record"])) if "record" in plan else None
    config.pluginmanager.register(plugin or Chosen(plan["tests"], Path(plan["failed"])))


class Recorder:
    """The functions of some modules that each test calls, in the process of the tests.

    What is called while a test file is imported, or by a fixture that several tests share, counts
    for all tests below that file or package.
    """

    def __init__(self, modules: list[str], file: Path) -> None:
        """Record from now on."""
        self._modules = {str(Path.cwd() / each): each for each in modules}
        self._file = file
        self._calls: dict[str, set[tuple[str, str]]] = defaultdict(set)
        self._now = self._calls[""]
        self._seconds: dict[str, float] = {}
        self._trace_on()

    def _trace_on(self) -> None:
        threading.settrace(self._trace)
        sys.settrace(self._trace)

    def _trace(self, frame: FrameType, _event: str, _argument: object) -> None:
        """Called by Python at each call of a function; lines in it are not traced."""
        module = self._modules.get(frame.f_code.co_filename)
        if module is not None:
            self._now.add((module, frame.f_code.co_qualname))

    @contextmanager
    def _calls_of(self, node_id: str) -> Iterator[None]:
        before, self._now = self._now, self._calls[node_id]
        self._trace_on()
        try:
            yield
        finally:
            self._now = before

    @pytest.hookimpl(wrapper=True)
    def pytest_make_collect_report(self, collector: pytest.Collector) -> Generator[None]:
        with self._calls_of(collector.nodeid if collector.nodeid.endswith(".py") else ""):
            return (yield)

    @pytest.hookimpl(wrapper=True)
    def pytest_fixture_setup(
        self, fixturedef: pytest.FixtureDef[object], request: pytest.FixtureRequest
    ) -> Generator[None]:
        if fixturedef.scope == "function":
            return (yield)
        with self._calls_of(request.node.nodeid if fixturedef.scope != "session" else ""):
            return (yield)

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Generator[None]:
        self._forget_results()
        begun = time.monotonic()
        with self._calls_of(item.nodeid):
            result = yield
        self._seconds[item.nodeid] = time.monotonic() - begun
        return result

    def _forget_results(self) -> None:
        """Empty the caches of functions: a test that gets an earlier result calls nothing."""
        for module in list(sys.modules.values()):
            if getattr(module, "__file__", None) in self._modules:
                for each in vars(module).values():
                    if isinstance(each, type(functools.cache(id))):
                        each.cache_clear()

    def pytest_sessionfinish(self) -> None:
        sys.settrace(None)
        calls = {name: sorted(each) for name, each in self._calls.items()}
        text = json.dumps({"calls": calls, "seconds": self._seconds})
        self._file.write_text(text, encoding="utf-8")


class Chosen:
    """Only these tests, in this order."""

    def __init__(self, tests: list[str], failed: Path) -> None:
        """`tests` are the ids of pytest; `failed` is the file for that of the one that fails."""
        self._tests = tests
        self._failed = failed

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        by_id = {each.nodeid: each for each in items}
        items[:] = [by_id[each] for each in self._tests]

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed:
            self._failed.write_text(report.nodeid, encoding="utf-8")

"""A plugin of pytest: what became of each test, as lines of JSON.

    pytest -p hwtests.suites.report --suite-report=FILE

appends to FILE a line when it knows how many tests there are, one for each test that has ended, and
one at its end. Several sessions may share a file.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

LAST_LINES = 12
"""Of what a failed test printed as its reason."""


class Report:
    """Appends what happens to a file."""

    def __init__(self, file: Path) -> None:
        self._file = file.open("a", encoding="utf-8")
        self._total = 0
        self._outcomes: dict[str, str] = {}

    def _write(self, **what: object) -> None:
        self._file.write(json.dumps(what) + "\n")
        self._file.flush()

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        """Write how many tests there are; with xdist, workers have collected them."""
        if session.items:
            self._set_total(len(session.items))

    @pytest.hookimpl(optionalhook=True)
    def pytest_xdist_node_collection_finished(self, ids: Sequence[str]) -> None:
        """Write how many tests there are. Each worker has collected the same."""
        self._set_total(len(ids))

    def _set_total(self, total: int) -> None:
        if total != self._total:
            self._total = total
            self._write(total=total)

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        """Write what could not be collected."""
        if report.failed:
            self._write(broken=f"{report.nodeid}: not collected", why=_last_lines(report))

    @pytest.hookimpl(optionalhook=True)
    def pytest_handlecrashitem(self, crashitem: str) -> None:
        """Write which test ended its worker."""
        self._write(broken=f"{crashitem}: its process ended")

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Write the outcome of a test after its last phase."""
        test = report.nodeid
        if report.failed:
            if self._outcomes.get(test) != "failed":
                self._write(test=test, outcome="failed", why=_last_lines(report))
            self._outcomes[test] = "failed"
        elif report.skipped:
            self._outcomes[test] = "skipped"
            self._write(test=test, outcome="skipped", why=_reason(report))
        if report.when == "teardown" and self._outcomes.setdefault(test, "passed") == "passed":
            self._write(test=test, outcome="passed")

    def pytest_internalerror(self, excrepr: object) -> None:
        """Write what is wrong with pytest or a plugin."""
        self._write(
            broken="an internal error of pytest", why=str(excrepr).splitlines()[-LAST_LINES:]
        )

    def pytest_unconfigure(self) -> None:
        """Close the file."""
        self._file.close()

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self, exitstatus: int) -> None:
        """Write how pytest ends."""
        self._write(exit=int(exitstatus))


def _last_lines(report: pytest.TestReport | pytest.CollectReport) -> list[str]:
    return report.longreprtext.splitlines()[-LAST_LINES:]


def _reason(report: pytest.TestReport) -> str:
    if hasattr(report, "wasxfail"):
        return f"expected to fail: {report.wasxfail}"
    # What was raised: the file, the line, and `Skipped: why`.
    longrepr: Any = report.longrepr
    return str(longrepr[2] if isinstance(longrepr, tuple) else longrepr).removeprefix("Skipped: ")


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the option."""
    parser.addoption("--suite-report", type=Path, help="append what becomes of each test to a file")


def pytest_configure(config: pytest.Config) -> None:
    """Write a report, in the process that starts workers or has none."""
    file = config.getoption("suite_report")
    if file and not hasattr(config, "workerinput"):
        config.pluginmanager.register(Report(file), "suite-report")

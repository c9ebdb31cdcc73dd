"""Run a list of suites to its end, and say what failed: `make gate`, `make nightly`.

A test that failed is run once more, alone. The exit code is 0 if every suite has passed.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from hwtests.suites.lists import LISTS, Suite
from hwtests.suites.outcome import Row, Tests, command_row, pytest_row, read, wants_second_look

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "build/suites"
SHOWN_LINES = 60
"""Of the output of a suite that failed in another way than by tests."""
MAX_SKIP_REASONS = 10
OF_MAKE = ("MAKEFLAGS", "MAKEOVERRIDES", "MFLAGS", "MAKELEVEL", "SUITES", "RESUME")
"""Variables that suites do not inherit."""
POLL_S = 0.25
END_S = 20.0
"""How long a suite that is interrupted may take to remove what it made."""


class Progress:
    """Says what runs: as one line on a terminal, else as a line a minute."""

    def __init__(self) -> None:
        self._terminal = sys.stdout.isatty()
        self._shown = time.monotonic()

    def begin(self, suite: Suite) -> None:
        """Say that a suite begins."""
        self._shown = time.monotonic()
        if not self._terminal:
            print(f"{suite.name}: begins, {_duration(suite.expected_s)} expected", flush=True)

    def show(self, suite: Suite, look: str, seconds: float, report: Path) -> None:
        """Say how far a look at a suite is, if it is time to."""
        if time.monotonic() - self._shown < (1.0 if self._terminal else 60.0):
            return
        self._shown, tests = time.monotonic(), _tests(report)
        count = f", {tests.done} of {tests.total} tests" if tests.total else ""
        failed = f", {len(tests.failed)} failed" if tests.failed else ""
        expected = f"{_duration(seconds)} of {_duration(suite.expected_s)}"
        text = f"{look}: {expected}{count}{failed}"
        print(f"\r\x1b[K{text}" if self._terminal else text, end="" if self._terminal else "\n")
        sys.stdout.flush()

    def end(self, row: Row) -> None:
        """Say how a suite has ended."""
        clear = "\r\x1b[K" if self._terminal else ""
        verdict = "passed" if row.ok else "failed"
        print(f"{clear}{row.name}: {verdict} in {_duration(row.seconds)}{_counts(row)}", flush=True)


@dataclass
class Runner:
    """Runs suites, one after the other."""

    folder: Path
    """For the report and the output of each."""
    arguments: str
    """For pytest."""
    interrupted: threading.Event
    progress: Progress = field(default_factory=Progress)

    def run(self, suite: Suite) -> Row:
        """Run a suite, and the tests that failed in it once more; return its row.

        Raises:
            KeyboardInterrupt: the run was interrupted; the suite's processes have ended.
        """
        began = time.monotonic()
        self.progress.begin(suite)
        cache = self.folder / f"{suite.name}.cache"
        shutil.rmtree(cache, ignore_errors=True)
        options = f"-o cache_dir={cache} {self.arguments}"
        first = self._look(suite, suite.name, options)
        if not suite.pytest:
            return command_row(suite.name, time.monotonic() - began, first[1])
        second = None
        if wants_second_look(*first):
            again = f"{options} -n0 --last-failed --last-failed-no-failures none"
            second = self._look(suite, f"{suite.name}.again", again)
        seconds = time.monotonic() - began
        return pytest_row(suite.name, seconds, first, second, may_be_empty=suite.may_be_empty)

    def _look(self, suite: Suite, name: str, options: str) -> tuple[Tests, int | None]:
        """Run a suite's command; return its tests and its exit code, None at its time limit."""
        report = self.folder / f"{name}.jsonl"
        report.unlink(missing_ok=True)
        # What make gives to the makes that it calls would replace PYTEST_ARGS.
        env = {name: text for name, text in os.environ.items() if name not in OF_MAKE} | suite.env
        if suite.pytest:
            env["PYTEST_ARGS"] = f"-p hwtests.suites.report --suite-report={report} {options}"
        began = time.monotonic()
        with (self.folder / f"{name}.log").open("wb") as out:
            child = subprocess.Popen(
                suite.command,
                cwd=ROOT,
                env=env,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        while child.poll() is None:
            seconds = time.monotonic() - began
            if self.interrupted.wait(POLL_S):
                _end(child)
                raise KeyboardInterrupt
            if seconds > suite.limit_s:
                _end(child)
                return _tests(report), None
            self.progress.show(suite, name, seconds, report)
        return _tests(report), child.returncode


def _tests(report: Path) -> Tests:
    return read(report.read_text(encoding="utf-8").splitlines()) if report.exists() else Tests()


def _end(child: subprocess.Popen[bytes]) -> None:
    """End a suite and its processes; first so that it can remove what it made."""
    for number in (signal.SIGINT, signal.SIGKILL):
        try:
            os.killpg(child.pid, number)
            child.wait(END_S)
        except (ProcessLookupError, subprocess.TimeoutExpired):
            continue


def table(rows: Sequence[Row], folder: Path) -> str:
    """Return what is said at the end; its last line has the number of tests."""
    lines: list[str] = []
    for row in rows:
        lines += [
            line for test, why in row.failures.items() for line in (f"FAILED {test}", *_in(why))
        ]
        if row.broken:
            lines += [f"{row.name}: failed", *_in(row.broken)]
            log = folder / f"{row.name}.log"
            if log.exists():
                text = log.read_text(encoding="utf-8", errors="replace").splitlines()
                lines += [
                    f"The end of {log.relative_to(folder.parent)}:",
                    *_in(text[-SHOWN_LINES:]),
                ]
    for row in rows:
        reasons = sorted(row.skipped.items(), key=lambda each: -each[1])
        lines += [f"{row.name}: skipped {n}: {why}" for why, n in reasons[:MAX_SKIP_REASONS]]
        if len(reasons) > MAX_SKIP_REASONS:
            lines.append(f"{row.name}: skipped for {len(reasons) - MAX_SKIP_REASONS} more reasons")
    for row in rows:
        lines += [
            line for test, why in row.twice.items() for line in (f"second look: {test}", *_in(why))
        ]
    lines.append(
        f"\n{'suite':14} {'seconds':>8} {'passed':>7} {'failed':>7} {'twice':>6} {'skipped':>8}"
    )
    lines += [
        f"{row.name:14} {row.seconds:8.0f} {row.passed:7} {row.failed:7} {len(row.twice):6} "
        f"{sum(row.skipped.values()):8}{'' if row.ok else '   failed'}"
        for row in rows
    ]
    lines.append(f"{'':14} {sum(row.seconds for row in rows):8.0f}\n")
    passed, failed = sum(row.passed for row in rows), sum(row.failed for row in rows)
    # A suite that broke has failed, even if none of its tests has.
    failed += sum(not row.failed for row in rows if row.broken)
    lines.append(f"{passed} passed, {failed} failed")
    return "\n".join(lines)


def _in(lines: Sequence[str]) -> list[str]:
    return [f"    {line}" for line in lines]


def _counts(row: Row) -> str:
    parts = {
        "passed": row.passed,
        "failed": row.failed,
        "passed at the second look": len(row.twice),
    }
    return "".join(f", {number} {what}" for what, number in parts.items() if number)


def _duration(seconds: float) -> str:
    return f"{int(seconds) // 60}:{int(seconds) % 60:02}"


def _commit() -> str:
    words = ["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    return subprocess.run(words, cwd=ROOT, capture_output=True, text=True).stdout.strip()


@contextmanager
def interrupts() -> Iterator[threading.Event]:
    """Set an event at Ctrl-C or SIGTERM, so that neither comes between a start and its end."""
    interrupted = threading.Event()
    numbers = (signal.SIGINT, signal.SIGTERM)
    before = [signal.signal(number, lambda *_: interrupted.set()) for number in numbers]
    try:
        yield interrupted
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)


def run_list(
    suites: Sequence[Suite], folder: Path, arguments: str = "", *, resume: bool = False
) -> int:
    """Run suites, keep what became of each, print the table; return the exit code."""
    folder.mkdir(parents=True, exist_ok=True)
    kept, commit = folder / "rows.json", _commit()
    rows: list[Row] = []
    if resume:
        before = json.loads(kept.read_text(encoding="utf-8")) if kept.exists() else {}
        if before.get("commit") != commit:
            print(f"There is no interrupted run of {commit} to go on with", file=sys.stderr)
            return 2
        rows = [Row(**row) for row in before["rows"]]
    done = {row.name for row in rows}
    with interrupts() as interrupted:
        runner = Runner(folder, arguments, interrupted)
        try:
            for suite in suites:
                if suite.name not in done:
                    rows.append(runner.run(suite))
                    runner.progress.end(rows[-1])
                    state = {"commit": commit, "rows": [row.as_json() for row in rows]}
                    kept.write_text(json.dumps(state), encoding="utf-8")
        except KeyboardInterrupt:
            left = [suite.name for suite in suites if suite.name not in {row.name for row in rows}]
            print(f"\nInterrupted; did not run: {', '.join(left)}", file=sys.stderr)
    text = table(rows, folder)
    (folder / "table.txt").write_text(text + "\n", encoding="utf-8")
    print(text, flush=True)
    if interrupted.is_set():
        return 130
    return 0 if all(row.ok for row in rows) else 1


def main(words: Sequence[str]) -> int:
    """Run the list that the command line names."""
    parser = argparse.ArgumentParser(
        prog="python -m hwtests.suites",
        description="Run a list of suites to its end. PYTEST_ARGS in the environment narrows them.",
        epilog="example: make gate SUITES='test pure' PYTEST_ARGS='-k link'",
    )
    parser.add_argument("list", choices=LISTS)
    parser.add_argument("suites", nargs="*", help="those to run; all if none is named")
    parser.add_argument("--resume", action="store_true", help="go on with an interrupted run")
    options = parser.parse_args(words)
    known = {suite.name: suite for suite in LISTS[options.list]}
    if unknown := [name for name in options.suites if name not in known]:
        parser.error(f"{options.list} has no suite {unknown[0]!r}; it has {', '.join(known)}")
    suites = [known[name] for name in options.suites] or LISTS[options.list]
    arguments = os.environ.get("PYTEST_ARGS", "")
    return run_list(suites, FOLDER / options.list, arguments, resume=options.resume)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

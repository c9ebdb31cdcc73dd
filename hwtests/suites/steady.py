"""Run the tests of a change ten times on a busy machine, and list those that failed even once.

`make steady` takes the test files that differ from the last merge (or, if there is none, from the
commit before the last), also those that are not committed yet.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tempfile
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from hwtests.suites.outcome import read

ROOT = Path(__file__).parents[2]
TIMES = 10
BUSY_LOOPS = 2
WRITE_BYTES = 4 << 20
"""What is written to the disk at once, and waited for."""
ELSEWHERE = ("tests/hub/", "tests/browser/", "tests/ros2_peers/")
"""They need what `make hub`, `make browser` and `make ros2` prepare."""


def changed(base: str) -> list[str]:
    """Return the test files that differ from a commit.

    Raises subprocess.CalledProcessError if there is no such commit.
    """
    tracked = _git("diff", "--name-only", "--diff-filter=d", base, "--", "tests")
    new = _git("ls-files", "--others", "--exclude-standard", "--", "tests")
    return sorted(
        name
        for name in {*tracked, *new}
        if Path(name).name.startswith("test_")
        and name.endswith(".py")
        and not name.startswith(ELSEWHERE)
    )


def last_merge() -> str:
    """Return the last merge, or the commit before the last if nothing was merged."""
    return (_git("rev-list", "--merges", "--max-count=1", "HEAD") or ["HEAD~1"])[0]


def _git(*words: str) -> list[str]:
    done = subprocess.run(["git", *words], cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True)
    return done.stdout.splitlines()


@contextmanager
def load() -> Iterator[None]:
    """Keep two processors busy, and the disk of the tests' folders."""
    loops = [
        subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(BUSY_LOOPS)
    ]
    done = threading.Event()
    writer = threading.Thread(target=_write, args=(done,))
    writer.start()
    try:
        yield
    finally:
        done.set()
        writer.join()
        for loop in loops:
            loop.kill()
            loop.wait()


def _write(done: threading.Event) -> None:
    with tempfile.TemporaryFile() as file:
        while not done.is_set():
            file.seek(0)
            file.write(b"\xa5" * WRITE_BYTES)
            file.flush()
            os.fsync(file.fileno())


def once(test: str) -> str:
    """Return the name of a test without the number that pytest-repeat has added to it."""
    return re.sub(rf"-\d+-{TIMES}\]$", "]", re.sub(rf"\[\d+-{TIMES}\]$", "", test))


def main(words: Sequence[str]) -> int:
    """Run them; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m hwtests.suites.steady", description=__doc__)
    parser.add_argument("--base", help="the commit to compare with; by default the last merge")
    parser.add_argument("--all", action="store_true", help="every test of `make test`")
    options, arguments = parser.parse_known_args(words)
    files = changed(options.base or last_merge())
    if not files and not options.all:
        print(f"No test differs from {options.base or last_merge()}")
        return 0
    print(
        f"{TIMES} times beside a load:",
        "every test" if options.all else " ".join(files),
        flush=True,
    )
    selected = ["tests", *(f"--ignore={name}" for name in ELSEWHERE)] if options.all else files
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder, "report.jsonl")
        command = [sys.executable, "-m", "pytest", f"--count={TIMES}", "-n", str(os.cpu_count())]
        plugin = ["-p", "hwtests.suites.report", "--suite-report", str(report)]
        marks = ["-m", "not unsteady and not examples"]
        with load():
            run = [*command, *plugin, *marks, *selected, *arguments]
            code = subprocess.run(run, cwd=ROOT, check=False).returncode
        tests = read(report.read_text(encoding="utf-8").splitlines()) if report.exists() else None
    if tests is not None:
        for test, count in Counter(map(once, tests.failed)).most_common():
            print(f"failed {count} of {TIMES}: {test}")
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

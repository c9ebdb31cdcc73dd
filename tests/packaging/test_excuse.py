"""What CI excuses: one failed test of the whole run that passes by itself, and nothing else."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

EXCUSE = Path(__file__).parents[2] / ".ci/excuse.sh"

MAKEFILE = """
.PHONY: first second
first second:
	@./$@ $(PYTEST_ARGS)
"""

SCRIPT = f"""
set -euo pipefail
. {EXCUSE}
with_one_excuse first
with_one_excuse second
echo "excused: ${{excused:-none}}"
"""

PASSES = "exit 0"

FAILS = """
case "$*" in *--last-failed*) exit 0;; esac
mkdir -p .pytest_cache/v/cache
echo '{"tests/test_%s.py::test_it": true}' >.pytest_cache/v/cache/lastfailed
exit 1
"""


def run(folder: Path, first: str, second: str) -> tuple[int, list[str]]:
    """Return the exit code, and the lines, of a run with two targets."""
    (folder / "Makefile").write_text(MAKEFILE)
    for name, text in (("first", first), ("second", second)):
        path = folder / name
        path.write_text(f"#!/bin/sh\n{text}\n")
        path.chmod(0o755)
    # Without what `make test` adds: CI is not started by make.
    env = {
        name: text for name, text in os.environ.items() if not name.startswith(("MAKE", "MFLAGS"))
    }
    done = subprocess.run(
        ["bash", "-c", SCRIPT],
        cwd=folder,
        env=env,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return done.returncode, done.stdout.splitlines()


def test_one_test_that_passes_by_itself_is_excused_and_named(tmp_path: Path) -> None:
    code, lines = run(tmp_path, FAILS % "a", PASSES)
    assert code == 0
    assert lines[-1] == "excused: tests/test_a.py::test_it"
    assert "--- first: once more: tests/test_a.py::test_it ---" in lines
    assert run(tmp_path, PASSES, PASSES) == (0, ["excused: none"])


@pytest.mark.parametrize(
    ("second", "why"),
    [
        (FAILS % "b", "tests/test_b.py::test_it; excused before: tests/test_a.py::test_it"),
        ("exit 1", "not in a test; excused before: tests/test_a.py::test_it"),
    ],
    ids=["test", "before pytest"],
)
def test_a_second_failure_is_never_excused(tmp_path: Path, second: str, why: str) -> None:
    code, lines = run(tmp_path, FAILS % "a", second)
    assert (code, lines[-1]) == (1, f"--- second failed: {why} ---")


@pytest.mark.parametrize(
    "text",
    [
        "exit 1",
        "exit 5",
        (FAILS % "a").replace("exit 1", "exit 3"),
        (FAILS % "a").replace("exit 1", "exit 2"),
        (FAILS % "a").replace("::test_it", ""),
        (FAILS % "a").replace("true", 'true, "tests/test_b.py::test_it": true'),
        (FAILS % "a").replace("exit 1", "echo \"worker 'gw0' crashed while running\"; exit 1"),
    ],
    ids=[
        "before pytest",
        "collected nothing",
        "internal error",
        "interrupted",
        "not collected",
        "two tests",
        "crashed",
    ],
)
def test_what_is_not_one_failed_test_of_a_whole_run_is_not_excused(
    tmp_path: Path, text: str
) -> None:
    last = tmp_path / ".pytest_cache/v/cache/lastfailed"
    last.parent.mkdir(parents=True)
    last.write_text('{"tests/test_earlier.py::test_it": true}')
    code, lines = run(tmp_path, text, PASSES)
    assert code == 1
    assert lines[-1].endswith("excused before: none ---")

"""The fixtures of the tests: what they print of a failed run, and the leaks that they see."""

import re
import subprocess
import sys
from pathlib import Path
from textwrap import dedent

import pytest

from tests.harness.waiting import until, wait_until

ROOT = Path(__file__).parents[1]
CONFTEST = """
from tests.conftest import *
from tests.conftest import pytest_terminal_summary
"""


def run(folder: Path, text: str, **environ: str) -> str:
    """Run a file of tests with the fixtures of ours, and return what pytest has printed."""
    (folder / "conftest.py").write_text(CONFTEST)
    (folder / "test_it.py").write_text(dedent(text))
    command = [sys.executable, "-m", "pytest", "-q", "-n0", "-p", "no:cacheprovider"]
    done = subprocess.run(
        [*command, "--rootdir", folder, folder / "test_it.py"],
        cwd=folder,
        env={"PATH": "/usr/bin:/bin", "PYTHONPATH": str(ROOT), **environ},
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    return done.stdout + done.stderr


LEFT = {
    "threading.Thread(target=time.sleep, args=(60,), daemon=True, name='late')": "thread late",
    "open(tmp_path / 'state.db', 'w')": "descriptor .*state.db",
    "open(tmp_path / 'a.lock', 'w')": "descriptor .*a.lock",
    "open(tmp_path / 'a.so', 'w')": "descriptor .*a.so",
    "subprocess.Popen(['sleep', '60'])": "process .*sleep 60",
    "texts()": r"mapped memory /memfd:dorad-texts",
    "segment()": "file /dev/shm/dorad-",
}
LEAVES = """
import atexit, os, pathlib, subprocess, threading, time
import pytest
from dorad.shm import create
from tests.harness import leaks

leaks.SETTLE_S = 0.1
kept = []


def texts():
    descriptor, mapping = create.create_texts(4096)
    os.close(descriptor)
    return mapping


def segment():
    gone = subprocess.Popen(["true"])
    gone.wait()
    path = pathlib.Path(f"/dev/shm/dorad-{gone.pid}-test")
    os.mkfifo(path)  # daemons of other tests remove only plain files of dead processes
    atexit.register(path.unlink)


def keep(thing):
    kept.append(thing)
    if isinstance(thing, threading.Thread):
        thing.start()
    if isinstance(thing, subprocess.Popen):
        atexit.register(thing.kill)
"""


def test_what_a_test_leaves_fails_it_alone(tmp_path: Path) -> None:
    tests = [f"def test_{at}(tmp_path):\n    keep({left})\n" for at, left in enumerate(LEFT)]
    printed = run(tmp_path, "\n".join([LEAVES, *tests, "def test_good(): pass"]))
    for found in LEFT.values():
        assert len(re.findall(f"^E +Failed: left behind: .*{found}", printed, re.M)) == 1, printed
    assert f"{len(LEFT) + 1} passed, {len(LEFT)} errors" in printed, printed


def test_a_test_that_leaves_nothing_passes(tmp_path: Path) -> None:
    assert "1 passed" in run(
        tmp_path,
        """
        import threading


        def test_it(tmp_path):
            with open(tmp_path / "state.db", "w"):
                thread = threading.Thread(target=print)
                thread.start()
                thread.join()
        """,
    )


CHOOSE = """
def test_it(chance):
    assert False, f"chosen: {chance.random()}"
"""


def test_a_failed_test_prints_the_seed_that_repeats_its_choices(tmp_path: Path) -> None:
    first = run(tmp_path, CHOOSE)
    found = re.search(r"repeat with: TEST_SEED=(\d+) pytest 'test_it.py::test_it'", first)
    assert found, first
    again = run(tmp_path, CHOOSE, TEST_SEED=found[1])
    chosen = [re.search(r"chosen: [\d.]+", each) for each in (first, again)]
    assert chosen[0]
    assert chosen[1]
    assert chosen[0][0] == chosen[1][0]


def test_the_reasons_of_skipped_tests_are_counted(tmp_path: Path) -> None:
    printed = run(
        tmp_path,
        """
        import pytest

        @pytest.mark.skip(reason="there is no tmux")
        @pytest.mark.parametrize("number", range(3))
        def test_it(number): ...

        def test_other():
            pytest.skip("there is no camera")
        """,
    )
    assert "skipped 3: there is no tmux\n" in printed
    assert "skipped 1: there is no camera\n" in printed


async def test_a_wait_ends_with_what_it_waited_for() -> None:
    numbers = iter(range(9))
    assert wait_until(lambda: next(numbers), lambda number: number == 3) == 3
    assert await until(lambda: next(numbers)) == 4

    async def look() -> int:
        return next(numbers)

    assert await until(look, lambda number: number > 5) == 6


async def test_a_wait_in_vain_says_what_it_saw_last() -> None:
    with pytest.raises(AssertionError, match="no link came up; seen last: 'connecting'"):
        wait_until(lambda: "connecting", "up".__eq__, why="no link came up", deadline_s=0)
    with pytest.raises(AssertionError, match=r"did not hold in time; seen last: \[\]"):
        await until(list, deadline_s=0)

"""A list of suites is run to its end, and luck is told from damage."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
import uuid
from dataclasses import replace
from pathlib import Path

import pytest

from hwtests.suites import __main__ as runner
from hwtests.suites.lists import LISTS, Suite
from hwtests.suites.steady import once
from tests.harness.process import MARKER, marked
from tests.harness.waiting import DEADLINE_S, wait_until

ROOT = Path(__file__).parents[2]
PASSES = "def test_passes(): pass"
FAILS = "def test_fails(): assert 1 == 2"
FAILS_FIRST = """
    import pathlib

    def test_fails_first():
        marker = pathlib.Path(__file__).with_suffix(".marker")
        if not marker.exists():
            marker.touch()
            assert "luck" == "damage"
"""
ENDS_ITS_WORKER = "import os\ndef test_ends_its_worker(): os._exit(3)"
SKIPS = """
    import pytest

    @pytest.mark.skip(reason="no such thing here")
    def test_skips(): pass
"""


@pytest.fixture
def toy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder for toy tests; the runner looks for nothing else."""
    # As for `make`, which gives PYTEST_ARGS on.
    monkeypatch.delenv("PYTEST_ARGS", raising=False)
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    return tmp_path


def suite(folder: Path, name: str = "toy", limit_s: int = 60, **files: str) -> Suite:
    """Return a suite of these toy tests, run by two workers."""
    tests = folder / name
    tests.mkdir()
    for file, text in files.items():
        (tests / f"test_{file}.py").write_text(textwrap.dedent(text))
    command = f"{sys.executable} -m pytest -n 2 -c {folder}/pytest.ini {tests} $PYTEST_ARGS"
    return Suite(name, ["sh", "-c", f"exec {command}"], 1, limit_s)


def run(folder: Path, *suites: Suite, resume: bool = False) -> int:
    return runner.run_list(suites, folder / "out", resume=resume)


def test_suites_that_pass_end_with_exit_code_0_and_the_number_of_tests(
    toy: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = Suite("command", ["true"], 1, 60, pytest=False)
    assert run(toy, suite(toy, a=PASSES, b=PASSES, c=SKIPS), command) == 0
    printed = capsys.readouterr().out
    assert printed.splitlines()[-1] == "3 passed, 0 failed"
    assert "toy: skipped 1: no such thing here" in printed
    assert (toy / "out/table.txt").read_text() in printed


def test_a_test_that_fails_only_at_first_does_not_fail_the_run_and_is_named(
    toy: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(toy, suite(toy, a=FAILS_FIRST, b=PASSES)) == 0
    printed = capsys.readouterr().out
    assert "second look: toy/test_a.py::test_fails_first" in printed
    assert "luck" in printed.partition("second look: ")[2]
    assert printed.splitlines()[-1] == "2 passed, 0 failed"


def test_the_second_look_at_a_copy_of_the_tree_takes_the_test_that_failed_alone(toy: Path) -> None:
    """The report is in the tree itself, whose settings must not be taken for those of the copy."""
    runs = toy / "runs"
    passes = f"def test_passes(): open({str(runs)!r}, 'a').write('once ')"
    whole = suite(toy, "copy", a=FAILS_FIRST, b=passes)
    (toy / "copy/pytest.ini").write_text("[pytest]\n")
    command = f"cd {toy}/copy && exec {sys.executable} -m pytest -n 2 . $PYTEST_ARGS"
    assert run(toy, replace(whole, command=["sh", "-c", command])) == 0
    assert runs.read_text() == "once "


def test_a_test_that_always_fails_fails_the_run_which_goes_on(
    toy: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(toy, suite(toy, a=FAILS, b=FAILS_FIRST), suite(toy, "next", c=PASSES)) == 1
    printed = capsys.readouterr().out
    assert "FAILED toy/test_a.py::test_fails" in printed
    assert "assert 1 == 2" in printed
    assert "next: passed" in printed
    assert printed.splitlines()[-1] == "2 passed, 1 failed"


def test_a_test_that_ends_its_worker_gets_no_second_look(
    toy: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(toy, suite(toy, a=ENDS_ITS_WORKER, b=PASSES)) == 1
    printed = capsys.readouterr().out
    assert "test_ends_its_worker: its process ended" in printed
    assert "second look" not in printed


def test_a_test_that_ends_its_process_only_at_the_second_look_fails_the_run(toy: Path) -> None:
    text = FAILS_FIRST.replace(
        "if not", "if marker.exists():\n            import os; os._exit(0)\n        if not"
    )
    assert run(toy, suite(toy, a=text)) == 1


def test_a_suite_that_hangs_is_ended_with_its_processes(
    toy: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    name = f"600.{uuid.uuid4().int}"
    # A command in the background ignores SIGINT.
    hangs = Suite("hangs", ["sh", "-c", f"sleep {name} & wait"], 1, 2)
    assert run(toy, hangs, suite(toy, "next", b=PASSES)) == 1
    printed = capsys.readouterr().out
    assert "reached its time limit" in printed
    assert "next: passed" in printed
    wait_until(lambda: not marked(MARKER, "none", argument=name))


def test_a_suite_that_collects_nothing_fails_unless_it_may_be_empty(toy: Path) -> None:
    empty = suite(toy, a="")
    assert run(toy, empty) == 1
    # As `make test-unsteady`, which takes the code for no tests as none.
    tolerant = [*empty.command[:2], f"{empty.command[2].removeprefix('exec ')} || [ $? = 5 ]"]
    assert run(toy, Suite("toy", tolerant, 1, 60)) == 1
    assert run(toy, Suite("toy", tolerant, 1, 60, may_be_empty=True)) == 0


@pytest.mark.parametrize(("number", "second_look"), [(20, True), (21, False)])
def test_with_more_than_20_failures_there_is_no_second_look(
    toy: Path, number: int, second_look: bool
) -> None:
    text = FAILS_FIRST.replace("first():", "first(number):").replace('".marker"', 'f".{number}"')
    decorator = f"import pytest\n@pytest.mark.parametrize('number', range({number}))\ndef test"
    text = textwrap.dedent(text).replace("def test", decorator)
    assert run(toy, suite(toy, a=text)) == (0 if second_look else 1)
    assert (toy / "out/toy.again.log").exists() == second_look


@pytest.mark.parametrize(
    "text",
    ["import no_such_module", "def test_a(no_such_fixture): pass", "def test_a(:"],
    ids=["import", "fixture", "syntax"],
)
def test_tests_that_cannot_begin_fail_the_run(toy: Path, text: str) -> None:
    assert run(toy, suite(toy, a=text, b=PASSES)) == 1


def test_a_command_that_fails_after_its_tests_have_passed_fails_the_run(toy: Path) -> None:
    passes = suite(toy, a=PASSES)
    script = passes.command[2].removeprefix("exec ")
    assert run(toy, Suite("toy", ["sh", "-c", f"{script}; exit 1"], 1, 60)) == 1
    # As a linter before the tests.
    assert run(toy, Suite("toy", ["sh", "-c", f"false && {script}"], 1, 60)) == 1
    assert run(toy, Suite("toy", ["false"], 1, 60, pytest=False)) == 1


def test_an_interrupted_run_goes_on_with_what_is_left(toy: Path) -> None:
    ran = toy / "ran"
    note = Suite("note", ["sh", "-c", f"echo >>{ran}"], 1, 60, pytest=False)
    interrupt = Suite(
        "interrupt", ["sh", "-c", f"kill -INT {os.getpid()}; sleep 60"], 1, 60, pytest=False
    )
    instead = Suite("interrupt", ["true"], 1, 60, pytest=False)
    assert run(toy, note, interrupt) == 130
    assert run(toy, note, instead, resume=True) == 0
    assert ran.read_text() == "\n"
    rows = json.loads((toy / "out/rows.json").read_text())
    assert [row["name"] for row in rows["rows"]] == ["note", "interrupt"]
    rows["commit"] = "another"
    (toy / "out/rows.json").write_text(json.dumps(rows))
    assert run(toy, note, instead, resume=True) == 2


def test_a_suite_that_does_not_exist_is_refused_with_those_that_do() -> None:
    make = ["make", "-s", "-C", str(ROOT), "gate", "SUITES=test nosuch"]
    wrong = subprocess.run(make, capture_output=True, text=True, check=False)
    assert wrong.returncode == 2
    assert "gate has no suite 'nosuch'; it has native, lint" in wrong.stderr


def test_arguments_for_pytest_narrow_a_suite_also_if_make_was_given_them(
    toy: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    both = suite(toy, a=PASSES, b=FAILS)
    makefile = toy / "Makefile"
    makefile.write_text(
        f"all:\n\t{both.command[2].replace('$', '$$')}\n".replace("$$PYTEST", "$(PYTEST").replace(
            "ARGS", "ARGS)"
        )
    )
    monkeypatch.setenv("PYTEST_ARGS", "-k passes")
    monkeypatch.setenv("MAKEFLAGS", " -- PYTEST_ARGS=-k\\ passes")
    monkeypatch.setattr(runner, "FOLDER", toy / "out")
    monkeypatch.setitem(LISTS, "gate", [Suite("toy", ["make", "-f", str(makefile)], 1, 60)])
    assert runner.main(["gate"]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "1 passed, 0 failed"


def test_every_suite_is_a_target_of_make() -> None:
    targets = {
        suite.command[-1] for each in LISTS.values() for suite in each if len(suite.command) == 2
    }
    for target in targets:
        subprocess.run(
            ["make", "-n", "-C", str(ROOT), target], check=True, stdout=subprocess.DEVNULL
        )


@pytest.mark.parametrize(
    ("repeated", "name"),
    [
        ("tests/a.py::test_b[3-10]", "tests/a.py::test_b"),
        ("tests/a.py::test_b[one-2-3-10]", "tests/a.py::test_b[one-2]"),
    ],
)
def test_runs_of_a_repeated_test_count_for_one(repeated: str, name: str) -> None:
    assert once(repeated) == name


def test_an_end_by_a_signal_ends_the_suite_that_runs(tmp_path: Path) -> None:
    script = f"""
import sys
from pathlib import Path
from hwtests.suites import __main__ as runner
from hwtests.suites.lists import LISTS, Suite
runner.FOLDER = Path({str(tmp_path)!r})
sleep = ["sh", "-c", "echo $$ >{tmp_path}/pid; exec sleep 600"]
LISTS["gate"] = [Suite("sleeps", sleep, 1, 60, pytest=False)]
sys.exit(runner.main(["gate"]))
"""
    process = subprocess.Popen(
        [sys.executable, "-c", script],
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    pid_file = tmp_path / "pid"
    wait_until(lambda: pid_file.exists() and pid_file.read_text())
    process.send_signal(signal.SIGTERM)
    assert process.wait(DEADLINE_S) == 130
    wait_until(lambda: not Path(f"/proc/{pid_file.read_text().strip()}").exists())

"""The mutation test: its changes, its samples, its list of survivors, and a run of it."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path
from textwrap import dedent

import pytest

from hwtests.mutants import survivors
from hwtests.mutants.areas import AREAS, Area
from hwtests.mutants.calls import Calls
from hwtests.mutants.changes import Change, changes
from hwtests.mutants.sample import Mutant, all_mutants, sample
from tests.harness.waiting import wait_until

ROOT = Path(__file__).parents[2]
SURVIVORS = ROOT / "hwtests/mutants/survivors.toml"


def made(text: str) -> list[str]:
    """Return the changes of a module, as they are shown."""
    return [each.what for each in changes(dedent(text).encode())]


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("f(a < b)", ["f(a < b) -> pass", "a < b -> a <= b"]),
        ("f(a is not None)", ["f(a is not None) -> pass", "a is not None -> a is None"]),
        ("f(a < b == c)", ["f(a < b == c) -> pass", "a < b == c -> a <= b == c",
                           "a < b == c -> a < b != c"]),
        ("x = a and not b", ["a and not b -> a or not b", "not b -> b"]),
        ("x = (a) + (b)", ["(a) + (b) -> (a) - (b)"]),
        ("x += 1", ["x += 1 -> x -= 1", "1 -> 2"]),
        ("x.y = False", ["x.y = False -> pass", "False -> True"]),
        ("x = [1, 1]", ["1 -> 2", "1 -> 2 (2)"]),
        ("x = 2 if a else b", ["2 -> 3", "a -> False", "a -> True"]),
        ("x = [b for b in c if b]", ["b -> False", "b -> True"]),
        ("x = min(a)", ["min(a) -> max(a)"]),
        ("x = replace(a, b=c, d=e)", ["replace(a, b=c, d=e) -> replace(a, d=e)",
                                      "replace(a, b=c, d=e) -> replace(a, b=c, )"]),
        ("raise x", ["raise x -> pass"]),
        ("del x", ["del x -> pass"]),
    ],
)  # fmt: skip
def test_a_line_is_changed_in_one_place_at_a_time(line: str, expected: list[str]) -> None:
    assert [" ".join(each.replace(" , ", ", ").split()) for each in made(line)] == expected


def test_texts_log_lines_annotations_and_bounds_stay() -> None:
    assert (
        made(
            '''
            """A text: 1 < 2."""
            from typing import TYPE_CHECKING

            if TYPE_CHECKING:
                import x
            LIMIT = 10
            SECONDS: float = 2.5
            Alias: "A | B"


            def f(a: int | None) -> list[1]:
                """Another: a and b."""
                assert a is not None
                _log.debug("so many: %d", a + 1)
            '''
        )
        == []
    )
    assert made('x = f"{a + 1} and {b:.2f}" + c') == []
    assert made("x = zip(a, b, strict=True)") == []


@pytest.mark.long
def test_every_change_of_every_core_is_another_valid_module() -> None:
    for area in AREAS:
        module = area.paths(ROOT)[-1]
        source = (ROOT / module).read_bytes()
        for each in changes(source):
            changed = each.apply(source)
            assert changed != source
            compile(changed, f"{module}: {each.what}", "exec", dont_inherit=True)


def test_a_change_names_its_line_and_its_function() -> None:
    text = b"class A:\n    def f(self):\n        if self.x:\n            return 1\n"
    found = changes(text)
    assert {(each.line, each.function) for each in found} == {(3, "A.f"), (4, "A.f")}
    assert [each.source for each in found] == ["if self.x:", "if self.x:", "return 1"]


def test_every_area_has_modules_and_tests() -> None:
    names = Counter(module for area in AREAS for module in area.paths(ROOT))
    assert max(names.values()) == 1
    for area in AREAS:
        assert all((ROOT / each).is_file() for each in area.test_files(ROOT))
    with pytest.raises(ValueError, match=r"no module fits dorad/none/\*.py"):
        Area("a", ("dorad/none/*.py",), ()).paths(ROOT)


def test_no_two_changes_have_one_explanation() -> None:
    keys = Counter(each.key for each in all_mutants(AREAS, ROOT))
    assert [key for key, count in keys.items() if count > 1] == []


def test_of_a_long_text_the_changed_part_is_shown() -> None:
    names = " and ".join(f"long_name_{number}" for number in range(12))
    for old, new in (changed.split(" -> ") for changed in made(f"x = {names}")):
        assert old != new
        assert max(len(old), len(new)) <= 75


def test_the_tests_that_call_a_function_are_run_the_shortest_first() -> None:
    recorded = {
        "seconds": {"t/a.py::long": 3.0, "t/a.py::one": 0.1, "t/b.py::two": 0.01, "u.py::x": 0.0},
        "calls": {
            "t/a.py::long": [["m.py", "A.f"]],
            "t/a.py::one": [["m.py", "A.f.<locals>.g.<locals>.<lambda>"]],
            "t/b.py": [["m.py", "A.f.<locals>.<genexpr>"]],
            "u.py::x": [["other.py", "A.f"]],
            "": [["m.py", "shared"]],
        },
    }
    calls = Calls.of(recorded)
    area = Area("a", ("m.py",), ())

    def tests_of(function: str, *, in_function: bool = True) -> list[str]:
        change = Change(1, 0, 1, b"", function, in_function, "", "")
        return calls.tests_of(Mutant(area, "m.py", change, b""))

    # A fixture of t/b.py calls it, too: for any test of that file.
    assert tests_of("A.f") == ["t/b.py::two", "t/a.py::long"]
    assert tests_of("A.f.g") == ["t/a.py::one"]
    assert tests_of("A.unused") == []
    assert tests_of("shared") == ["t/a.py::one", "t/b.py::two", "u.py::x", "t/a.py::long"]
    assert tests_of("A", in_function=False) == tests_of("shared")
    assert calls.seconds(["t/a.py::one", "t/a.py::long"]) == 3.1


def test_a_seed_chooses_the_same_mutants_again_as_many_of_each_area() -> None:
    mutants = all_mutants(AREAS, ROOT)
    first, again, other = (sample(mutants, seed, 140) for seed in (1, 1, 2))
    assert first == again
    assert first != other
    counts = Counter(each.area.name for each in first)
    assert set(counts.values()) == {20}
    places = [(each.module, each.change.line) for each in first]
    assert len(set(places)) == len(places)
    few = [each for each in mutants if each.area.name == "delivery"]
    assert len(sample(few, 1, 10_000)) == len(few)


def test_the_list_of_survivors_is_that_of_todays_modules() -> None:
    assert survivors.stale(survivors.read(SURVIVORS), all_mutants(AREAS, ROOT)) == []


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ('[[survivor]]\nmodule = "a.py"\n', "needs change, function, line, module, reason"),
        (
            (
                '[[survivor]]\nmodule = "a.py"\nfunction = ""\nline = "x = 1"\n'
                'change = "1 -> 2"\nreason = "so"\n'
            ),
            r"`a.py in the module: 1 -> 2 \(`x = 1`\)` has no reason",
        ),
        ("[[survivor", "Expected"),
    ],
)
def test_a_survivor_without_an_explanation_is_an_error(
    tmp_path: Path, text: str, problem: str
) -> None:
    file = tmp_path / "survivors.toml"
    file.write_text(text)
    with pytest.raises(survivors.SurvivorsError, match=problem):
        survivors.read(file)


CORE = """
def larger(a, b):
    return a if a > b else b


def unused(a):
    return a + 1


first = {1: "a"}[1]
"""
TEST = """
import os
import subprocess
import sys

from dorad.core import larger


def test_larger():
    assert larger(1, 2) == 2
    assert larger(2, 1) == 2
    # Also processes that a test starts run the mutant.
    code = "from dorad.core import larger; print(larger(2, 1))"
    assert subprocess.check_output([sys.executable, "-c", code], text=True) == "2\\n"
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A copy of the mutation test whose only area is a module that is tested by half."""
    root = tmp_path / "p"
    (root / "hwtests").mkdir(parents=True)
    shutil.copytree(ROOT / "hwtests/mutants", root / "hwtests/mutants")
    (root / "hwtests/mutants/areas.py").write_text(
        (ROOT / "hwtests/mutants/areas.py").read_text().partition("AREAS = ")[0]
        + 'AREAS = (Area("core", ("dorad/core.py",), ("test_core.py",)),)\n'
    )
    (root / "hwtests/mutants/survivors.toml").write_text("")
    (root / "dorad").mkdir()
    (root / "dorad/core.py").write_text(CORE)
    (root / "test_core.py").write_text(TEST)
    (root / "pyproject.toml").write_text("[project.scripts]\n")
    return root


def run(root: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "hwtests.mutants", "--seed", "1", *arguments],
        cwd=root,
        env={**os.environ, "TMPDIR": str(root.parent)},
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )


@pytest.mark.long
def test_a_run_counts_what_the_tests_notice_and_leaves_the_tree_as_it_was(project: Path) -> None:
    files = [each for each in project.rglob("*.*") if each.suffix in (".py", ".toml")]
    before = {path: path.read_bytes() for path in files}
    done = run(project, "--json", "--jobs", "2", "--at-least", "60")
    result = json.loads(done.stdout)
    lived = [(each["function"], each["change"]) for each in result["mutants"]
             if each["verdict"] == "survived"]  # fmt: skip
    assert lived == [
        # Both are the larger one of equals.
        ("larger", "a > b -> a >= b"),
        ("unused", "1 -> 2"),
        ("unused", "a + 1 -> a - 1"),
        ("unused", "return a + 1 -> return None"),
    ]
    assert result["areas"]["core"] == result["total"]
    assert result["total"] == {
        "mutants": 9, "killed": 3, "unclear": 2, "explained": 0, "percent": 42.9
    }  # fmt: skip
    assert {each["function"]: each["tests"] for each in result["mutants"]} == {
        "": 1,
        "larger": 1,
        "unused": 0,
    }
    # The tests cannot be loaded with these, which says nothing about them.
    unclear = [each["function"] for each in result["mutants"] if each["verdict"] == "unclear"]
    assert unclear == ["", ""]
    assert done.returncode == 1
    assert "fewer than 60 % were killed" in done.stderr
    assert "--seed 1" in done.stderr
    after = {path: path.read_bytes() for path in before}
    assert after == before
    assert not [*project.parent.glob("mt-*")]
    assert run(project, "--at-least", "40").returncode == 0


@pytest.mark.long
def test_a_mutant_that_runs_for_ever_counts_apart(project: Path) -> None:
    (project / "dorad/core.py").write_text(
        "def count(n):\n    at = 0\n    while at < n:\n        at += 1\n    return at\n"
    )
    (project / "test_core.py").write_text(
        "from dorad.core import count\n\n\ndef test_count():\n    assert count(0) + count(3) == 3\n"
    )
    campaign = project / "hwtests/mutants/campaign.py"
    campaign.write_text(campaign.read_text().replace("FACTOR, EXTRA_S = 6.0, 60.0",
                                                     "FACTOR, EXTRA_S = 6.0, 20.0"))  # fmt: skip
    done = run(project, "--json")
    result = json.loads(done.stdout)
    late = [each["change"] for each in result["mutants"] if each["verdict"] == "unclear"]
    assert late == ["at += 1 -> at -= 1"]
    assert (result["total"]["unclear"], result["total"]["percent"]) == (1, 100.0)
    assert "unclear: dorad/core.py:4: at += 1 -> at -= 1" in done.stderr


@pytest.mark.long
def test_a_long_test_that_fails_without_the_mutant_as_well_kills_nothing(project: Path) -> None:
    """It has passed once: later the machine is too busy for it."""
    mark = project / "ran"
    (project / "test_core.py").write_text(
        "import pathlib, time\nfrom dorad.core import larger\n\n\ndef test_larger():\n"
        f"    ran = pathlib.Path({str(mark)!r})\n    busy = ran.exists()\n    ran.touch()\n"
        "    assert larger(1, 2) == 2\n    time.sleep(0.3)\n    assert not busy\n"
    )
    result = json.loads(run(project, "--json").stdout)
    found = {each["change"]: each["verdict"] for each in result["mutants"]
             if each["function"] == "larger"}  # fmt: skip
    assert set(found.values()) == {"unclear"}


def entry(function: str, change: str, line: str = "return a if a > b else b") -> str:
    fields = {"module": "dorad/core.py", "function": function, "line": line, "change": change}
    fields["reason"] = "of equals, either is the larger one"
    return "[[survivor]]\n" + "".join(f"{key} = {json.dumps(fields[key])}\n" for key in fields)


@pytest.mark.long
def test_an_explanation_of_what_is_noticed_or_of_no_change_is_an_error(project: Path) -> None:
    file = project / "hwtests/mutants/survivors.toml"
    file.write_text(entry("larger", "a > b -> a >= b"))
    done = run(project, "--at-least", "0")
    assert done.returncode == 0, done.stderr
    assert "1 survivors explained" in done.stdout
    assert "a > b -> a >= b" not in done.stdout
    file.write_text(entry("larger", "a > b -> True"))
    done = run(project, "--at-least", "0")
    assert done.returncode == 1
    assert "tests notice this one, remove it: dorad/core.py:3: a > b -> True" in done.stderr
    for gone in (
        entry("larger", "a > c -> a >= c"),
        entry("larger", "a > b -> a >= b", "return a"),
    ):
        file.write_text(gone)
        done = run(project, "--at-least", "0")
        assert done.returncode == 1
        assert "there is no such change: dorad/core.py in larger: a > " in done.stderr


@pytest.mark.long
def test_tests_that_fail_or_that_notice_nothing_end_the_run_at_once(project: Path) -> None:
    (project / "test_core.py").write_text("def test_nothing():\n    pass\n")
    done = run(project)
    assert done.returncode == 2
    assert "tests of core call no function of dorad/core.py" in done.stderr
    (project / "test_core.py").write_text("def test_something():\n    assert False\n")
    done = run(project)
    assert done.returncode == 2
    assert "tests of core fail without a mutant" in done.stderr
    assert "assert False" in done.stderr
    assert run(project, "--only", "dorad/other.py").returncode == 2


@pytest.mark.long
def test_an_interrupted_run_removes_its_copies_and_ends_its_processes(project: Path) -> None:
    mark = project / "began"
    (project / "test_core.py").write_text(
        "import pathlib, time\nimport dorad.core\n\n\ndef test_long():\n"
        f"    pathlib.Path({str(mark)!r}).touch()\n    time.sleep(600)\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-m", "hwtests.mutants", "--seed", "1"],
        cwd=project,
        env={**os.environ, "TMPDIR": str(project.parent)},
        stderr=subprocess.PIPE,
        text=True,
    )
    wait_until(lambda: process.poll() is not None or mark.exists(), deadline_s=100)
    assert process.poll() is None
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=100)
    assert process.returncode == 130, err
    assert "interrupted: the copies are removed" in err
    assert not [*project.parent.glob("mt-*")]

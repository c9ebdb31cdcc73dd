"""Which data plane runs: the extension where it fits, else pure Python, never a wrong one."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from dorad.shm import abi, native

PACKAGE = Path(native.__file__).parents[2]
SHOW = "from dorad.shm import native; print(native.describe())"


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A copy of the package's data plane, to be damaged."""
    if not abi.EXTENSION.exists():
        pytest.skip("the extension is not built (make native)")
    (tmp_path / "dorad").mkdir()
    for name in ("__init__.py", "problems.py"):
        shutil.copy(PACKAGE / name, tmp_path / "dorad")
    # A package's compiled files are used whatever their sources say.
    compiled = shutil.ignore_patterns("__pycache__")
    shutil.copytree(PACKAGE / "shm", tmp_path / "dorad/shm", ignore=compiled)
    return tmp_path


def load(tree: Path, wish: str | None = None, code: str = SHOW) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if name != native.VARIABLE}
    environment["PYTHONPATH"] = str(tree)
    if wish is not None:
        environment[native.VARIABLE] = wish
    return subprocess.run(
        [sys.executable, "-c", code],
        cwd=tree,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def extension(tree: Path) -> Path:
    return tree / "dorad/shm/native/_native.abi3.so"


def sources(tree: Path) -> list[Path]:
    found = sorted((tree / "dorad/shm").glob("*/*.[ch]"))
    if not found:
        pytest.skip("an installed package has no sources")
    return found


def move_a_word(tree: Path) -> None:
    layout = tree / "dorad/shm/layout.py"
    text = layout.read_text()
    assert "\nRING_TAIL = 2 * LINE " in text
    layout.write_text(text.replace("\nRING_TAIL = 2 * LINE ", "\nRING_TAIL = 2 * LINE + 1 "))


@pytest.mark.parametrize("wish", [None, "", "1"])
def test_the_extension_is_used_where_it_fits(tree: Path, wish: str | None) -> None:
    assert load(tree, wish).stdout == "native\n"


def test_0_turns_it_off(tree: Path) -> None:
    assert load(tree, "0").stdout == "pure Python (DORAD_NATIVE=0)\n"


def test_another_value_is_an_error(tree: Path) -> None:
    done = load(tree, "yes")
    assert done.returncode == 1
    assert "DORAD_NATIVE must be 0 or 1, not 'yes'" in done.stderr.splitlines()[-1]


def remove_sources(tree: Path) -> None:
    for source in (tree / "dorad/shm").glob("*/*.[ch]"):
        source.unlink()


def test_without_sources_it_is_not_compared_with_them(tree: Path) -> None:
    remove_sources(tree)
    assert load(tree).stdout == "native\n"


def change_a_source(tree: Path) -> None:
    with (tree / "dorad/shm/native/ring.c").open("a") as file:
        file.write("/* newer */\n")


def change_the_core(tree: Path) -> None:
    with (tree / "dorad/shm/core/ring.c").open("a") as file:
        file.write("/* newer */\n")


def add_a_source(tree: Path) -> None:
    (tree / "dorad/shm/native/more.c").write_text("/* newer */\n")


def move_a_word_beside_sources(tree: Path) -> None:
    assert sources(tree)
    move_a_word(tree)


def move_a_word_without_sources(tree: Path) -> None:
    remove_sources(tree)
    move_a_word(tree)


def damage_without_sources(tree: Path) -> None:
    remove_sources(tree)
    extension(tree).write_bytes(b"no library")


def remove(tree: Path) -> None:
    extension(tree).unlink()


@pytest.mark.parametrize(
    ("damage", "why"),
    [
        (remove, "_native.abi3.so is not built"),
        (change_a_source, "_native.abi3.so is older than its sources"),
        (change_the_core, "_native.abi3.so is older than its sources"),
        (add_a_source, "_native.abi3.so is older than its sources"),
        (move_a_word_beside_sources, "_native.abi3.so is older than its sources"),
        (
            move_a_word_without_sources,
            "_native.abi3.so has another layout: RING_TAIL is 16, not 17",
        ),
        (damage_without_sources, "_native.abi3.so cannot be loaded"),
    ],
)
def test_one_that_does_not_fit_is_refused(tree: Path, damage, why: str) -> None:
    damage(tree)
    done = load(tree)
    assert done.stdout.startswith("pure Python (")
    assert why in done.stdout
    assert done.stderr == ""
    done = load(tree, "1")
    assert done.returncode == 1
    assert why in done.stderr.splitlines()[-1]
    assert "DORAD_NATIVE=1, but" in done.stderr.splitlines()[-1]


def test_no_code_of_a_stale_extension_runs(tree: Path) -> None:
    change_a_source(tree)
    code = "import dorad.shm.native; print('_native' in open('/proc/self/maps').read())"
    done = load(tree, code=code)
    assert done.stdout == "False\n", done.stderr


def test_every_constant_of_the_layout_is_compiled_in() -> None:
    if native.module is None:
        pytest.skip(native.describe())
    assert abi.constants() == native.module.LAYOUT
    assert abi.constants()["RING_HEAD"] == 8
    assert abi.constants()["ENTRY_CODE"] == 60

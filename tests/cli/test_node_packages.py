"""A build that breaks pyarrow is named, with the package that is the reason and a way back."""

import os
import sys
import venv
import zipfile
from pathlib import Path

import pytest

from dorad.cli.node_packages import Packages, changes, damage, is_install, read
from tests.cli.dora import dora

FINE = Packages({"numpy": "2.4.6", "pyarrow": "26.0.1"}, native="native")
BROKEN = Packages(
    {"numpy": "1.26.4", "pyarrow": "26.0.1", "dora-echo": "0.4.1"},
    [("dora-echo", "numpy<2.0.0"), ("pyarrow", "numpy>=1.26")],
    "ImportError: numpy.core.multiarray failed to import",
    "",
)


def test_what_broke_pyarrow_is_named_with_the_way_back() -> None:
    broken = damage(FINE, BROKEN)
    assert broken is not None
    text, advice = broken
    assert text == (
        "nodes cannot start any more: ImportError: numpy.core.multiarray failed to import; the "
        "build has changed numpy from 2.4.6 to 1.26.4, dora-echo from nothing to 0.4.1; "
        "dora-echo requires numpy<2.0.0"
    )
    assert advice == (
        "`pip install numpy==2.4.6` mends the environment; if the node needs this numpy, let its "
        "`build` install 'pyarrow>=17,<19' too; with `--uv` each node has an environment of its own"
    )
    assert "--uv" not in (damage(FINE, BROKEN, own=True) or ("", "--uv"))[1]


def test_a_second_build_of_what_is_broken_still_names_the_package() -> None:
    text, advice = damage(BROKEN, BROKEN) or ("", "")
    assert text.startswith("nodes cannot start, before this command and after it: ImportError")
    assert "dora-echo requires numpy<2.0.0" in text
    assert "--force-reinstall" in advice


@pytest.mark.parametrize("before", [None, FINE, BROKEN])
@pytest.mark.parametrize(
    "after",
    [
        FINE,
        Packages({"numpy": "1.0", "pyarrow": "1.0"}, [("x", "numpy<2")], native="native"),
    ],
)
def test_an_environment_that_works_is_no_damage(before: Packages | None, after: Packages) -> None:
    assert damage(before, after) is None


def test_pyarrow_may_be_missing_but_not_vanish() -> None:
    none = Packages({}, error="ModuleNotFoundError: No module named 'pyarrow'")
    assert damage(None, none) is None
    assert damage(none, none) is None
    text, advice = damage(FINE, none) or ("", "")
    assert "No module named 'pyarrow'" in text
    assert "pyarrow from 26.0.1 to nothing" in text
    assert "`pip install numpy==2.4.6 pyarrow==26.0.1`" in advice


def test_the_loss_of_the_native_data_plane_is_damage() -> None:
    text, _ = damage(FINE, Packages(FINE.versions, native="pure Python (no module)")) or ("", "")
    assert "the data plane is no longer native: pure Python (no module)" in text


def test_changes_have_numpy_and_pyarrow_first() -> None:
    assert changes({"b": "1", "numpy": "2"}, {"a": "1", "b": "1", "numpy": "1"}) == [
        "numpy from 2 to 1",
        "a from nothing to 1",
    ]


@pytest.mark.parametrize(
    ("argv", "found"),
    [
        (("python", "-m", "pip", "install", "x"), True),
        (("/usr/bin/uv", "pip", "install", "x"), True),
        (("sh", "-c", "make"), False),
        (("bash", "-c", "cd x && pip3 install ."), True),
        (("venv/bin/pip", "install", "x"), True),
        (("cat", "pip.conf", "my-pip"), False),
        (("cargo", "build"), False),
    ],
)
def test_commands_that_install_packages_are_known(argv: tuple[str, ...], found: bool) -> None:
    assert is_install(argv) is found


async def test_a_python_is_looked_at_from_the_outside(tmp_path: Path) -> None:
    mine = await read(sys.executable, dict(os.environ))
    assert mine is not None
    assert mine.error == ""
    assert {"numpy", "pyarrow"} <= mine.versions.keys()
    assert await read(str(tmp_path / "python"), {}) is None


async def test_a_python_that_crashes_on_import_is_trouble(tmp_path: Path) -> None:
    (tmp_path / "numpy.py").write_text("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)")
    crashed = await read(sys.executable, {**os.environ, "PYTHONPATH": str(tmp_path)})
    assert crashed is not None
    assert "status -11" in crashed.trouble


@pytest.mark.long
@pytest.mark.parametrize(("by", "verbs"), [("pip", ("build", "run")), ("make install", ("run",))])
def test_a_build_that_breaks_pyarrow_ends_with_its_name_and_starts_nothing(
    tmp_path: Path, by: str, verbs: tuple[str, ...]
) -> None:
    """A package whose installation replaces numpy by one that does not load."""
    folder = tmp_path / "flow"
    folder.mkdir()
    venv.create(tmp_path / "env")  # it has our pip: to install one takes longer than all else here
    python = tmp_path / "env/bin/python"
    site = next((tmp_path / "env/lib").glob("python*/site-packages"))
    ours = Path(next(each for each in sys.path if each.endswith("site-packages")))
    (site / "theirs.pth").write_text(f"{ours}\n")
    wheel = tmp_path / "spoiler-1.2-py3-none-any.whl"
    info = "spoiler-1.2.dist-info"
    with zipfile.ZipFile(wheel, "w") as file:
        file.writestr("numpy/__init__.py", "raise ImportError('numpy 1 does not load here')\n")
        head = "Metadata-Version: 2.1\nName: spoiler\nVersion: 1.2\n"
        file.writestr(f"{info}/METADATA", f"{head}Requires-Dist: numpy<2\n")
        file.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
        file.writestr(f"{info}/RECORD", "")
    install = f"pip install --quiet --no-deps --no-index {wheel}"
    (folder / "Makefile").write_text(f"install:\n\tpython -m {install}\n")
    command = install if by == "pip" else by
    (folder / "flow.yml").write_text(f"nodes: [{{id: echo, path: echo.py, build: '{command}'}}]")
    (folder / "echo.py").write_text("open('started', 'w')")
    env = {"VIRTUAL_ENV": str(python.parents[1]), "PATH": f"{python.parent}:{os.environ['PATH']}"}
    for verb in verbs:
        result = dora(verb, "flow.yml", cwd=folder, env=env)
        assert result.returncode == 1
        assert "node 'echo': after its build command `" in result.stderr
        assert "numpy 1 does not load here" in result.stderr
        assert by == "pip" or "the build has changed spoiler from nothing to 1.2" in result.stderr
        assert "spoiler requires numpy<2" in result.stderr
        assert "`--uv`" in result.stderr
    assert not (folder / "started").exists()

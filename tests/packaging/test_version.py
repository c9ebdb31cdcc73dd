"""The version of a build has the commit, with and without git, and dpkg sorts versions rightly."""

import importlib.util
import os
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from itertools import pairwise
from pathlib import Path
from types import ModuleType

import pytest

PROJECT = Path(__file__).parents[2]
GIT = ["git", "-c", "user.name=a", "-c", "user.email=a@b", "-c", "init.defaultBranch=main"]


def load() -> ModuleType:
    spec = importlib.util.spec_from_file_location("version", PROJECT / "packaging/version.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


version = load()


def git(tree: Path, *words: str) -> str:
    return subprocess.run(
        [*GIT, "-C", str(tree), *words], check=True, capture_output=True, text=True
    ).stdout.strip()


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A repository with the files that make the version, and one commit."""
    tree = tmp_path / "tree"
    (tree / "packaging").mkdir(parents=True)
    (tree / "dorad").mkdir()
    shutil.copy(PROJECT / "packaging/version.py", tree / "packaging")
    shutil.copy(PROJECT / "dorad/__init__.py", tree / "dorad")
    (tree / ".gitignore").write_text("_build.py\n")
    git(tree, "init", "-q")
    commit(tree)
    return tree


def commit(tree: Path) -> str:
    git(tree, "add", "-A")
    git(tree, "commit", "-q", "--allow-empty", "-m", "one")
    return git(tree, "rev-parse", "--short=9", "HEAD")


def build(tree: Path, *options: str) -> str:
    """Return what `packaging/version.py` prints there, and check that `dorad` says the same."""
    command = [sys.executable, str(tree / "packaging/version.py")]
    found = subprocess.run([*command, *options], check=True, capture_output=True, text=True).stdout
    code = "import dorad; print(dorad.__version__)"
    said = subprocess.run(
        [sys.executable, "-S", "-B", "-c", code],
        cwd=tree,
        check=True,
        capture_output=True,
        text=True,
    )
    assert options or said.stdout == found
    return found.strip()


def test_the_version_has_the_number_of_commits_and_the_commit(tree: Path) -> None:
    first = git(tree, "rev-parse", "--short=9", "HEAD")
    assert build(tree) == f"{version.BASE}1+g{first}"
    second = commit(tree)
    assert build(tree) == f"{version.BASE}2+g{second}"


def test_changes_that_are_not_committed_make_another_version(tree: Path) -> None:
    clean = build(tree)
    found = set()
    for text in ("one", "two"):
        with (tree / "dorad/__init__.py").open("a") as file:
            file.write(f"# {text}\n")
        found.add(build(tree))
    assert len(found) == 2
    assert all(re.fullmatch(re.escape(clean) + r"\.d[0-9a-f]{8}", each) for each in found)


def test_a_copy_without_history_keeps_the_version_that_was_written(tree: Path) -> None:
    known = build(tree)
    shutil.rmtree(tree / ".git")
    assert build(tree) == known
    (tree / "dorad/_build.py").unlink()
    assert build(tree) == version.UNKNOWN


def test_the_version_of_a_tree_that_was_never_built_is_the_base() -> None:
    assert f'"{version.UNKNOWN}"' in (PROJECT / "dorad/__init__.py").read_text()


def test_the_repository_around_a_tree_is_not_asked(tree: Path) -> None:
    shutil.rmtree(tree / ".git")
    git(tree.parent, "init", "-q")
    commit(tree.parent)
    assert build(tree) == version.UNKNOWN


def test_a_tree_of_another_user_and_a_worktree_have_their_commit(tree: Path) -> None:
    other = tree.parent / "other"
    git(tree, "worktree", "add", "-q", str(other))
    assert build(other) == build(tree)


@pytest.mark.skipif(shutil.which("dpkg") is None, reason="needs dpkg")
def test_dpkg_sorts_versions_by_time(tree: Path) -> None:
    ordered = ["0.1.0", build(tree, "--debian")]
    commit(tree)
    ordered.append(build(tree, "--debian"))
    ordered.append(version.BASE.removesuffix(".dev"))
    for before, after in pairwise(ordered):
        assert not subprocess.call(["dpkg", "--compare-versions", before, "lt", after])


@pytest.mark.long
def test_an_sdist_and_a_wheel_made_of_it_have_the_version(tmp_path: Path, tree: Path) -> None:
    """The builds happen in a copy: they write the version into their tree."""
    for name in ("dorad", "dorafleet", "packaging"):
        ignored = shutil.ignore_patterns("__pycache__", "*.so", "_build.py")
        shutil.copytree(PROJECT / name, tree / name, ignore=ignored, dirs_exist_ok=True)
    for name in ("pyproject.toml", "README.md", "LICENSE", ".gitignore"):
        shutil.copy(PROJECT / name, tree)
    expected = f"{version.BASE}2+g{commit(tree)}"
    made = tmp_path / "made"
    environ = {**os.environ, "DORAD_NATIVE": "0"}
    hatchling = [sys.executable, "-m", "hatchling", "build", "-d", str(made)]
    subprocess.run([*hatchling, "-t", "sdist"], cwd=tree, check=True, env=environ)
    (packed,) = made.glob("*.tar.gz")
    assert packed.name == f"dorad-{expected}.tar.gz"
    with tarfile.open(packed) as archive:
        archive.extractall(made, filter="data")
    unpacked = made / f"dorad-{expected}"
    assert not (unpacked / ".git").exists()
    subprocess.run([*hatchling, "-t", "wheel"], cwd=unpacked, check=True, env=environ)
    (wheel,) = made.glob("*.whl")
    assert wheel.name.startswith(f"dorad-{expected}-")
    with zipfile.ZipFile(wheel) as archive:
        assert expected in archive.read("dorad/_build.py").decode()


def test_the_packages_list_of_changes_is_at_the_same_version() -> None:
    line = (PROJECT / "packaging/debian/changelog").read_text().splitlines()[0]
    assert line.startswith(f"dorad ({version.debian(version.BASE)})")

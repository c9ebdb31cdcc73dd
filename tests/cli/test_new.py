"""`dora new`: new projects run, pass their tests, and overwrite nothing."""

import os
import signal
import subprocess
import sys

import pytest

from dorad.cli.new import dataflow_files, node_files
from dorad.dataflow.load import load
from tests.cli import running
from tests.cli.dora import dora
from tests.harness.commands import fails, succeeds


def run_tests(folder):
    """Run the tests of a new project as its author would."""
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:xdist"],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
        env={key: value for key, value in os.environ.items() if not key.startswith("PYTEST_")},
    )


@pytest.fixture(scope="module")
def hello(tmp_path_factory):
    folder = tmp_path_factory.mktemp("new")
    succeeds(dora("new", "hello", cwd=folder))
    return folder / "hello"


@pytest.fixture(scope="module")
def my_filter(tmp_path_factory):
    folder = tmp_path_factory.mktemp("new")
    succeeds(dora("new", "my-filter", "--kind", "node", cwd=folder))
    return folder / "my-filter"


def test_a_new_dataflow_has_two_talkers_and_a_listener(hello):
    dataflow = load(hello / "dataflow.yml")
    assert [node.id for node in dataflow.nodes] == ["talker_1", "talker_2", "listener_1"]
    assert all((hello / (node.path or "")).is_file() for node in dataflow.nodes)


def test_a_new_dataflow_validates_without_a_warning(hello):
    result = dora("validate", cwd=hello)
    assert (result.returncode, result.stderr) == (0, "")


def test_the_tests_of_a_new_dataflow_pass(hello):
    out = succeeds(run_tests(hello))
    assert "3 passed" in out


def test_the_tests_of_a_new_node_pass(my_filter):
    out = succeeds(run_tests(my_filter))
    assert "1 passed" in out


def test_a_new_dataflow_runs(hello):
    with running.dora(hello, "dataflow.yml") as run:
        run.until_prints("speech-1: I heard Hello from talker-1")
        run.until_prints("speech-2: I heard Hello from talker-2")
        run.signal(signal.SIGINT)
        run.end(0)


def test_a_new_node_runs(my_filter):
    with running.dora(my_filter, "dataflow.yml") as run:
        run.until_prints("tick: input number 1")
        run.signal(signal.SIGINT)
        run.end(0)


@pytest.mark.parametrize("folder", ["hello", "my_filter"])
def test_new_python_is_clean_for_ruff(folder, request):
    path = request.getfixturevalue(folder)
    command = [sys.executable, "-m", "ruff", "check", "--isolated", "--select", "ALL"]
    # Test functions need no annotations and may assert; printing is what these nodes are for.
    ignored = "ANN,CPY,D203,D213,D400,D103,INP,PLR2004,S101,T201,COM812"
    result = subprocess.run(
        [*command, "--ignore", ignored, str(path)], capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stdout


def test_an_existing_folder_is_not_changed(tmp_path):
    (tmp_path / "hello").mkdir()
    (tmp_path / "hello" / "mine.txt").write_text("mine")
    result = dora("new", "hello", cwd=tmp_path)
    assert result.returncode == 1
    assert result.stderr == "error: hello exists and is not empty; nothing was changed\n"
    assert [path.name for path in (tmp_path / "hello").iterdir()] == ["mine.txt"]


def test_an_existing_file_is_not_changed(tmp_path):
    (tmp_path / "hello").write_text("mine")
    assert dora("new", "hello", cwd=tmp_path).returncode == 1
    assert (tmp_path / "hello").read_text() == "mine"


def test_an_empty_folder_is_filled(tmp_path):
    (tmp_path / "hello").mkdir()
    assert dora("new", "hello", cwd=tmp_path).returncode == 0


@pytest.mark.parametrize("language", ["rust", "cxx", "klingon"])
def test_other_languages_are_a_usage_error(tmp_path, language):
    result = dora("new", "hello", "--lang", language, cwd=tmp_path)
    assert result.returncode == 2
    assert len(result.stderr.splitlines()) == 1
    assert language in result.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["9lives", "a b", "ünïcode", "-x", "a/../..", "a--b"])
def test_invalid_package_names_are_usage_errors(tmp_path, name):
    assert dora("new", "--", name, cwd=tmp_path).returncode == 2
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["json", "dora", "NumPy"])
def test_a_node_may_not_shadow_a_module_it_needs(tmp_path, name):
    fails(dora("new", name, "--kind", "node", cwd=tmp_path), 2, "would hide")


def test_a_node_is_a_package_that_pip_can_install():
    files = node_files("my-filter")
    assert 'my-filter = "my_filter.main:main"' in files["pyproject.toml"]
    assert {"my_filter/__init__.py", "my_filter/main.py"} <= set(files)


def test_no_placeholder_is_left():
    for text in [*dataflow_files("hello").values(), *node_files("my-filter").values()]:
        assert "$name" not in text
        assert "$module" not in text


def test_a_single_node_in_c_is_a_usage_error(tmp_path):
    result = dora("new", "hello", "--kind", "node", "--lang", "c", cwd=tmp_path)
    assert result.returncode == 2
    assert "there is no template for a single node in C: leave out `--kind node`" in result.stderr
    assert not list(tmp_path.iterdir())

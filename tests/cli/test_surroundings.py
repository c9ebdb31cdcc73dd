"""Commands in odd surroundings: closed streams, no folder, an old terminal."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from dorad import __version__
from tests.cli.dora import DEADLINE_S, DORA


def closing(redirections: str, *words: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run a command line with some of its standard streams closed."""
    command = ["sh", "-c", f'exec "$@" {redirections}', "sh", *words]
    return subprocess.run(
        command, cwd=cwd, capture_output=True, text=True, check=False, timeout=DEADLINE_S
    )


@pytest.mark.parametrize("program", ["dorad.cli", "dorafleet.cli"])
def test_standard_streams_may_be_closed(program: str, tmp_path: Path):
    words = (sys.executable, "-m", program, "--version")
    assert closing(">&-", *words, cwd=tmp_path).returncode == 0
    assert closing("<&- >&- 2>&-", *words, cwd=tmp_path).returncode == 0
    assert __version__ in closing("2>&-", *words, cwd=tmp_path).stdout


def test_a_dataflow_runs_with_its_standard_streams_closed(tmp_path: Path):
    # A file that is opened in place of a closed stream would get what is written to that.
    node = tmp_path / "node.py"
    node.write_text("from dora import Node\nNode()\nopen('ran', 'w').write('yes')\n")
    (tmp_path / "flow.yml").write_text("nodes: [{id: a, path: node.py}]\n")
    result = closing("<&- >&- 2>&-", *DORA, "run", "flow.yml", cwd=tmp_path)
    assert result.returncode == 0
    assert (tmp_path / "ran").read_text() == "yes"


@pytest.mark.parametrize("words", [("logs",), ("record", "{flow}"), ("validate", "flow.yml")])
def test_a_current_directory_that_was_removed_is_reported(words: tuple[str, ...], tmp_path: Path):
    (tmp_path / "flow.yml").write_text("nodes: [{id: a, path: dynamic}]\n")
    words = tuple(word.format(flow=tmp_path / "flow.yml") for word in words)
    gone = tmp_path / "gone"
    gone.mkdir()
    command = ["sh", "-c", 'rmdir ../gone && exec "$@"', "sh", *DORA, *words]
    env = {**os.environ, "DORA_SOCKET": str(tmp_path / "none.sock")}
    result = subprocess.run(
        command, cwd=gone, env=env, capture_output=True, text=True, check=False, timeout=DEADLINE_S
    )
    assert result.returncode == 1
    assert result.stderr.startswith("error: ")
    assert result.stderr.count("\n") == 1
    if words[0] != "validate":  # names a file
        assert "current directory does not exist any more" in result.stderr


@pytest.mark.skipif(os.geteuid() == 0 and not shutil.which("setpriv"), reason="root reads all")
@pytest.mark.parametrize("words", [("list",), ("status",), ("up",)])
def test_a_home_that_belongs_to_another_user_is_reported(words: tuple[str, ...], tmp_path: Path):
    # As after `sudo -u`, which may keep HOME.
    home = tmp_path / "home"
    home.mkdir(mode=0)
    drop = ["setpriv", "--bounding-set=-all", "--inh-caps=-all"] if os.geteuid() == 0 else []
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("XDG_", "DORA_"))}
    env = {**kept, "HOME": str(home), "XDG_RUNTIME_DIR": str(tmp_path)}
    try:
        result = subprocess.run(
            [*drop, *DORA, *words],
            env=env,
            capture_output=True,
            text=True,
            check=False,
            timeout=DEADLINE_S,
        )
    finally:
        home.chmod(0o700)
    if result.stderr.startswith("setpriv"):
        pytest.skip("setpriv cannot take rights away here")
    assert result.returncode == 1
    assert result.stderr.startswith(f"error: cannot use {home}/.")
    assert result.stderr.endswith(": Permission denied\n")
    assert result.stderr.count("\n") == 1


def test_what_a_terminal_cannot_show_is_escaped(tmp_path: Path):
    (tmp_path / "flow.yml").write_text(
        "nodes:\n- {id: a, path: dynamic, name: b\u00e4r \u2717}\n", encoding="utf-8"
    )
    env = {**os.environ, "PYTHONIOENCODING": "latin-1"}
    result = subprocess.run(
        [*DORA, "expand", "flow.yml"], cwd=tmp_path, env=env, capture_output=True, check=False
    )
    assert (result.returncode, result.stderr) == (0, b"")
    assert b"name: b\xe4r \\u2717\n" in result.stdout


def test_a_variable_that_is_not_text_cannot_be_printed(tmp_path: Path):
    (tmp_path / "flow.yml").write_text("env: {A: $ODD}\nnodes: [{id: a, path: dynamic}]\n")
    env = {**os.environb, b"ODD": b"a\xff"}
    result = subprocess.run(
        [*DORA, "expand", "flow.yml"], cwd=tmp_path, env=env, capture_output=True, check=False
    )
    assert (result.returncode, result.stdout) == (1, b"")
    assert result.stderr == b"error: cannot write the output: `a\\udcff` is not UTF-8\n"

"""`dora completion`: scripts for five shells, and their queries."""

import json
import shutil
import subprocess
import sys

import pytest

from dorad.cli.commands import COMMANDS
from dorad.commandline.shells import SHELLS
from tests.cli.dora import dora
from tests.harness.commands import succeeds


def complete(shell, *words, cwd):
    """Return the completions of the last of the words."""
    env = {"_DORA_COMPLETE": f"{shell}_complete", "_DORA_WORDS": "\n".join(words)}
    return [line.rstrip("\t") for line in dora(cwd=cwd, env=env).stdout.splitlines()]


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "flow.yml").touch()
    (tmp_path / "flow.yaml").touch()
    (tmp_path / "flow.txt").touch()
    (tmp_path / "flows").mkdir()
    (tmp_path / "flows" / "deep.yml").touch()
    (tmp_path / ".hidden.yml").touch()
    return tmp_path


@pytest.mark.parametrize("shell", SHELLS)
def test_there_is_a_script_for_every_shell(shell):
    out = succeeds(dora("completion", shell))
    assert f"{shell}_complete" in out


@pytest.mark.parametrize(
    ("path", "shell"), [("/usr/bin/zsh", "zsh"), ("/bin/bash", "bash"), ("/opt/pwsh", "powershell")]
)
def test_the_shell_is_found_from_the_environment(path, shell):
    assert f"{shell}_complete" in dora("completion", env={"SHELL": path}).stdout


def test_an_unknown_shell_is_a_usage_error_that_lists_the_known():
    result = dora("completion", env={"SHELL": "/bin/dash"})
    assert result.returncode == 2
    assert all(shell in result.stderr for shell in SHELLS)


def test_commands_are_completed(folder):
    listed = [name for name, entry in COMMANDS.items() if not entry.hidden]
    assert complete("bash", "", cwd=folder) == listed
    assert complete("bash", "va", cwd=folder) == ["validate"]
    assert complete("bash", "topic", "", cwd=folder) == ["list", "echo", "hz", "info", "pub"]
    assert complete("bash", "param", "", cwd=folder) == ["list", "get", "set", "delete"]


def test_options_are_completed(folder):
    assert complete("bash", "graph", "--m", cwd=folder) == ["--mermaid"]
    assert complete("bash", "--ver", cwd=folder) == ["--version"]


def test_dataflow_files_and_folders_are_completed(folder):
    assert complete("bash", "graph", "", cwd=folder) == ["flow.yaml", "flow.yml", "flows/"]
    assert complete("bash", "graph", "flows/", cwd=folder) == ["flows/deep.yml"]
    assert complete("bash", "graph", "./fl", cwd=folder)[-1] == "./flows/"


def test_any_file_is_completed_where_any_is_allowed(folder):
    everything = ["flow.txt", "flow.yaml", "flow.yml", "flows/"]
    assert complete("bash", "replay", "fl", cwd=folder) == everything
    assert complete("elvish", "record", "info", "fl", cwd=folder) == everything
    assert complete("bash", "record", "list", "fl", cwd=folder) == ["flows/"]


def test_only_paths_are_marked_for_bash(folder):
    env = {"_DORA_COMPLETE": "bash_complete", "_DORA_WORDS": "graph\nflows"}
    assert dora(cwd=folder, env=env).stdout == "flows/\t\n"
    env["_DORA_WORDS"] = "completion\nba"
    assert dora(cwd=folder, env=env).stdout == "bash\n"


@pytest.mark.parametrize("word", ["my\\ f", "'my f", '"my f'])
def test_a_quoted_path_is_completed(folder, word):
    (folder / "my flow.yml").touch()
    assert complete("bash", "graph", word, cwd=folder) == ["my flow.yml"]


def test_elvish_gets_the_help_after_a_tab(folder):
    assert complete("elvish", "valid", cwd=folder) == [f"validate\t{COMMANDS['validate'].summary}"]


def test_powershell_gets_json_with_a_help_text_that_is_never_empty(folder):
    (line,) = complete("powershell", "completion", "ba", cwd=folder)
    assert json.loads(line) == {"value": "bash", "help": "bash"}


@pytest.mark.parametrize(
    ("shell", "check"), [("bash", ["-n"]), ("zsh", ["-n"]), ("fish", ["--no-execute"])]
)
def test_a_script_is_valid_for_its_shell(tmp_path, shell, check):
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not installed")
    script = tmp_path / "script"
    script.write_text(dora("completion", shell).stdout)
    assert subprocess.run([shell, *check, script], check=False).returncode == 0


@pytest.mark.parametrize(
    ("word", "offered"),
    [("flow.ym", "flow.yml\n1"), ("none", "\n0"), ("''", "flow.yaml\nflow.yml\nflows\n3")],
)
def test_bash_itself_completes_with_the_script(folder, word, offered):
    words = (
        dora("completion", "bash").stdout
        + f"""
compopt() {{ :; }}
COMP_WORDS=(dora graph {word})
COMP_CWORD=2
_dora_completion "$1"
printf '%s\\n' "${{COMPREPLY[@]}}"
printf '%s' "${{#COMPREPLY[@]}}"
"""
    )
    program = folder / "dora"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m dorad.cli "$@"\n')
    program.chmod(0o755)
    result = subprocess.run(
        ["bash", "-c", words, "bash", str(program)],
        cwd=folder,
        capture_output=True,
        text=True,
        check=True,
        timeout=30,
    )
    assert result.stdout == offered

"""The `dora` command: its help, errors and exit codes."""

import json
import os
import pty
import signal
import subprocess
import sys
from pathlib import Path

import click
import pytest

from dorad import API_VERSION, __version__
from dorad.cli.commands import COMMANDS, page
from dorad.cli.root import cli
from dorad.shm import native
from tests.cli.dora import DORA, dora
from tests.harness.commands import fails, succeeds

PROBE = """
import json, sys
before = set(sys.modules)
from dorad.cli.main import run_command
run_command(["--help"])
print(json.dumps(sorted({name.partition(".")[0] for name in set(sys.modules) - before})))
"""


def test_help_lists_every_command_with_its_line():
    out = succeeds(dora("--help"))
    for name, entry in COMMANDS.items():
        assert (f"  {name} " in out) is not entry.hidden
        assert (entry.summary in out) is not entry.hidden


def test_help_imports_no_third_party_module():
    output = subprocess.run(
        [sys.executable, "-c", PROBE], capture_output=True, text=True, check=True
    ).stdout
    modules = set(json.loads(output.splitlines()[-1]))
    assert modules - set(sys.stdlib_module_names) == {"dorad"}
    # The most expensive of the remaining imports.
    assert not modules & {"typing", "inspect", "pathlib", "asyncio", "shutil"}


@pytest.mark.parametrize("columns", [20, 60, 80, 300])
def test_help_reads_as_click_would_write_it(columns: int, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("COLUMNS", str(columns))
    context = click.Context(cli, info_name="dora", **cli.context_settings)
    context.terminal_width = None
    assert page() == click.Group.get_help(cli, context)


def test_help_is_the_same_in_all_its_forms():
    assert dora("--help").stdout == dora("-h").stdout == dora().stderr


def test_help_imports_no_module_of_a_command():
    output = subprocess.run(
        [sys.executable, "-X", "importtime", *DORA[1:], "--help"],
        capture_output=True,
        text=True,
        check=True,
    ).stderr
    imported = {line.rpartition("|")[2].strip() for line in output.splitlines()}
    ours = {name for name in imported if name.startswith("dorad")}
    light = {"cli", "cli.commands", "cli.main", "commandline", "commandline.page", "exit"}
    light.add("commandline.streams")
    ours.discard("dorad._build")  # the version, in a tree that was built
    assert ours == {"dorad", *(f"dorad.{name}" for name in light)}


def test_without_arguments_it_prints_the_help_as_a_usage_error():
    result = dora()
    assert result.returncode == 2
    assert result.stdout == ""
    assert result.stderr.startswith("Usage: dora")


GROUPS = {
    "node": "list info add remove replace connect disconnect restart stop",
    "topic": "list echo hz info pub",
    "param": "list get set delete",
}
LISTED = [
    *(name for name, entry in COMMANDS.items() if not entry.hidden),
    *(f"{group} {name}" for group, names in GROUPS.items() for name in names.split()),
]


@pytest.mark.parametrize("name", LISTED)
def test_every_command_has_help_with_examples_or_a_setup(name):
    out = succeeds(dora(*name.split(), "--help"))
    assert f"Usage: dora {name}" in out
    assert f"dora {name}" in out.partition("Options:")[2]


@pytest.mark.parametrize("words", [["system", "status"], ["inspect", "top"]])
def test_a_command_can_be_called_by_its_other_name(words):
    other = dora(*words, "--help").stdout.partition("\n")[2]
    assert other == dora(words[1], "--help").stdout.partition("\n")[2]


def test_h_shows_the_help_of_every_command():
    assert dora("validate", "-h").stdout == dora("validate", "--help").stdout


@pytest.mark.parametrize(("program", "module"), [("dora", "cli"), ("dorad", "daemon.main")])
def test_version_shows_the_data_plane(program, module):
    command = [sys.executable, "-m", f"dorad.{module}", "--version"]
    for wish, plane in (("", native.describe()), ("0", "pure Python (DORAD_NATIVE=0)")):
        environment = {**os.environ, "DORAD_NATIVE": wish or os.environ.get("DORAD_NATIVE", "")}
        found = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
        api = f"dora-cli {API_VERSION}\n" if program == "dora" else ""
        assert found.stdout == f"{api}dorad {__version__}\ndata plane: {plane}\n"


def test_a_wrong_wish_for_the_data_plane_is_one_line():
    result = dora("--version", env={"DORAD_NATIVE": "fast"})
    assert result.returncode == 1
    assert result.stderr == "error: DORAD_NATIVE must be 0 or 1, not 'fast'\n"


def test_an_unknown_command_gets_the_nearest_suggested():
    result = dora("valdate")
    assert result.returncode == 2
    assert result.stderr == (
        "error: no command named 'valdate'; did you mean 'validate'? (see `dora --help`)\n"
    )


@pytest.mark.parametrize(("name", "hint"), [("coordinator", "`dora up`"), ("daemon", "`dorad`")])
def test_a_command_of_dora_that_is_not_here_is_explained(name: str, hint: str) -> None:
    result = dora(name)
    assert result.returncode == 2
    assert result.stderr.startswith(f"error: `dora {name}` ")
    assert hint in result.stderr


def test_an_unknown_option_is_a_usage_error_on_one_line():
    result = dora("graph", "x.yml", "--mermiad")
    assert result.returncode == 2
    assert len(result.stderr.splitlines()) == 1
    assert "--mermaid" in result.stderr
    assert "`dora graph --help`" in result.stderr


def test_a_missing_argument_is_a_usage_error():
    result = dora("start")
    assert result.returncode == 2
    assert result.stderr.startswith("error: missing argument 'PATH'")


def test_a_missing_file_is_one_line_that_names_existing_files(tmp_path):
    (tmp_path / "flow.yml").write_text("nodes: []\n")
    result = dora("graph", "fow.yml", cwd=tmp_path)
    assert result.returncode == 1
    assert result.stderr == "error: fow.yml: no such file (there: flow.yml)\n"


def test_a_directory_is_not_a_dataflow(tmp_path):
    result = dora("expand", str(tmp_path))
    assert result.returncode == 1
    assert result.stderr.startswith(f"error: {tmp_path} is a directory")


def test_an_empty_path_is_not_the_current_directory(tmp_path):
    result = dora("expand", "", cwd=tmp_path)
    assert result.returncode == 1
    assert result.stderr == "error: the path of the dataflow file is empty\n"


def test_each_problem_of_a_dataflow_is_one_line(tmp_path):
    (tmp_path / "bad.yml").write_text(
        "nodes:\n  - id: a\n    path: a.py\n    inptus: {}\n  - id: a\n"
    )
    result = dora("expand", "bad.yml", cwd=tmp_path)
    assert result.returncode == 1
    lines = result.stderr.splitlines()
    assert len(lines) >= 2
    assert all(line.startswith("error: bad.yml:") for line in lines)


def test_a_closed_pipe_ends_it_quietly():
    reading, writing = os.pipe()
    os.close(reading)
    result = subprocess.run(
        [*DORA, "--help"], stdout=writing, stderr=subprocess.PIPE, check=False, timeout=30
    )
    os.close(writing)
    assert result.returncode == 1
    assert result.stderr == b""


def test_a_full_disk_under_its_output_is_one_line():
    with Path("/dev/full").open("wb") as full:
        result = subprocess.run(
            [*DORA, "--help"], stdout=full, stderr=subprocess.PIPE, check=False, timeout=30
        )
    assert result.returncode == 1
    assert result.stderr == b"error: cannot write the output: No space left on device\n"


INTERRUPTED_IMPORT = """
import sys
class Finder:
    def find_spec(self, name, path, target=None):
        if name == "click":
            raise KeyboardInterrupt
sys.meta_path.insert(0, Finder())
sys.argv = ["dora", "list"]
from dorad.cli.main import main
main()
"""


def test_control_c_before_a_command_has_begun_is_no_traceback():
    result = subprocess.run(
        [sys.executable, "-c", INTERRUPTED_IMPORT], capture_output=True, text=True, check=False
    )
    assert (result.returncode, result.stdout, result.stderr) == (130, "", "")


def test_control_c_ends_it_with_130_and_no_traceback(tmp_path):
    (tmp_path / "flow.yml").write_text(
        "nodes:\n  - id: a\n    path: dynamic\n    build: sleep 60\n"
    )
    process = subprocess.Popen(
        [*DORA, "build", "flow.yml"],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "a: $ sleep 60\n"
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=30)
    assert process.returncode == 130
    assert errors.strip() == ""


def on_a_terminal(arguments, env):
    """Return the output of `dora` to a terminal on its standard error."""
    ours, theirs = pty.openpty()
    subprocess.run([*DORA, *arguments], stderr=theirs, env={**os.environ, **env}, check=False)
    os.close(theirs)
    output = os.read(ours, 65536)
    os.close(ours)
    return output


def test_errors_are_coloured_on_a_terminal():
    assert b"\x1b[" in on_a_terminal(["nonsense"], {"TERM": "xterm", "NO_COLOR": ""})


def test_no_color_is_respected():
    assert b"\x1b[" not in on_a_terminal(["nonsense"], {"TERM": "xterm", "NO_COLOR": "1"})


def test_an_invalid_number_is_a_readable_error():
    fails(dora("topic", "echo", "--count", "many"), 2, "'many' is not a whole number")


@pytest.mark.parametrize("command", [["topic", "hz"], ["topic", "info"], ["topic", "echo"]])
def test_an_invalid_measuring_time_is_refused(command):
    for text, why in (("soon", "is not a duration"), ("50ms", "is less than")):
        fails(dora(*command, "--duration", text), 2, f"'{text}' {why}")


@pytest.mark.parametrize(
    ("name", "same"), [("ps", "list"), ("check", "status"), ("destroy", "down")]
)
def test_other_names_of_dora_are_the_same_commands(name, same):
    out = succeeds(dora(name, "--help"))
    assert out == dora(same, "--help").stdout.replace(f"dora {same} [", f"dora {name} [", 1)
    listed = dora("--help").stdout
    assert f"\n  {same} " in listed
    assert f"\n  {name} " not in listed


@pytest.mark.parametrize(
    ("words", "same"),
    [
        (["help"], []),
        (["help", "list"], ["list"]),
        (["help", "node"], ["node"]),
        (["help", "node", "add"], ["node", "add"]),
        (["node", "help"], ["node"]),
        (["node", "help", "add"], ["node", "add"]),
    ],
)
def test_help_is_a_command_too(words, same):
    shown = dora(*words)
    assert (shown.returncode, shown.stderr) == (0, "")
    assert shown.stdout == dora(*same, "--help").stdout


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["help", "lst"], "no command named 'lst'; did you mean 'list'? (see `dora --help`)"),
        (["help", "list", "x"], "`dora list` has no commands"),
        (["node", "help", "ad"], "no command named 'ad'; did you mean 'add'?"),
    ],
)
def test_help_of_an_unknown_command_is_a_usage_error(words, expected):
    fails(dora(*words), 2, expected)


def test_the_choices_of_a_missing_option_are_on_one_line():
    result = dora("record", "export", __file__)
    assert result.stderr == (
        "error: missing option '--to'. Choose from: parquet, arrow, csv, rrd, lerobot, ros2"
        " (see `dora record export --help`)\n"
    )

"""A machine whose processor needs libatomic: the error if the library is missing."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CONTROL = ROOT / "packaging/debian/control"

WITHOUT_LIBATOMIC = """
import ctypes, os, sys
here = os.uname()
os.uname = lambda: os.uname_result((*here[:4], "aarch64"))
load = ctypes.CDLL
def refuse(name, *more, **options):
    if name == "libatomic.so.1":
        raise OSError(f"{name}: cannot open shared object file: No such file or directory")
    return load(name, *more, **options)
ctypes.CDLL = refuse
"""


def run(code: str, folder: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", WITHOUT_LIBATOMIC + code]
    return subprocess.run(
        command, cwd=folder, capture_output=True, text=True, check=False, timeout=60
    )


COMMAND = "from dorad.cli.main import run_command; sys.exit(run_command({!r}))"


def test_running_a_dataflow_names_the_missing_package_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "flow.yml").write_text("nodes: [{id: a, path: a.py}]\n")
    (tmp_path / "a.py").write_text("")
    done = run(COMMAND.format(["run", "flow.yml"]), tmp_path)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == (
        "error: the data plane needs libatomic.so.1 on aarch64; "
        "install it: sudo apt-get install libatomic1"
    )
    assert "Traceback" not in done.stderr


def test_a_node_names_it_when_dora_is_imported(tmp_path: Path) -> None:
    done = run("from dora import Node", tmp_path)
    assert done.returncode == 1
    assert "install it: sudo apt-get install libatomic1" in done.stderr.splitlines()[-1]


def test_the_doctor_finds_it(tmp_path: Path) -> None:
    done = run(COMMAND.format(["doctor"]), tmp_path)
    assert done.returncode == 1
    assert "  FAIL  memory fences: libatomic.so.1 is missing" in done.stdout
    assert "sudo apt-get install libatomic1" in done.stdout


def test_the_doctor_passes_on_this_machine(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "dorad.cli", "doctor"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert "  PASS  memory fences: " in done.stdout


@pytest.mark.parametrize("dependency", ["libatomic1 [arm64]", "dbus | dbus-system-bus"])
def test_the_package_depends_on_libraries_that_none_of_its_files_names(dependency: str) -> None:
    (package,) = (
        part for part in CONTROL.read_text().split("\n\n") if part.startswith("Package: dorad\n")
    )
    depends = package.partition("Depends:")[2].partition("\nRecommends:")[0]
    assert dependency in [word.strip() for word in depends.split(",")]

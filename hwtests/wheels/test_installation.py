"""A wheel of `make wheels` is installed with each Python of this machine, by pip and by uv.

Packages come from PyPI, so these tests need the network.
"""

import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
HELLO = ROOT / "docs/examples/hello"
VERSIONS = ("3.11", "3.12", "3.13", "3.14")


def wheel(kind: str) -> Path:
    """Return the wheel whose name has `kind`; skip if there is none."""
    wheels = sorted((ROOT / "dist").glob(f"dorad-*{kind}*.whl"))
    if not wheels:
        pytest.skip("there are no wheels in dist/ (make wheels)")
    (only,) = wheels
    return only


def interpreter(version: str) -> str:
    """Return a program for a version of Python; skip if this machine has none that works."""
    places = [shutil.which(f"python{version}")]
    places += map(str, Path.home().glob(f".pyenv/versions/{version}.*/bin/python"))
    for place in filter(None, places):
        if (
            subprocess.run(
                [place, "-c", "import venv"], capture_output=True, check=False
            ).returncode
            == 0
        ):
            return place
    pytest.skip(f"there is no Python {version}")


def run(*command: str | Path, **env: str) -> str:
    """Run a command outside of our environment; fail with what it printed."""
    ours = str(Path(sys.executable).parent)
    path = os.pathsep.join(each for each in os.environ["PATH"].split(os.pathsep) if each != ours)
    inherited = {key: value for key, value in os.environ.items() if key != "VIRTUAL_ENV"}
    done = subprocess.run(
        [*command],
        env={**inherited, "PATH": path, **env},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


def greets(dora: Path, folder: Path) -> None:
    """Run the example `hello` with an installed dora, away from our sources."""
    flow = shutil.copytree(HELLO, folder) / "dataflow.yml"
    assert "stdout listener: heard: hello 5" in run(dora, "run", flow)


@pytest.mark.parametrize("version", VERSIONS)
def test_pip_installs_the_native_wheel(version: str, tmp_path: Path) -> None:
    file = wheel(f"manylinux*_{platform.machine()}")
    run(interpreter(version), "-m", "venv", tmp_path / "robot")
    bin_ = tmp_path / "robot/bin"
    run(bin_ / "python", "-m", "pip", "install", "-q", f"{file}[link]")
    assert run(bin_ / "dora", "--version").splitlines()[-1] == "data plane: native"
    assert "-ldora_node" in run(bin_ / "dora", "cflags", "--libs")
    greets(bin_ / "dora", tmp_path / "hello")
    # An extra is added by its name alone, although no index has the package.
    added = run(bin_ / "python", "-m", "pip", "install", "dorad[link]")
    assert "Requirement already satisfied: dorad[link]" in added


def test_pip_installs_the_wheel_of_pure_python(tmp_path: Path) -> None:
    run(sys.executable, "-m", "venv", tmp_path / "robot")
    bin_ = tmp_path / "robot/bin"
    run(bin_ / "python", "-m", "pip", "install", "-q", wheel("none-any"))
    assert run(bin_ / "dora", "--version").splitlines()[-1].startswith("data plane: pure Python")
    greets(bin_ / "dora", tmp_path / "hello")


def test_uv_installs_a_command(tmp_path: Path) -> None:
    run(sys.executable, "-m", "venv", tmp_path / "uv")
    run(tmp_path / "uv/bin/python", "-m", "pip", "install", "-q", "uv")
    folders = {"UV_TOOL_DIR": str(tmp_path / "tools"), "UV_TOOL_BIN_DIR": str(tmp_path / "bin")}
    file = wheel(f"manylinux*_{platform.machine()}")
    run(tmp_path / "uv/bin/uv", "tool", "install", "--python", sys.executable, file, **folders)
    greets(tmp_path / "bin/dora", tmp_path / "hello")

"""Nodes in C, compiled with libdora_node as this tree builds it."""

import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.harness.commands import succeeds
from tests.harness.dataflow import Flow

ROOT = Path(__file__).parents[2]
PREFIX = ROOT / "build" / "native-node"
SANITIZE = tuple(os.environ.get("DORAD_SANITIZE", "").split())
"""Flags of library and nodes; `make sanitize` sets them."""


def build_library(prefix: Path, *flags: str) -> None:
    command = [sys.executable, "packaging/nodelib.py", "--output", str(prefix), "--", *flags]
    succeeds(subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False))


@pytest.fixture(scope="session")
def library() -> Path:
    """The prefix where libdora_node is installed."""
    if not any(map(shutil.which, ("cc", "gcc", "clang"))):
        pytest.skip("there is no C compiler (sudo apt-get install gcc libc6-dev)")
    build_library(PREFIX, *SANITIZE)
    return PREFIX


Compile = Callable[..., Path]


def compile_command(
    source: Path,
    target: Path,
    *,
    prefix: Path = PREFIX,
    flags: tuple[str, ...] = (),
    rpath: bool = True,
    language: str = "c",
) -> list[str]:
    """Return the command that compiles a node; `rpath` finds the library at its start."""
    compiler = next(filter(shutil.which, ("cc", "gcc", "clang")))
    if language == "c++":
        compiler = next(filter(shutil.which, ("c++", "g++", "clang++")), "")
        if not compiler:
            pytest.skip("there is no C++ compiler (sudo apt-get install g++)")
    standard = ["-std=c11", "-D_GNU_SOURCE"] if language == "c" else ["-std=c++17"]
    command = [compiler, *standard, "-g", "-Wall", "-Wextra", "-Werror", f"-I{prefix}/include"]
    command += [*SANITIZE, *flags, f"-L{prefix}/lib"]
    if rpath:
        command.append(f"-Wl,-rpath,{prefix}/lib")
    return [*command, str(source), "-ldora_node", "-o", str(target)]


@pytest.fixture(scope="session")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of what was compiled in this run, by all its workers."""
    folder = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        folder = folder.parent
    (folder / "programs").mkdir(exist_ok=True)
    return folder / "programs"


@pytest.fixture
def compile_node(library: Path, programs: Path, tmp_path: Path) -> Compile:
    """Compile a source text, or a file, into a program.

    What was compiled before is copied: two dozen tests need the same few programs.
    """

    def compile_one(
        name: str,
        source: str | Path,
        *,
        prefix: Path = library,
        flags: tuple[str, ...] = (),
        rpath: bool = True,
        language: str = "c",
    ) -> Path:
        path = source if isinstance(source, Path) else tmp_path / f"{name}.{language}"
        if isinstance(source, str):
            path.write_text(source)
        beside = tmp_path / f"{name}.new"
        whole = compile_command(
            path, beside, prefix=prefix, flags=flags, rpath=rpath, language=language
        )
        identity = f"{whole[:-4]}\n{path.read_text()}"  # without the paths of this test
        made = programs / hashlib.sha256(identity.encode()).hexdigest()
        if not made.exists():
            succeeds(subprocess.run(whole, capture_output=True, text=True, check=False))
            beside.replace(made)
        shutil.copy(made, beside)
        # The program may be running.
        return beside.replace(tmp_path / name)

    return compile_one


@pytest.fixture
def flow(tmp_path: Path) -> Flow:
    return Flow(tmp_path)


def add(flow: Flow, node_id: str, program: Path, **fields: Any) -> None:
    """Add a program to a dataflow."""
    flow.nodes.append({"id": node_id, "path": f"./{program.name}", **fields})

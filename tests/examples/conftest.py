"""Private copies of examples, and running them."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.harness.ports import free_port

EXAMPLES = Path(__file__).parents[2] / "docs" / "examples"
BIN = Path(sys.executable).parent
DEADLINE_S = 50


@dataclass(frozen=True)
class Output:
    """What a finished `dora run` printed."""

    code: int
    text: str

    def printed(self, node: str) -> list[str]:
        """Return the printed lines of a node."""
        return self.lines(node, "stdout")

    def lines(self, node: str, level: str = r"\S+") -> list[str]:
        """Return the lines of a node at a level (a pattern), printed or logged."""
        line = rf"^\S+ +{level} +{re.escape(node)}: (.*)$"
        return re.findall(line, self.text, re.MULTILINE)


class Example:
    """A copy of one example that a test runs."""

    def __init__(self, folder: Path, env: dict[str, str]) -> None:
        self.folder = folder
        self._env = env

    def run(self, *options: str) -> Output:
        """Run the dataflow to its end; fail if that takes too long."""
        with self.start(*options) as run:
            return finish(run)

    def build(self) -> Output:
        """Run the build commands of the dataflow."""
        with self._popen(str(BIN / "dora"), "build", "dataflow.yml") as build:
            return finish(build, 4 * DEADLINE_S)

    def test(self) -> Output:
        """Run the tests of the example itself."""
        command = (
            sys.executable,
            "-m",
            "pytest",
            "-q",
            "-p",
            "no:cacheprovider",
            "-c",
            "/dev/null",
        )
        with self._popen(*command, "--rootdir", str(self.folder), str(self.folder)) as tests:
            return finish(tests, 2 * DEADLINE_S)

    @contextmanager
    def start(self, *options: str) -> Iterator[subprocess.Popen[str]]:
        """Start the dataflow and leave it running."""
        with self._popen(str(BIN / "dora"), "run", "dataflow.yml", *options) as run:
            yield run

    @contextmanager
    def start_by_hand(self, script: str) -> Iterator[subprocess.Popen[str]]:
        """Start one node with plain Python."""
        with self._popen(sys.executable, script) as node:
            yield node

    @contextmanager
    def _popen(self, *command: str) -> Iterator[subprocess.Popen[str]]:
        with subprocess.Popen(
            command,
            cwd=self.folder,
            env=self._env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        ) as process:
            try:
                yield process
            finally:
                process.kill()


def finish(process: subprocess.Popen[str], deadline_s: float = DEADLINE_S) -> Output:
    """Wait for the exit of a process, by default with the common deadline."""
    try:
        text, _ = process.communicate(timeout=deadline_s)
    except subprocess.TimeoutExpired:
        process.kill()
        text, _ = process.communicate()
        pytest.fail(f"still running after {deadline_s} s; it printed:\n{text}")
    return Output(process.returncode, text)


@pytest.fixture
def example(tmp_path: Path) -> Callable[[str], Example]:
    """Return a function that copies an example, by name, to a folder of the test."""
    env = {
        **os.environ,
        "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}",
        # A manually started node must not attach to a run of another test.
        "DORA_DAEMON_LOCAL_LISTEN_PORT": str(free_port()),
    }

    def copy(name: str) -> Example:
        skip = shutil.ignore_patterns("out", "build", "__pycache__")
        return Example(shutil.copytree(EXAMPLES / name, tmp_path / name, ignore=skip), env)

    return copy

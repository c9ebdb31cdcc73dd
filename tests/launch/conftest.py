"""Marked processes for the tests of launching, and the search for survivors."""

import contextlib
import fcntl
import os
import signal
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from dorad.launch.model import Command
from tests.harness.process import marked

FAMILY = Path(__file__).with_name("family.py")
MARK = "LAUNCH_TEST_MARK"


class Family:
    """Commands whose processes, including descendants, can all be found again."""

    def __init__(self, folder: Path) -> None:
        self.mark = uuid.uuid4().hex
        self.folder = folder
        self.env = {**os.environ, MARK: self.mark}
        self.runs: list[subprocess.Popen[str]] = []
        """Programs to end with the test, also when it fails."""

    def command(self, *words: str) -> Command:
        return Command(words, self.folder, self.env)

    def shell(self, text: str) -> Command:
        return self.command("/bin/sh", "-c", text)

    def role(self, name: str) -> Command:
        """Return the command of a role of family.py; its `ready` file appears once it is set up."""
        files = (str(self.ready(name)), str(self.lock))
        return self.command(sys.executable, "-S", str(FAMILY), name, *files)

    @property
    def lock(self) -> Path:
        return self.folder / "alive.lock"

    def has_ended(self) -> bool:
        """Return True if no process with a role is left, not even one that keeps forking."""
        lock = os.open(self.lock, os.O_RDWR | os.O_CREAT)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        finally:
            os.close(lock)
        return not self.alive()

    def ready(self, name: str) -> Path:
        return self.folder / f"{name}.ready"

    def alive(self) -> list[int]:
        """Return all running processes with the mark in their environment."""
        return marked(MARK, self.mark)


@pytest.fixture
def family(tmp_path: Path) -> Iterator[Family]:
    family = Family(tmp_path)
    yield family
    for run in family.runs:
        run.kill()
        run.communicate()
    for pid in family.alive():
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)

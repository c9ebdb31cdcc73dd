"""Commands as a user calls them, with a runtime directory of their own."""

import shutil
import sys
import tempfile
from pathlib import Path

import pytest

from tests.harness.commands import run_command
from tests.harness.dataflow import clean_environment

BIN = Path(sys.executable).parent
DEADLINE_S = 110.0


@pytest.fixture(scope="module")
def runtime():
    """A short folder for sockets."""
    path = Path(tempfile.mkdtemp(prefix="dora-test-"))
    yield path
    shutil.rmtree(path)


@pytest.fixture(scope="module")
def dora(runtime):
    """Run `dora` to its end."""
    environ = clean_environment(BIN, {"XDG_RUNTIME_DIR": str(runtime)})

    def run(folder, *arguments, **env):
        return run_command("dora", arguments, cwd=folder, env=environ | env, timeout=DEADLINE_S)

    run.environ = environ
    return run

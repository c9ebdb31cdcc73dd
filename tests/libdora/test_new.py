"""`dora new --lang c|cpp`, `dora build` and `dora run`: a dataflow of native nodes from nothing."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.harness.dataflow import clean_environment, dora_run
from tests.libdora.conftest import SANITIZE

BIN = Path(sys.executable).parent


@pytest.mark.long
@pytest.mark.skipif(shutil.which("cmake") is None, reason="cmake is not installed")
@pytest.mark.skipif(bool(SANITIZE), reason="the programs need the sanitizer's library")
@pytest.mark.parametrize(("lang", "compiler"), [("c", "cc"), ("cpp", "c++")])
def test_a_new_dataflow_is_built_and_runs(
    library: Path, tmp_path: Path, lang: str, compiler: str
) -> None:
    if shutil.which(compiler) is None:
        pytest.skip(f"there is no {compiler} (sudo apt-get install g++)")
    env = clean_environment(BIN, {"CMAKE_PREFIX_PATH": str(library)})
    for command, folder in (
        (["dora", "new", "hello", "--lang", lang], tmp_path),
        (["dora", "build", "dataflow.yml"], tmp_path / "hello"),
    ):
        done = subprocess.run(
            [BIN / command[0], *command[1:]], cwd=folder, env=env, capture_output=True, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
    outcome = dora_run(tmp_path / "hello" / "dataflow.yml", stop_after=4).expect(0)
    assert "listener: I heard Hello from hello" in outcome.output

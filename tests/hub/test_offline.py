"""Hub nodes without a daemon, and the test suites in two source archives."""

import tarfile
from pathlib import Path

import pytest

from tests.harness.dataflow import clean_environment
from tests.harness.process import run

from .environment import Environment

COMMANDS = {
    "dora_echo": [],
    "pyarrow_sender": ["--data", "1"],
    "pyarrow_assert": [],
    "dora_openarm_dummy": [],
    "dora_openarm_quitter": [],
}

CALL_MAIN = """
import importlib, sys
import dora
print("DORA", dora.__file__)
main = importlib.import_module(sys.argv.pop(1) + ".main").main
try:
    main()
except RuntimeError as error:
    print("RAISED", error)
"""


def compat(environment: Environment) -> Path:
    """Return the installed folder that holds our `dora`."""
    outcome = run(
        [environment.python, "-c", "import dorad.compat; print(*dorad.compat.__path__)"],
        cwd=environment.folder,
        env=clean_environment(environment.bin),
        deadline=20,
    )
    return Path(outcome.expect(0).output.strip())


@pytest.mark.parametrize("package", COMMANDS)
def test_a_node_outside_a_dataflow_raises(
    environment: Environment, tmp_path: Path, package: str
) -> None:
    ours = compat(environment)
    outcome = run(
        [environment.python, "-c", CALL_MAIN, package, *COMMANDS[package]],
        cwd=tmp_path,
        env=clean_environment(environment.bin, {"PYTHONPATH": str(ours)}),
        deadline=5,
    ).expect(0)
    assert f"DORA {ours}" in outcome.output, f"not our dora: {outcome.output}"
    assert "RAISED" in outcome.output, f"main() raised no RuntimeError: {outcome.output}"


@pytest.mark.parametrize(
    ("archive", "passed"),
    [("dora_openarm_selector-0.1.0", 36), ("dora_openarm_dataset_recorder-0.5.0", 44)],
)
def test_the_archives_own_tests_pass(
    environment: Environment, tmp_path: Path, archive: str, passed: int
) -> None:
    with tarfile.open(environment.archives / f"{archive}.tar.gz") as file:
        file.extractall(tmp_path, filter="data")
    outcome = run(
        [environment.python, "-m", "pytest", "-q", "-p", "no:cacheprovider"],
        cwd=tmp_path / archive,
        env=clean_environment(environment.bin, {"PYTHONPATH": f"{compat(environment)}:src"}),
        deadline=60,
    ).expect(0)
    assert f"{passed} passed" in outcome.output, outcome.output

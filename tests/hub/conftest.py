"""The venv of third-party nodes, created once; cases copied into a separate folder and run."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.harness.dataflow import dora_run
from tests.harness.process import Outcome

from .environment import Environment, prepare

CASES = Path(__file__).parent / "cases"

INSTALL_TIMEOUT = 900
"""Seconds for a test that has to wait for pip first; each run has its own deadline."""

Case = Callable[..., Outcome]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.is_relative_to(Path(__file__).parent):
            item.add_marker(pytest.mark.hub)
            item.add_marker(pytest.mark.timeout(INSTALL_TIMEOUT))


@pytest.fixture(scope="session")
def environment() -> Environment:
    return prepare()


@pytest.fixture(scope="module")
def run_case(environment: Environment, tmp_path_factory: pytest.TempPathFactory) -> Case:
    """Copy the files of a case, and the tap, to a new folder and run one of its dataflows."""

    def run(
        case: str,
        file: str,
        *,
        stop_after: float,
        env: dict[str, str] | None = None,
        folders: tuple[str, ...] = (),
    ) -> Outcome:
        folder = tmp_path_factory.mktemp(case)
        shutil.copytree(CASES / case, folder, dirs_exist_ok=True)
        shutil.copy(CASES / "tap.py", folder)
        for name in folders:
            (folder / name).mkdir(parents=True)
        return dora_run(folder / file, bin_dir=environment.bin, stop_after=stop_after, env=env)

    return run

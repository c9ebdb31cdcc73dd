"""Tests the brake against a drive that was recorded: `dora record dataflow.yml -o drive.mcap`."""

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from dora.testing import ReplayedDifferentlyError, replay

HERE = Path(__file__).parent


@pytest.fixture(scope="module")
def drive(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A recorded drive. A real project keeps the file of one in its repository."""
    path = tmp_path_factory.mktemp("drive") / "drive.mcap"
    command = ["dora", "record", "dataflow.yml", "-o", str(path), "--exit-when-nodes-finish"]
    subprocess.run(command, cwd=HERE, check=True)
    yield path


def test_the_brake_acts_as_recorded(drive: Path) -> None:
    assert "50 messages are equal" in replay(drive, live=["brake"])


def test_a_careless_brake_is_noticed(drive: Path) -> None:
    with pytest.raises(ReplayedDifferentlyError, match=r"brake/speed, message \d+, data\[0\]"):
        replay(drive, replace={"brake": HERE / "careless_brake.py"})

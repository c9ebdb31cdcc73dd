"""Fixtures for tests of nodes."""

from pathlib import Path

import pytest

from tests.harness.dataflow import Flow


@pytest.fixture
def flow(tmp_path: Path) -> Flow:
    return Flow(tmp_path)

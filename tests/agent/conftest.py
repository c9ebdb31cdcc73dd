"""Fixtures for tests of the agent."""

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture
def folder() -> Iterator[Path]:
    # Short, because sockets go into it.
    path = Path(tempfile.mkdtemp(prefix="da-", dir="/tmp"))
    yield path
    shutil.rmtree(path)

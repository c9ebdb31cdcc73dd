"""Fixtures for tests of the agent."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def folder() -> Iterator[Path]:
    # Short, because sockets go into it.
    path = Path(tempfile.mkdtemp(prefix="da-", dir="/tmp"))
    yield path
    shutil.rmtree(path)

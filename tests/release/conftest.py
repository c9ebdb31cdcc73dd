"""A robot that trusts the key of the test."""

from __future__ import annotations

import pytest

from tests.release.samples import Robot


@pytest.fixture
def robot(tmp_path) -> Robot:
    return Robot(tmp_path / "robot")

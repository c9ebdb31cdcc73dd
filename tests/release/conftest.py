"""A robot that trusts the key of the test."""

import pytest

from tests.release.samples import Robot


@pytest.fixture
def robot(tmp_path) -> Robot:
    return Robot(tmp_path / "robot")

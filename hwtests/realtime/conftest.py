"""Fixtures of the tests of real time."""

from hwtests.robots.fixtures import (
    deb,
    installed,
    preinstalled_bed,
    pytest_runtest_makereport,
    robot,
    robots_possible,
)

__all__ = [
    "deb",
    "installed",
    "preinstalled_bed",
    "pytest_runtest_makereport",
    "robot",
    "robots_possible",
]

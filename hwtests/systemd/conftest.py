"""Fixtures of the tests on systemd robots."""

from hwtests.robots.fixtures import (
    bed,
    deb,
    installed,
    newer_deb,
    preinstalled_bed,
    pytest_runtest_makereport,
    robot,
    robots_possible,
)

__all__ = [
    "bed",
    "deb",
    "installed",
    "newer_deb",
    "preinstalled_bed",
    "pytest_runtest_makereport",
    "robot",
    "robots_possible",
]

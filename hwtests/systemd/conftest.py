"""Fixtures of the tests on systemd robots."""

from hwtests.robots.fixtures import (
    baked_bed,
    bed,
    deb,
    newer_deb,
    pytest_runtest_makereport,
    robot,
    robots_possible,
)

__all__ = [
    "baked_bed",
    "bed",
    "deb",
    "newer_deb",
    "pytest_runtest_makereport",
    "robot",
    "robots_possible",
]

"""Fixtures of the tests of real time."""

from hwtests.robots.fixtures import (
    baked_bed,
    deb,
    pytest_runtest_makereport,
    robot,
    robots_possible,
)

__all__ = ["baked_bed", "deb", "pytest_runtest_makereport", "robot", "robots_possible"]

"""Fixtures of the tests of the test bed itself."""

from hwtests.robots.fixtures import bed, robots_possible

__all__ = ["bed", "robots_possible"]

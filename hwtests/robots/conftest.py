"""Fixtures of the tests of the test bed itself."""

from hwtests.robots.fixtures import bed, deb, robots_possible

__all__ = ["bed", "deb", "robots_possible"]

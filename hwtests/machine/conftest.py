"""Fixtures of the tests on a virtual machine."""

from hwtests.robots.fixtures import deb, robots_possible

__all__ = ["deb", "robots_possible"]
